"""Every use of a private name of Keras, with the reason and a test that tells when it is no longer needed.

`tests/test_keras_internals.py` runs on each promised version and fails when Keras offers a public way.
"""


def flat_layers(model):
    """A layer and all layers inside it, at any depth.

    `keras.Model.layers` stops at nested models, and a plain `keras.layers.Layer` has no public list of its parts.
    Private: `Layer._flatten_layers` (Keras 3.10 to 3.15).

    Args:
        model: Keras layer or model.

    Returns:
        A list of layers without repetition, `model` first.

    Example:

    >>> import keras
    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="relu")])
    >>> "relu" in [layer.name for layer in flat_layers(keras.Sequential([inner]))]
    True
    """
    return list(dict.fromkeys(model._flatten_layers()))


def losses_of_last_call(layer):
    """The activity regularizers and `add_loss` terms of a layer's last call, without those of the layers inside it.

    `Layer.losses` is public and adds all nested layers and the weight regularizers, which this library counts once per
    step. Private: `Layer._losses` (Keras 3.10 to 3.15).

    Args:
        layer: Keras layer.

    Returns:
        A list of scalars.
    """
    return list(layer._losses)


def change_class(layer, new_class):
    """Turns a layer into one of another class with the same state, where it stands in its model.

    `keras.models.clone_model` makes new layers, so an optimizer or a graph that knows the old ones would lose them.
    Python: `__class__` (any version).

    Args:
        layer: Keras layer.
        new_class: A class that has no state of its own: one derived from the class of the layer, or its base class.
    """
    layer.__class__ = new_class


class BuiltBeforeFit:
    """A `keras.Model` that is complete when its constructor returns.

    Under a strategy Keras builds a model from the mean of the replicas' first batches, which fails where they have
    different numbers of rows, or where a batch is a pair. Only the optimizer has to be built.
    Private: `TensorFlowTrainer._maybe_symbolic_build`, `Model._distribute_strategy` (Keras 3.10 to 3.15).
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        optimizer = getattr(self, "optimizer", None)
        if self._distribute_strategy is not None and optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)


def is_validation_of_fit(arguments):
    """Whether `fit` calls `evaluate` on its own validation data, which it has checked.

    Private: the keyword `_use_cached_eval_dataset` (Keras 3.10 to 3.15).

    Args:
        arguments: Keyword arguments of `evaluate`.

    Returns:
        A Python boolean.
    """
    return bool(arguments.get("_use_cached_eval_dataset"))


def prepare_inputs_of_predict(model, prepare):
    """Makes `predict` of one model pass its first argument through a function.

    Keras compiles `predict` with XLA, where a layer cannot look at its inputs, and has no hook for them. A subclass of
    `keras.Model` would have a name of its own in every saved file. Copies and saved files of the model have the
    `predict` of Keras.
    Private: none, but the method is replaced on the instance (Keras 3.10 to 3.15).

    Args:
        model: `keras.Model`.
        prepare: Function from the inputs of `predict` to those that it shall use.

    Returns:
        `model`.
    """
    predict = model.predict

    def prepared_predict(x, *args, **kwargs):
        return predict(prepare(x), *args, **kwargs)

    model.predict = prepared_predict
    return model
