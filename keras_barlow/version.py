"""The version, apart from the package so that building reads it without TensorFlow."""

__version__ = "0.1.0"
