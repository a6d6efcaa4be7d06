"""The values that a pickle may make: plain containers, and a stand-in for everything that it names."""

from keras_barlow.weights.limits import Refused

_INTEGER = 2**63


class Global:
    """What stands for something that a pickle names.

    Args:
        name: Name of the object.
        call: Function of the tuple of arguments, for pickles that call it.
    """

    __slots__ = ("call", "name")

    def __init__(self, name, call):
        self.name = name
        self.call = call


# Takes the place of records and their classes. Whatever is done with it does nothing.
SHELL = Global("record", lambda arguments: SHELL)


def fill(target, keys, values):
    """Sets items of a dictionary, whose keys become strings."""
    if len(keys) != len(values):
        raise Refused("its pickle sets a key without a value")
    for key, value in zip(keys, values, strict=True):
        target[_key(key, target)] = value


def _key(key, target):
    if type(key) is str:
        return key
    if key is None or type(key) in (bool, float) or (type(key) is int and abs(key) < _INTEGER):
        return str(key)
    return f"<{len(target)}>"  # A name of its own, so that nothing is dropped.
