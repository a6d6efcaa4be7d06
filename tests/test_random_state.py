"""Library calls leave the random state of the user as it was."""

import random

import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow import randomness


def test_evaluation_does_not_change_the_random_state():
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
