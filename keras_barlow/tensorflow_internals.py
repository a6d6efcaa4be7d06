"""All uses of private TensorFlow names, each with its reason.

`tests/test_tensorflow_internals.py` checks on every supported version that each name still works, and fails once it is
no longer needed.
"""


def without_retracing_warning(function):
    """Silences TensorFlow's warning about frequent retracing for one `tf.function`.

    Retracing once per image size is expected, and `tf.function` has no public argument that disables the warning.
    Private: `Function._omit_frequent_tracing_warning` (TensorFlow 2.18 to 2.21).

    Args:
        function: Result of `tf.function`.

    Returns:
        `function`.
    """
    function._omit_frequent_tracing_warning = True
    return function
