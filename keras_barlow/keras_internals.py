"""All uses of private Keras names, each with its reason.

`tests/test_keras_internals.py` checks on every supported version that each name still works, and fails once Keras
offers a public way.
"""


def flat_layers(model):
    """Returns a layer and all its nested layers, at any depth.

    `keras.Model.layers` stops at nested models, and a plain `keras.layers.Layer` has no public list of sublayers.
    Private: `Layer._flatten_layers` (Keras 3.10 to 3.15).

    Args:
        model: Keras layer or model.

    Returns:
        A list of unique layers, starting with `model`.

    Example:

    >>> import keras
    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="relu")])
    >>> "relu" in [layer.name for layer in flat_layers(keras.Sequential([inner]))]
    True
    """
    return list(dict.fromkeys(model._flatten_layers()))


def losses_of_last_call(layer):
    """Returns the `add_loss` and activity-regularizer terms of a layer's last call, without those of its sublayers.

    The public `Layer.losses` also includes all sublayers and the weight regularizers, which this library counts
    separately, once per step. Private: `Layer._losses` (Keras 3.10 to 3.15).

    Args:
        layer: Keras layer.

    Returns:
        A list of scalar tensors.
    """
    return list(layer._losses)


def change_class(layer, new_class):
    """Changes the class of a layer in place.

    `keras.models.clone_model` creates new layers, and an optimizer or a traced graph that refers to the old ones would
    lose them. Python: `__class__` (any version).

    Args:
        layer: Keras layer.
        new_class: Class without additional state: a subclass of the layer's class, or its base class.
    """
    layer.__class__ = new_class


class BuiltBeforeFit:
    """Mixin for a `keras.Model` whose constructor builds everything but the optimizer.

    Under a strategy, Keras builds a model in `fit` from the replicas' first batches combined. That fails if they have
    different numbers of rows, or if a batch is a pair.
    Private: `TensorFlowTrainer._maybe_symbolic_build`, `Model._distribute_strategy` (Keras 3.10 to 3.15).
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        optimizer = getattr(self, "optimizer", None)
        if self._distribute_strategy is not None and optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)


def is_validation_of_fit(arguments):
    """Returns whether `evaluate` was called by `fit`, which has already checked the validation data.

    Private: the keyword `_use_cached_eval_dataset` (Keras 3.10 to 3.15).

    Args:
        arguments: Keyword arguments of `evaluate`.

    Returns:
        A Python boolean.
    """
    return bool(arguments.get("_use_cached_eval_dataset"))


def prepare_inputs_of_predict(model, prepare):
    """Makes `predict` of one model pass its first argument through a function.

    Keras compiles `predict` with XLA, where layers see no values, and has no hook for its inputs. A subclass of
    `keras.Model` would change the class name in saved files. Copies and saved files of the model have the `predict` of
    Keras. Private: none, but the method is replaced on the instance (Keras 3.10 to 3.15).

    Args:
        model: `keras.Model`.
        prepare: Function that maps the `x` passed by the user to the `x` that `predict` uses.

    Returns:
        `model`.
    """
    predict = model.predict

    def prepared_predict(x, *args, **kwargs):
        return predict(prepare(x), *args, **kwargs)

    model.predict = prepared_predict
    return model
