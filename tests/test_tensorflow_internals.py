"""Each use of a private name of TensorFlow: it still works and is still needed."""

import inspect

import tensorflow as tf

from keras_barlow import tensorflow_internals


def warns_about_retracing(function, caplog):
    caplog.clear()
    with caplog.at_level("WARNING"):
        for size in range(1, 9):
            function(tf.zeros(size))
    return "retracing" in caplog.text


def test_the_retracing_warning_is_silenced(caplog):
    function = tf.function(lambda x: x + 1)
    assert tensorflow_internals.without_retracing_warning(function) is function
    assert not warns_about_retracing(function, caplog)


def test_the_private_name_is_still_needed(caplog):
    """When this fails, TensorFlow does not warn any more or has a public way: delete the function."""
    assert warns_about_retracing(tf.function(lambda x: x + 1), caplog)
    assert not [name for name in inspect.signature(tf.function).parameters if "warn" in name]
