"""Reads tensors from PyTorch files without PyTorch, and without executing code from the file.

`torch.save` writes a pickle: a small program that may name any function. Here it can name only tensors, plain
containers, and the records that training frameworks keep in checkpoints, which become empty stand-ins. Any other name
is refused before it is imported.
"""

import io
import os
import stat
import struct

import ml_dtypes

from keras_barlow.weights.archive import Archive
from keras_barlow.weights.limits import RESAVE, Refused, allowance, shown
from keras_barlow.weights.pickle_machine import Machine
from keras_barlow.weights.pickle_values import SHELL, Global, fill
from keras_barlow.weights.safetensors_file import is_safetensors, safetensors_tensors
from keras_barlow.weights.tensors import Storage, Tensor, read_slice

_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    # Quantized numbers. Their tensors need a scale as well, and are replaced by stand-ins.
    "QInt32Storage": "int32",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
    "UntypedStorage": "uint8",
}
# Packages whose objects (settings, schedules, scores) appear in checkpoints and are not needed.
_RECORDS = ("_codecs", "argparse", "lightning", "numpy", "omegaconf", "pathlib", "pytorch_lightning", "torch", "typing")
# `__builtin__` is the name of `builtins` in PyTorch's pickle protocol.
_BUILTINS = ("builtins", "__builtin__")
_SCALARS = ("bool", "bytearray", "bytes", "complex", "float", "int", "long", "object", "str", "unicode")
_SETS = ("frozenset", "set")
_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEPTH = 100


