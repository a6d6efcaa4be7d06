"""`train_step` and `test_step` as the trainer of each engine calls them, and the module of its training step."""

from keras_barlow import engine, keras_internals

if engine.on_jax():
    from keras_barlow.pretraining import jax_step as training_step

    class EngineSteps:
        """Mixin for a `keras.Model`: `train_step(state, data)` and `test_step(state, data)` as pure functions.

        The model defines `train_on(data)` and `test_on(data)`, which assign variables.
        """

        def train_step(self, state, data):
            groups = self.trainable_variables, self.non_trainable_variables, self.optimizer.variables
            return training_step.pure(lambda: self.train_on(data), (*groups, self.metrics_variables), state)

        def test_step(self, state, data):
            groups = self.trainable_variables, self.non_trainable_variables, self.metrics_variables
            return training_step.pure(lambda: self.test_on(data), groups, state)

else:
    from keras_barlow.pretraining import tensorflow_step as training_step

    class EngineSteps(keras_internals.BuiltBeforeFit):
        """Mixin for a `keras.Model`: `train_step(data)` and `test_step(data)`, which assign variables.

        The model defines `train_on(data)` and `test_on(data)`.
        """

        def train_step(self, data):
            return self.train_on(data)

        def test_step(self, data):
            return self.test_on(data)


__all__ = ["EngineSteps", "training_step"]
