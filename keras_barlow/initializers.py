"""Initial kernels: one initializer for many layers."""

import keras


def with_new_seed(initializer):
    """A copy of an initializer that draws numbers of its own.

    An initializer that is called again gives the same numbers: kernels of one shape would be equal.

    Args:
        initializer: Name or instance of a Keras initializer.

    Returns:
        A `keras.initializers.Initializer`, whose seed comes from Keras' global one.

    Raises:
        ValueError: If there is no such initializer.

    Example:

    >>> initializer = keras.initializers.HeUniform()
    >>> bool(keras.ops.all(initializer((2, 2)) == with_new_seed(initializer)((2, 2))))
    False
    """
    initializer = keras.initializers.get(initializer)
    config = initializer.get_config()
    return type(initializer).from_config({name: value for name, value in config.items() if name != "seed"})
