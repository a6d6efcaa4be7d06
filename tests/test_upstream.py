"""What this package works around in Keras and TensorFlow. A failure here may mean that a workaround can go."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow import keras_internals, randomness


def test_keras_callbacks_keep_their_state_in_the_listed_attributes(tmp_path):
    callbacks = {
        "EarlyStopping": keras.callbacks.EarlyStopping(),
        "History": keras.callbacks.History(),
        "ModelCheckpoint": keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        "ReduceLROnPlateau": keras.callbacks.ReduceLROnPlateau(),
        "SwapEMAWeights": keras.callbacks.SwapEMAWeights(),
        "TensorBoard": keras.callbacks.TensorBoard(tmp_path),
    }
    assert callbacks.keys() == keras_internals.CALLBACK_STATE.keys()
    assert set(vars(keras.callbacks.Callback())) <= {*keras_internals.CALLBACK_ATTRIBUTES, "validation_data"}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for name, callback in callbacks.items():
        callback.set_model(model)
        if name != "SwapEMAWeights":
            callback.on_train_begin()
        for attribute in keras_internals.CALLBACK_STATE[name]:
            assert hasattr(callback, attribute), f"{name}.{attribute}"
        # A public way to save the state would replace the table.
        assert not hasattr(callback, "get_state")
    callbacks["TensorBoard"].on_train_end()


def test_keras_decays_weights_outside_of_update_step():
    class Plain(keras.optimizers.Optimizer):
        def update_step(self, gradient, variable, learning_rate):
            pass

    for optimizer, expected in ((Plain(0.5, weight_decay=0.1), 0.95), (kb.optimizers.LARS(0.5, weight_decay=0.1), 1)):
        weight = keras.Variable(np.ones((1, 1), "float32"), name="kernel")
        optimizer.build([weight])
        optimizer._apply_weight_decay([weight])
        np.testing.assert_allclose(weight, [[expected]], rtol=1e-6)


@pytest.mark.parametrize("nested", [False, True])
def test_tensorflow_refuses_what_keras_reduces(strategy, nested):
    """Until TensorFlow accepts it, `MultiWorkerStrategy.reduce` is needed (keras-team/keras#20585)."""
    values = strategy.run(lambda: tf.ones(()))
    with pytest.raises((ValueError, TypeError)):
        strategy.reduce("SUM", {"loss": values} if nested else values, axis=0)


def test_evaluation_leaves_the_random_state_of_the_user():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype="uint8")
    data = kb.data.ArrayImages(images, np.arange(6) % 2)
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)

    def state():
        _, keys, *rest = np.random.get_state()
        return random.getstate(), keys.tolist(), rest, tf.compat.v1.get_seed(0)

    before = state()
    kb.evaluation.linear_probe(encoder, data, data, epochs=1, seed=3)
    assert state() == before
    with randomness.seeded(3):
        numbers = random.random(), float(tf.random.uniform(()))
    assert state() == before
    with pytest.raises(KeyError), randomness.seeded(3):
        assert numbers == (random.random(), float(tf.random.uniform(())))
        raise KeyError
    assert state() == before