def read_tensors(path):
    """Finds all tensors in a file, at any depth of nested dictionaries and lists.

    Args:
        path: Path of a safetensors file, or of a file written by `torch.save` in the zip format of PyTorch 1.6 and
            later or in the older format. The format is detected from the content.

    Returns:
        Dictionary from names, such as `"state_dict.layer1.0.conv1.weight"`, to `Tensor`.

    Raises:
        ValueError: If the file has another format, names code to execute, holds tensors that exceed the file, or
            expands far beyond its size.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Refused("not a regular file", "Pass the path of the file itself.")
        with open(path, "rb") as file:
            start = file.read(9)
        if is_safetensors(path, start):
            return safetensors_tensors(path)
        return _unzipped(path) if start.startswith(_MAGIC) else _legacy(path)
    except Refused as error:
        raise error.about(path) from error


class _Storages:
    """The storages that a pickle names, without duplicates.

    Args:
        path: Path of the file.
        place: Function of a storage's key, length in bytes and item size that returns a function that reads it. None if
            the positions are known only after the pickle.
    """

    def __init__(self, path, place=None):
        self.path = path
        self.size = os.path.getsize(path)
        self.by_key = {}
        self._place = place

    def __call__(self, identity):
        """Returns the storage for a persistent ID."""
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            return SHELL  # The source of a class, in files before the zip format.
        if type(identity) is not tuple or len(identity) not in (5, 6):
            raise Refused("its pickle asks for something that is not a storage")
        _, kind, key, _, count = identity[:5]
        if identity[5:] not in ((), (None,)):
            raise Refused("views of storages, as written by PyTorch before 0.4", RESAVE)
        dtype = _DTYPES.get(kind.name) if type(kind) is Global else None
        if dtype is None or type(key) is not str or not key.isascii() or type(count) is not int or count < 0:
            raise Refused("a storage without a known type, key and length")
        if key not in self.by_key:
            self.by_key[key] = (kind.name, count, self._storage(key, dtype, count))
        if self.by_key[key][:2] != (kind.name, count):
            raise Refused(f"the storage {shown(key)} twice, with different lengths or types", RESAVE)
        return self.by_key[key][2]

    def _storage(self, key, dtype, count):
        storage = Storage(self.path, self.size, dtype, count, None)
        if self._place is not None:
            storage.load = self._place(key, count * storage.dtype.itemsize, storage.dtype.itemsize)
        return storage


def _unzipped(path):
    archive = Archive(path)
    programs = [name for name in archive.names if name == b"data.pkl" or name.endswith(b"/data.pkl")]
    if not programs:
        raise Refused("a zip archive without data.pkl", "Pass a file written by torch.save.")
    program = min(programs, key=lambda name: name.count(b"/"))
    root = program.removesuffix(b"data.pkl")
    if root + b"byteorder" in archive.names and archive.read(root + b"byteorder") != b"little":
        raise Refused("big-endian numbers", RESAVE)

    def place(key, length, itemsize):
        name = root + b"data/" + key.encode("ascii")
        # A storage may end with a few bytes that do not make another number.
        if not length <= archive.size_of(name) < length + itemsize:
            raise Refused(f"the storage {shown(key)} of {archive.size_of(name)} bytes instead of {length}")
        return lambda: archive.read(name)

    content = archive.read(program)
    machine = Machine(io.BytesIO(content), len(content), _find, _Storages(path, place))
    return _flattened(machine.run(), machine.steps)


def _legacy(path):
    """Reads the format before PyTorch 1.6: several pickles, then the numbers."""
    storages = _Storages(path)
    with open(path, "rb") as file:
        machine = Machine(file, storages.size, _find, storages)
        magic, _, system = (machine.run() for _ in range(3))
        if type(magic) is not int or magic != _LEGACY_MAGIC:
            raise Refused("its first value is not that of torch.save")
        if type(system) is dict and system.get("little_endian") is False:
            raise Refused("big-endian numbers", RESAVE)
        content, keys = machine.run(), machine.run()
        _place_in_order(path, storages, keys, file.tell())
    return _flattened(content, machine.steps)


def _place_in_order(path, storages, keys, position):
    named = type(keys) is list and all(type(key) is str for key in keys)
    if not named or sorted(keys) != sorted(storages.by_key):
        raise Refused("its list of storages differs from those of its tensors")
    for key in keys:
        _, count, storage = storages.by_key[key]
        length = count * storage.dtype.itemsize
        if position + 8 + length > storages.size:
            raise Refused(f"it ends too early, in the storage {shown(key)}")
        if read_slice(path, position, 8) != struct.pack("<q", count):
            raise Refused(f"the storage {shown(key)} with a length that differs from its tensors")
        storage.load = lambda start=position + 8, length=length: read_slice(path, start, length)
        position += 8 + length


def _find(module, name):
    """Returns the stand-in for an object that a pickle names, without importing it."""
    if (module, name) in _GLOBALS:
        return _GLOBALS[module, name]
    if module in ("torch", "torch.storage") and name in _DTYPES:
        return Global(name, SHELL.call)
    if module.split(".")[0] in _RECORDS or (module in _BUILTINS and name in (*_SCALARS, *_SETS)):
        return SHELL
    raise ValueError(
        "A weights file must hold tensors and must not name code to execute. Received: a file that names "
        f"{shown(module)}.{shown(name)}, which was not executed. {RESAVE}"
    )


def _tensor(arguments):
    if len(arguments) < 4 or type(arguments[0]) is not Storage:
        raise Refused("a tensor without storage")
    return Tensor(*arguments[:4])


def _tensor_of_new_kind(arguments):
    """Makes a tensor of a dtype without storage class (float8, uint16), which can be listed but not read."""
    if len(arguments) < 4 or type(arguments[0]) is not Storage:
        raise Refused("a tensor without storage")
    storage = arguments[0]
    return Tensor(Storage(storage.path, 0, None, None, None), *arguments[1:4])


def _parameter(arguments):
    return arguments[0] if arguments and type(arguments[0]) is Tensor else SHELL


def _sequence(kind):
    def make(arguments):
        if arguments and type(arguments[0]) not in (list, tuple):
            raise Refused("its pickle makes a list from something else")
        return kind(arguments[0] if arguments else ())

    return make


def _dictionary(arguments):
    """Makes an empty dictionary, a copy, or one from pairs, as Python 2 wrote ordered dictionaries."""
    content = arguments[0] if arguments else {}
    if type(content) is dict:
        return dict(content)
    dictionary = {}
    if content is not SHELL:
        if type(content) not in (list, tuple) or not all(type(pair) in (list, tuple) for pair in content):
            raise Refused("its pickle makes a dictionary from something else")
        for pair in content:
            fill(dictionary, pair[:1], pair[1:])
    return dictionary


def _default_dictionary(arguments):
    return _dictionary(arguments[1:])


_GLOBALS = {
    (module, name): Global(name, call)
    for modules, name, call in (
        (_BUILTINS, "dict", _dictionary),
        (_BUILTINS, "list", _sequence(list)),
        (_BUILTINS, "tuple", _sequence(tuple)),
        (("copyreg", "copy_reg"), "_reconstructor", SHELL.call),
        (("collections",), "Counter", _dictionary),
        (("collections",), "OrderedDict", _dictionary),
        (("collections",), "defaultdict", _default_dictionary),
        (("collections",), "deque", _sequence(list)),
        (("torch",), "Size", _sequence(tuple)),
        (("torch._utils",), "_rebuild_tensor", _tensor),
        (("torch._utils",), "_rebuild_tensor_v2", _tensor),
        (("torch._utils",), "_rebuild_tensor_v3", _tensor_of_new_kind),
        (("torch._utils",), "_rebuild_parameter", _parameter),
        (("torch._utils",), "_rebuild_parameter_with_state", _parameter),
    )
    for module in modules
}


def _flattened(content, steps):
    """Returns all tensors in nested containers, by path."""
    tensors = {}
    # A value may appear in many places, and contain itself.
    left = allowance(steps) // 2
    waiting = [("", content, 0)] if type(content) in (dict, list, tuple, Tensor) else []
    while waiting:
        prefix, part, depth = waiting.pop()
        if type(part) is Tensor:
            tensors[prefix] = part
            continue
        if depth == _DEPTH:
            raise Refused(f"containers nested deeper than {_DEPTH}", RESAVE)
        children = []
        for name, value in part.items() if type(part) is dict else enumerate(part):
            left -= 1
            if type(value) in (dict, list, tuple, Tensor):
                name = str(name)
                left -= (len(prefix) + len(name)) // 16
                children.append((f"{prefix}.{name}" if prefix else name, value, depth + 1))
            if left < 0:
                raise Refused("the same values in too many places", RESAVE)
        waiting += reversed(children)
    return tensors
