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


# Attributes in which Keras' callbacks keep state between steps. Keras has no public way to save them; the names with an
# underscore are private (Keras 3.10 to 3.15).
AVERAGES_IN_MODEL = "_ema_weights_in_model"
CALLBACK_STATE = {
    "EarlyStopping": ("best", "best_epoch", "best_weights", "stopped_epoch", "wait"),
    "History": ("epoch", "history"),
    "ModelCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "ReduceLROnPlateau": ("best", "cooldown_counter", "wait"),
    "SwapEMAWeights": (AVERAGES_IN_MODEL,),
    "TensorBoard": ("_global_train_batch", "_global_test_batch"),
}
# Attributes that `keras.callbacks.Callback` itself sets, `_model` privately.
CALLBACK_ATTRIBUTES = ("params", "model", "_model")


class DecayInUpdateStep:
    """A `keras.optimizers.Optimizer` that applies weight decay in its own `update_step`.

    Keras decays weights before `update_step`, outside the trust ratio of LARS, and has no public switch for it. A
    subclass also needs the index and the decay rule of a variable, which only private methods give.
    Private: `Optimizer._apply_weight_decay`, `_use_weight_decay`, `_get_variable_index` (Keras 3.10 to 3.15).
    """

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` decays."""

    def is_decayed(self, variable):
        """Returns whether a variable decays: `exclude_from_weight_decay` does not exclude it.

        Args:
            variable: Trainable `keras.Variable`.

        Returns:
            A Python boolean.
        """
        return self._use_weight_decay(variable)

    def index_of(self, variable):
        """Returns the index of a variable in the list that the optimizer was built with.

        Args:
            variable: Trainable `keras.Variable`.

        Returns:
            A Python integer.
        """
        return self._get_variable_index(variable)
