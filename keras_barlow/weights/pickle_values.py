"""Values that a pickle may create: plain containers, and stand-ins for the objects that it names."""

from keras_barlow.weights.limits import Refused

_INTEGER = 2**63


class Global:
    """Stands in for an object that a pickle names.

    Args:
        name: Name of the object.
        call: Function that maps a tuple of arguments to the result, for pickles that call the object.
    """

    __slots__ = ("call", "name")

    def __init__(self, name, call):
        self.name = name
        self.call = call


# Stands in for records and their classes. All operations on it do nothing.
SHELL = Global("record", lambda arguments: SHELL)


def fill(target, keys, values):
    """Sets items of a dictionary. Keys are converted to strings."""
    if len(keys) != len(values):
        raise Refused("its pickle sets a key without a value")
    for key, value in zip(keys, values, strict=True):
        target[_key(key, target)] = value


def _key(key, target):
    if type(key) is str:
        return key
    if key is None or type(key) in (bool, float) or (type(key) is int and abs(key) < _INTEGER):
        return str(key)
    return f"<{len(target)}>"  # A unique name, so that no value is lost.
