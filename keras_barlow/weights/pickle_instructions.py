"""The instructions of a pickle, as functions of a `pickle_machine.Machine`."""

import struct

from keras_barlow.weights.limits import Refused
from keras_barlow.weights.pickle_values import SHELL, fill


def _extend(machine, values):
    target = machine.stack[-1]
    if type(target) is list:
        target.extend(values)
    elif target is not SHELL:
        raise Refused("its pickle appends to something that is not a list")


def _set_items(machine, values):
    target = machine.stack[-1]
    if type(target) is dict:
        fill(target, values[::2], values[1::2])
    elif target is not SHELL:
        raise Refused("its pickle sets items of something that is not a dictionary")


def _text(data):
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Refused("its pickle has text that is not UTF-8") from None


def _old_text(data):
    """Decodes a Python 2 string, which may hold arbitrary bytes."""
    return data.decode("utf-8", "surrogateescape")


def _integer(data):
    return int.from_bytes(data, "little", signed=True)


def _decimal(line):
    try:
        return int(line.rstrip(b"L"))
    except ValueError:
        raise Refused("its pickle has a malformed number") from None


def _number(form):
    reader = struct.Struct(form)
    return lambda machine: reader.unpack(machine.take(reader.size))[0]


def _push(value):
    return lambda machine: machine.stack.append(value)


def _push_new(kind):
    return lambda machine: machine.stack.append(kind())


def _push_number(form):
    read = _number(form)
    return lambda machine: machine.stack.append(read(machine))


def _push_counted(form, decode):
    """Pushes a value that is preceded by its length."""
    length = _number(form)
    return lambda machine: machine.stack.append(decode(machine.take(length(machine))))


def _push_tuple(count):
    return lambda machine: machine.stack.append(tuple(machine.last(count)))


def _push_marked(kind):
    def push(machine):
        values = machine.marked()  # First, because this replaces the stack.
        machine.stack.append(kind(values))

    return push


def _remember(form):
    number = _number(form)
    return lambda machine: machine.remember(number(machine))


def _recall(form):
    number = _number(form)
    return lambda machine: machine.recall(number(machine))


def _skip(length):
    return lambda machine: machine.take(length)


def _named(machine):
    machine.stack.append(machine.find(_text(machine.line()), _text(machine.line())))


def _named_by_values(machine):
    module, name = machine.last(2)
    if type(module) is not str or type(name) is not str:
        raise Refused("its pickle names an object by something that is not text")
    machine.stack.append(machine.find(module, name))


def _call(machine):
    machine.call(*machine.last(2))


def _call_with_names(machine):
    function, arguments, _ = machine.last(3)
    machine.call(function, arguments)


def _call_marked(machine):
    values = machine.marked()
    machine.call(values[0], tuple(values[1:]))


def _set_state(machine):
    # Attributes of records and dictionaries (such as `_metadata`) are not needed.
    target, _ = machine.last(2)
    machine.stack.append(target)


def _storage(machine):
    machine.stack.append(machine.persistent(machine.stack.pop()))


INSTRUCTIONS = {
    b"\x80": _skip(1),  # Protocol.
    b"\x95": _skip(8),  # Length of a frame.
    b"N": _push(None),
    b"\x88": _push(True),
    b"\x89": _push(False),
    b")": _push(()),
    b"]": _push_new(list),
    b"}": _push_new(dict),
    b"\x8f": _push(SHELL),  # A set, whose values have neither order nor names.
    b"\x91": _push_marked(lambda values: SHELL),
    b"J": _push_number("<i"),
    b"K": _push_number("<B"),
    b"M": _push_number("<H"),
    b"G": _push_number(">d"),
    b"I": lambda machine: machine.stack.append(_decimal(machine.line())),
    b"L": lambda machine: machine.stack.append(_decimal(machine.line())),
    b"\x8a": _push_counted("<B", _integer),
    b"\x8b": _push_counted("<i", _integer),
    b"X": _push_counted("<I", _text),
    b"\x8c": _push_counted("<B", _text),
    b"\x8d": _push_counted("<Q", _text),
    b"T": _push_counted("<i", _old_text),
    b"U": _push_counted("<B", _old_text),
    b"B": _push_counted("<I", bytes),
    b"C": _push_counted("<B", bytes),
    b"\x8e": _push_counted("<Q", bytes),
    b"\x96": _push_counted("<Q", bytes),
    b"(": lambda machine: machine.mark(),
    b"0": lambda machine: machine.last(1) if machine.stack else machine.marked(),
    b"1": lambda machine: machine.marked(),
    b"t": _push_marked(tuple),
    b"\x85": _push_tuple(1),
    b"\x86": _push_tuple(2),
    b"\x87": _push_tuple(3),
    b"a": lambda machine: _extend(machine, machine.last(1)),
    b"e": lambda machine: _extend(machine, machine.marked()),
    b"\x90": lambda machine: _extend(machine, machine.marked()),
    b"s": lambda machine: _set_items(machine, machine.last(2)),
    b"u": lambda machine: _set_items(machine, machine.marked()),
    b"q": _remember("<B"),
    b"r": _remember("<I"),
    b"\x94": lambda machine: machine.remember_next(),
    b"h": _recall("<B"),
    b"j": _recall("<I"),
    b"c": _named,
    b"\x93": _named_by_values,
    b"R": _call,
    b"\x81": _call,
    b"\x92": _call_with_names,
    b"o": _call_marked,
    b"b": _set_state,
    b"Q": _storage,
}
