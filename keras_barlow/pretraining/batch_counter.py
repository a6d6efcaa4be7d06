"""The number of batches that a model was trained on, which selects the random numbers of the next batch."""

import keras

from keras_barlow import engine


class _Counter:
    """Keeps the variable out of the model's weights, because Keras does not look for variables in this object."""

    def __init__(self):
        self.variable = keras.Variable(
            0, dtype=engine.COUNT_DTYPE, trainable=False, aggregation="only_first_replica", name="batch_count"
        )


class CountsBatches:
    """Mixin for a `keras.Model` with a count of batches.

    `optimizer.iterations` is another number: it does not advance in every batch under gradient accumulation or a loss
    scale.
    """

    def start_counting(self):
        """Creates the count. To be called by the constructor."""
        self._counter = _Counter()
        if engine.on_jax():
            # A step on JAX can only change variables that Keras knows.
            self._counted = self._counter.variable

    @property
    def batch_count(self):
        """Number of batches trained on: an int64 variable, not a weight, saved in checkpoints and `.keras` files."""
        return self._counter.variable

    def save_own_variables(self, store):
        others = [variable for variable in self._numbered_variables() if variable is not self.batch_count]
        # The count has a name instead of a number, so that files do not depend on the engine.
        for number, variable in enumerate(others):
            store[str(number)] = variable
        store["batch_count"] = keras.ops.convert_to_numpy(self.batch_count)

    def load_own_variables(self, store):
        # Keras' store has keys, but cannot be iterated.
        own = {name: store[name] for name in store.keys()}  # noqa: SIM118
        # Files of earlier versions do not have the count.
        count = own.pop("batch_count", keras.ops.convert_to_numpy(self.batch_count))
        self.batch_count.assign(count)
        values = iter(own.values())
        variables = self._numbered_variables()
        if len(own) == sum(variable is not self.batch_count for variable in variables):
            ordered = [count if variable is self.batch_count else next(values) for variable in variables]
            own = {str(number): value for number, value in enumerate(ordered)}
        super().load_own_variables(own)

    def _numbered_variables(self):
        """The variables that Keras saves under numbers, in its order."""
        numbered = {}
        super().save_own_variables(numbered)
        return list(numbered.values())
