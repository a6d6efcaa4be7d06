"""The number of batches that a model was trained on, which selects the random numbers of the next batch."""

import keras


class _Counter:
    """Keeps the variable out of the model's weights, because Keras does not look for variables in this object."""

    def __init__(self):
        self.variable = keras.Variable(
            0, dtype="int64", trainable=False, aggregation="only_first_replica", name="batch_count"
        )


class CountsBatches:
    """Mixin for a `keras.Model` with a count of batches.

    `optimizer.iterations` is another number: it does not advance in every batch under gradient accumulation or a loss
    scale.
    """

    def start_counting(self):
        """Creates the count. To be called by the constructor."""
        self._counter = _Counter()

    @property
    def batch_count(self):
        """Number of batches trained on: an int64 variable, not a weight, saved in checkpoints and `.keras` files."""
        return self._counter.variable

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["batch_count"] = self.batch_count.numpy()

    def load_own_variables(self, store):
        # Keras' store has keys, but cannot be iterated.
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118
        # Files of earlier versions do not have it.
        if "batch_count" in own:
            self.batch_count.assign(own.pop("batch_count"))
        super().load_own_variables(own)
