"""The engine that computes: TensorFlow or JAX, as `KERAS_BACKEND` says. The few primitives that `keras.ops` lacks.

What differs in more than a primitive has a module per engine: `distribution`, and the training step in `pretraining`.
"""

import contextlib

import keras
from keras import ops

from keras_barlow import philox

NAME = keras.backend.backend()

if NAME not in ("tensorflow", "jax"):
    raise ImportError(
        "keras_barlow trains with TensorFlow or JAX. "
        f"Received: KERAS_BACKEND={NAME}. Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax before Keras is imported."
    )


# JAX has no 64-bit integers by default.
COUNT_DTYPE = "int32" if NAME == "jax" else "int64"


def widest_float():
    """The widest floating-point type of the engine: JAX has float64 only if it is enabled.

    Returns:
        `"float64"` or `"float32"`.
    """
    return "float64" if NAME == "tensorflow" or jax.config.jax_enable_x64 else "float32"


def full_precision(*dtypes):
    """The floating-point type of what must not be in half precision: float32, or float64 where that is asked for.

    `keras.backend.result_type` never returns float64 on JAX.

    Args:
        *dtypes: Types of the inputs of the computation. Without any, that of the dtype policy in force.

    Returns:
        `"float32"` or `"float64"`.

    Example:

    >>> full_precision("bfloat16"), full_precision("float32", "float64")
    ('float32', 'float64')
    """
    dtypes = dtypes or (keras.config.dtype_policy().compute_dtype,)
    return "float64" if "float64" in map(keras.backend.standardize_dtype, dtypes) else "float32"


def on_jax():
    """Whether the engine is JAX.

    Returns:
        A Python boolean.
    """
    return NAME == "jax"


if NAME == "tensorflow":
    import tensorflow as tf

    def key_of(high, low):
        """A key for `random_bits` from two 64-bit integers.

        Args:
            high: Python integer.
            low: Python integer, or a scalar integer tensor.

        Returns:
            A tensor: int64 `(2,)` on TensorFlow, the same bits as uint32 `(4,)` on JAX.
        """
        return tf.stack([tf.constant(high, tf.int64), tf.cast(low, tf.int64)])

    def as_key(numbers):
        """A key for `random_bits` from a pair of integers, or from a key.

        Args:
            numbers: Integer tensor `(2,)`, or what `key_of` returned.

        Returns:
            A tensor as from `key_of`.
        """
        return ops.cast(numbers, "int64")

    def random_bits(key, rows, columns):
        """Draws a table of random bits by Philox-4x32-10, equal on both engines.

        Args:
            key: A tensor from `key_of`.
            rows: Number of rows, an integer or a scalar integer tensor.
            columns: Number of columns, a Python integer.

        Returns:
            uint32 tensor `(rows, columns)`. The first n rows do not depend on the number of rows.
        """
        # Philox by name, because TensorFlow's default generator depends on whether XLA compiles the function.
        return tf.random.stateless_uniform(
            (rows, columns), seed=key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )

    def value_and_gradient(function, tensors):
        """The result of a function and the gradient of its loss.

        Args:
            function: Function of tensors that returns a dictionary of scalars with the key `"loss"`.
            tensors: List of float tensors.

        Returns:
            The pair of the dictionary and the list of the gradients of `"loss"`, zeros where it does not depend on a
            tensor.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            terms = function(*tensors)
        gradients = tape.gradient(terms["loss"], tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return terms, gradients

    @contextlib.contextmanager
    def seeded(seed):
        """Seeds the generator of functions that take no seed, then restores it.

        Args:
            seed: Integer.

        Yields:
            None.
        """
        before, _ = tf.compat.v1.get_seed(0)
        tf.random.set_seed(seed)
        try:
            yield
        finally:
            # What `get_seed` returns if no seed is set.
            tf.random.set_seed(None if before == 87654321 else before)

    def outside_of_graphs():
        """A context manager in which operations run at once, even while a function is traced."""
        return tf.init_scope()

    def with_branches(function):
        """A function in which Python may branch on tensors, as keras-cv does.

        Args:
            function: Function of a tensor.

        Returns:
            A function with the same argument and result.
        """
        # This needs AutoGraph. Keras disables it in the training step; a nested tf.function enables it again.
        return function if tf.executing_eagerly() else tf.function(function)

    def scope_of(model):
        """A context manager in which variables are created as those of a model.

        Args:
            model: `keras.Model`.

        Returns:
            A context manager.
        """
        return model.distribute_strategy.scope()

    def sync(model):
        """Gives the variables of a model that is being trained their current values.

        Args:
            model: `keras.Model`.
        """

    def has_value(tensor):
        """Whether the numbers of a tensor can be read now, outside of a traced function.

        Args:
            tensor: Tensor of the engine.

        Returns:
            A Python boolean.
        """
        return tf.is_tensor(tensor) and hasattr(tensor, "numpy")

else:
    import jax

    def key_of(high, low):
        words = [ops.convert_to_tensor(high >> shift & 0xFFFFFFFF, "uint32") for shift in (0, 32)]
        return ops.stack([*words, *_words(ops.convert_to_tensor(low))])

    def as_key(numbers):
        numbers = ops.convert_to_tensor(numbers)
        return numbers if numbers.shape == (4,) else ops.stack([*_words(numbers[0]), *_words(numbers[1])])

    def _words(number):
        """The two 32-bit words of an integer. JAX has no 64-bit integers by default."""
        sign = ops.zeros_like(number) if "uint" in str(number.dtype) else ops.right_shift(number, 31)
        return ops.cast(number, "uint32"), ops.cast(sign, "uint32")

    def random_bits(key, rows, columns):
        return ops.reshape(philox.bits([key[word] for word in range(4)], rows * columns), (rows, columns))

    def value_and_gradient(function, tensors):
        def loss(*tensors):
            terms = function(*tensors)
            return terms["loss"], terms

        gradients, terms = jax.grad(loss, argnums=tuple(range(len(tensors))), has_aux=True)(*tensors)
        return terms, list(gradients)

    def seeded(seed):
        return contextlib.nullcontext()

    def outside_of_graphs():
        return jax.ensure_compile_time_eval()

    def with_branches(function):
        return function

    def scope_of(model):
        return contextlib.nullcontext()

    def sync(model):
        # During an epoch, the trainer of JAX keeps the values to itself.
        model.jax_state_sync()

    def has_value(tensor):
        return isinstance(tensor, jax.Array) and not isinstance(tensor, jax.core.Tracer)
