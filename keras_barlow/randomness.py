"""The table of random numbers from which all views are drawn.

Everything random about a view is a few numbers per image. They are drawn as one table for the GLOBAL batch, statelessly
from `(seed, step, view)`, and each replica slices its own rows. A run therefore makes the same views on 1, 2 or 8
devices and after a resume, and no two replicas share random numbers.

The generator is Philox, whose bits are the same on both engines. They are converted to floats here, because TensorFlow
and XLA convert them differently (2.21). The first n rows do not depend on the number of rows.
"""

import contextlib
import random

from keras import ops

from keras_barlow import distribution, engine

_SEEDS = 2**32


def view_key(seed, step, view):
    """The key from which the random numbers of one view of one step are drawn.

    Args:
        seed: Integer seed of the run.
        step: Number of the training step, an integer or a scalar integer tensor.
        view: Number of the view, a Python integer from 0 without an upper limit.

    Returns:
        A key, unique for each `(step, view)`: an int64 tensor `(2,)`, on JAX the same bits as uint32 `(4,)`.

    Raises:
        ValueError: If the seed is out of range.
    """
    seed = checked_seed(seed)
    # The first two views share one seed, as in release 0.1; further views use the upper half of the seed.
    return engine.key_of(seed + view // 2 * _SEEDS, 2 * step + view % 2)


def checked_seed(seed):
    """Checks a seed and converts it to a Python integer.

    Args:
        seed: Integer between -2^32 and 2^32, exclusive. Beyond that range, two seeds could share a key.

    Returns:
        A Python integer.

    Raises:
        ValueError: If the seed is not an integer in this range.

    Example:

    >>> checked_seed(7)
    7
    """
    if int(seed) != seed or abs(seed) >= _SEEDS:
        raise ValueError(f"A seed must be an integer between -2^32 and 2^32. Received: seed={seed!r}. Choose another.")
    return int(seed)


def uniform_table(key, rows, columns):
    """Draws this replica's rows of the global table of uniform random numbers.

    Args:
        key: What `view_key` returned.
        rows: Number of images on this replica, an integer or a scalar integer tensor.
        columns: Number of random numbers per image, a Python integer.

    Returns:
        Float32 tensor `(rows, columns)` in [0, 1), multiples of 2^-24.

    Example:

    >>> table = uniform_table(view_key(seed=0, step=7, view=1), rows=4, columns=3)
    >>> longer = uniform_table(view_key(seed=0, step=7, view=1), rows=8, columns=3)
    >>> bool(ops.all(table == longer[:4]))
    True
    """
    offset, total = distribution.own_rows(rows)
    return uniform_rows(key, offset, rows, total, columns)


def uniform_rows(key, start, rows, total, columns):
    """Draws a slice of the rows of a table of uniform random numbers.

    Args:
        key: What `view_key` returned.
        start: First row of the slice, an integer or a scalar integer tensor.
        rows: Number of rows in the slice, an integer or a scalar integer tensor.
        total: Number of rows in the whole table, an integer or a scalar integer tensor.
        columns: Number of random numbers per image, a Python integer.

    Returns:
        Float32 tensor `(rows, columns)` in [0, 1), multiples of 2^-24.
    """
    bits = engine.random_bits(key, total, columns)
    own = bits if total is rows else bits[start : start + rows]
    # float32 holds 24 bits exactly; 32 bits could round up to 1.0.
    return ops.cast(ops.right_shift(own, ops.convert_to_tensor(8, "uint32")), "float32") * 2.0**-24


def uniform_number(seed, step, view):
    """Draws one uniform random number for a whole step.

    Args:
        seed: Integer seed of the run.
        step: Number of the training step, an integer or a scalar integer tensor.
        view: Number of a view that draws nothing else, a Python integer.

    Returns:
        Float32 scalar in [0, 1), equal on all replicas.

    Example:

    >>> bool(uniform_number(0, 7, view=2) == uniform_number(0, 7, view=2))
    True
    """
    return uniform_rows(view_key(seed, step, view), 0, 1, 1, 1)[0, 0]


@contextlib.contextmanager
def seeded_initializers(seed):
    """Seeds initializers and layers that draw their seed from Python's `random`, then restores the caller's state.

    Args:
        seed: Integer; None changes nothing.

    Yields:
        None.

    Example:

    >>> import keras
    >>> state = random.getstate()
    >>> with seeded_initializers(0):
    ...     weights = keras.initializers.GlorotUniform()((2, 2))
    >>> random.getstate() == state
    True
    """
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def seeded(seed):
    """Seeds Python and the engine for code that takes no seed, then restores the caller's random state.

    TensorFlow's own count of operations without a seed starts again from its global seed. JAX has no such state.

    Args:
        seed: Integer.

    Yields:
        None.
    """
    with seeded_initializers(seed), engine.seeded(seed):
        yield
