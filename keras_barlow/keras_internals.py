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
        """Whether a variable decays, that is, `exclude_from_weight_decay` does not name it.

        Args:
            variable: Trainable `keras.Variable`.

        Returns:
            A Python boolean.
        """
        return self._use_weight_decay(variable)

    def index_of(self, variable):
        """The position of a variable among those that the optimizer was built with.

        Args:
            variable: Trainable `keras.Variable`.

        Returns:
            A Python integer.
        """
        return self._get_variable_index(variable)
