"""The table of random numbers, and the one place that draws.

Everything random about a view is a handful of numbers per image. They are drawn as one table for the GLOBAL
batch, statelessly from `(seed, step, view)`, and each replica slices its own rows. So a run makes the same
views on 1, 2 or 8 devices and after a resume, and no two replicas share a draw.

The bits come from the Philox generator by name, because TensorFlow's default one gives other numbers under
XLA than without it. The conversion to float is done here, because TensorFlow and XLA convert the same bits
differently (2.21). The first n rows stay the same when N grows.
"""

import contextlib
import random

import tensorflow as tf

from keras_barlow import distribution

_SEEDS = 2**32
# What `tf.compat.v1.get_seed` returns if no global seed is set.
_UNSET_SEED = 87654321


def view_key(seed, step, view):
    """The key of one view of one step.

    Args:
        seed: Integer.
        step: Integer or scalar integer tensor.
        view: Number of the view, a Python integer from 0; there may be any number of views.

    Returns:
        An int64 tensor `(2,)`; no two `(step, view)` share it.

    Raises:
        ValueError: If the seed is out of range; see `checked_seed`.
    """
    seed = checked_seed(seed)
    # Two views a step, as runs have always drawn them; further views count on in the upper half of the seed.
    return tf.stack([tf.constant(seed + view // 2 * _SEEDS, tf.int64), 2 * tf.cast(step, tf.int64) + view % 2])


def checked_seed(seed):
    """The seed as an integer.

    Args:
        seed: Integer between -2^32 and 2^32, exclusive: beyond, two seeds could share a key.

    Returns:
        A Python integer.

    Raises:
        ValueError: If it is not such an integer.

    Example:

    >>> checked_seed(7)
    7
    """
    if int(seed) != seed or abs(seed) >= _SEEDS:
        raise ValueError(f"A seed must be an integer between -2^32 and 2^32. Received: seed={seed!r}")
    return int(seed)


def uniform_table(key, rows, columns):
    """Draws this replica's rows of the global table of uniform numbers.

    Args:
        key: Integer tensor `(2,)`, see `view_key`.
        rows: Number of rows on this replica, an integer or a scalar integer tensor.
        columns: Random numbers per image, a Python integer.

    Returns:
        Float32 tensor `(rows, columns)` in [0, 1), multiples of 2^-24.

    Example:

    >>> table = uniform_table(view_key(seed=0, step=7, view=1), rows=4, columns=3)
    >>> longer = uniform_table(view_key(seed=0, step=7, view=1), rows=8, columns=3)
    >>> bool(tf.reduce_all(table == longer[:4]))
    True
    """
    offset, total = distribution.own_rows(rows)
    return uniform_rows(key, offset, rows, total, columns)


def uniform_rows(key, start, rows, total, columns):
    """Draws some rows of a table of uniform numbers.

    Args:
        key: Integer tensor `(2,)`, see `view_key`.
        start: First row, an integer or a scalar integer tensor.
        rows: Number of rows, the same.
        total: Number of rows in the whole table, the same.
        columns: Random numbers per image, a Python integer.

    Returns:
        Float32 tensor `(rows, columns)` in [0, 1), multiples of 2^-24.
    """
    bits = tf.random.stateless_uniform(
        (total, columns), seed=key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    own = bits if total is rows else bits[start : start + rows]
    # 24 bits are what float32 holds exactly; a 32-bit draw could round up to 1.0.
    return tf.cast(tf.bitwise.right_shift(own, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


@contextlib.contextmanager
def seeded(seed):
    """Seeds Python and TensorFlow for code that takes no seed, then restores the caller's random state.

    TensorFlow's own count of operations without a seed starts again from its global seed.

    Args:
        seed: Integer.

    Example:

    >>> state = random.getstate()
    >>> with seeded(0):
    ...     layer = tf.keras.layers.Dense(2)
    >>> random.getstate() == state
    True
    """
    state = random.getstate()
    global_seed, _ = tf.compat.v1.get_seed(0)
    random.seed(seed)
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        tf.random.set_seed(None if global_seed == _UNSET_SEED else global_seed)
