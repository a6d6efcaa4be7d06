"""Philox on `keras.ops` gives the published numbers, and those of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_barlow import engine, philox

# The known-answer vectors of the authors' library Random123: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [ops.convert_to_tensor(np.uint32(int(word, 16))) for word in text.split()]


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_known_answers(counter, key, expected):
    assert " ".join(f"{int(word):08x}" for word in philox.blocks(words(counter), words(key))) == expected


@pytest.mark.parametrize("high, low", [(0, 0), (7, 13), (-5, -1), (2**33 + 5, 2**31 - 2), (-(2**40), 12)])
def test_the_bits_are_those_of_tensorflow(high, low):
    expected = engine.random_bits(engine.key_of(high, tf.constant(low, tf.int64)), 7, 3)
    seed = np.array([high, low], "int64").view("uint32")
    np.testing.assert_array_equal(ops.reshape(philox.bits(list(seed), 21), (7, 3)), expected)
    np.testing.assert_array_equal(philox.bits(list(seed), 5), np.ravel(expected)[:5])
