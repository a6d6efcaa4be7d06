"""The random number generator Philox-4x32-10 as arithmetic on `keras.ops`, for engines that do not have it.

A block of four 32-bit numbers is a pure function of a counter of 128 bits and a key of 64 bits, both given as 32-bit
words, the lowest first. All words are uint32, whose products and sums wrap around.

References:
    Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011,
    https://doi.org/10.1145/2063384.2063405
"""

from keras import ops

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
# TensorFlow scrambles the seeds of its stateless functions with this key.
_SCRAMBLING_KEY = 0x3EC8F720, 0x02461E29


def blocks(counter, key):
    """Computes blocks of random bits.

    Args:
        counter: Four uint32 tensors of one shape, or of shapes that broadcast: the words of the counters.
        key: Two uint32 scalars: the words of the key.

    Returns:
        Four uint32 tensors.

    Example:

    >>> zero = ops.zeros((), "uint32")
    >>> [hex(int(word)) for word in blocks([zero] * 4, [zero] * 2)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    x0, x1, x2, x3 = (_word(word) for word in counter)
    k0, k1 = (_word(word) for word in key)
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = _product(x0, _MULTIPLIERS[0]), _product(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = _xor(high1, x1, k0), low1, _xor(high0, x3, k1), low0
        k0, k1 = k0 + _word(_KEY_STEPS[0]), k1 + _word(_KEY_STEPS[1])
    return x0, x1, x2, x3


def bits(seed, count):
    """Draws 32-bit numbers, the same as `tf.random.stateless_uniform(..., alg="philox")` with the same seed.

    Args:
        seed: Four uint32 scalars: the words of two 64-bit seeds.
        count: How many numbers, a Python integer below 2^32.

    Returns:
        uint32 tensor `(count,)`. The first n numbers do not depend on `count`.
    """
    key0, key1, high0, high1 = blocks(seed, _SCRAMBLING_KEY)
    lowest = ops.cast(ops.arange(-(-count // 4)), "uint32")
    words = blocks([lowest, 0, high0, high1], [key0, key1])
    return ops.reshape(ops.stack([ops.broadcast_to(word, lowest.shape) for word in words], axis=1), (-1,))[:count]


def _product(x, constant):
    """The high and the low word of a product, from products of 16-bit halves."""
    low, high = _word(constant & 0xFFFF), _word(constant >> 16)
    x_low, x_high = ops.bitwise_and(x, _word(0xFFFF)), _upper(x)
    middle = x_high * low + _upper(x_low * low)
    other = x_low * high + ops.bitwise_and(middle, _word(0xFFFF))
    return x_high * high + _upper(middle) + _upper(other), x * _word(constant)


def _upper(x):
    return ops.right_shift(x, _word(16))


def _xor(*words):
    result = words[0]
    for word in words[1:]:
        result = ops.bitwise_xor(result, word)
    return result


def _word(x):
    return ops.convert_to_tensor(x, "uint32")
