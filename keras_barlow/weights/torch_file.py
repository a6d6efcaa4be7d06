"""Reads the tensors of PyTorch's files without PyTorch, and without running what a pickle asks for.

A file of `torch.save` is a pickle, a small program that may name any function. Here it can name tensors, plain
containers, and the records that training frameworks leave in their checkpoints, which become empty shells. Anything
else is refused before it is looked up.
"""

import collections
import io
import math
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# `__builtin__` is the name of `builtins` in the protocol that PyTorch writes.
_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): tuple,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, frozenset, list, set, tuple)
    },
}
# Settings, schedules and scores in checkpoints of training frameworks, of which nothing is needed.
_RECORDS = ("_codecs", "argparse", "lightning", "numpy", "omegaconf", "pathlib", "pytorch_lightning", "torch", "typing")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Tensor:
    """A tensor in a file, read when it is asked for.

    Args:
        storage: `Storage` that holds its numbers.
        offset: Of the first one.
        shape: Tuple.
        strides: Tuple, in numbers.
    """

    def __init__(self, storage, offset, shape, strides):
        self.storage = storage
        self.offset = offset
        self.shape = tuple(shape)
        self.strides = tuple(strides)

    def read(self):
        """The numbers, as an array of its own."""
        numbers = self.storage.read()
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and not 0 <= self.offset <= last < len(numbers):
            raise ValueError(
                f"A tensor must lie within its numbers. Received: shape {self.shape}, strides {self.strides} from "
                f"{self.offset} of {len(numbers)}. The file is damaged."
            )
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides).copy()


class Storage:
    """The numbers of one or several tensors.

    Args:
        dtype: Of the numbers.
        load: Function without arguments that returns their bytes.
    """

    def __init__(self, dtype, load):
        self.dtype = np.dtype(dtype)
        self.load = load

    def read(self):
        """All numbers, in one row."""
        return np.frombuffer(self.load(), self.dtype)


def read_tensors(path):
    """All tensors of a file of `torch.save`, however deep in dictionaries and lists.

    Args:
        path: Of the file, in the zip format of PyTorch 1.6 and later or in the one before.

    Returns:
        Dictionary from names, `"state_dict.layer1.0.conv1.weight"`, to `Tensor`.

    Raises:
        ValueError: If the file is none of PyTorch's, or names something that is no data.
    """
    try:
        with open(path, "rb") as file:
            content = _unzipped(path, file) if zipfile.is_zipfile(file) else _legacy(file)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, AttributeError, TypeError, struct.error) as error:
        raise ValueError(f"The file must be one of torch.save. Received: {path} ({error}).") from error
    return dict(_flattened("", content))


def _unzipped(path, file):
    with zipfile.ZipFile(file) as archive:
        program = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if program is None:
            raise ValueError(f"The file must be one of torch.save. Received: {path}, an archive of another kind.")
        root = program.removesuffix("data.pkl")

        def storage(kind, key, count):
            def load():
                with zipfile.ZipFile(path) as again:
                    return again.read(f"{root}data/{key}")

            return Storage(_dtype(kind), load)

        return _Reader(io.BytesIO(archive.read(program)), storage).load()


def _legacy(file):
    """The format before PyTorch 1.6: pickles one after another, then the numbers."""
    storages, counts = {}, {}

    def storage(kind, key, count):
        counts[key] = count
        return storages.setdefault(key, Storage(_dtype(kind), None))

    file.seek(0)
    magic, _, _ = (_Reader(file, storage).load() for _ in range(3))
    if magic != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("it begins otherwise")
    content = _Reader(file, storage).load()
    for key in _Reader(file, storage).load():
        found, count = storages[key], counts[key]
        length, numbers = file.read(8), file.read(count * found.dtype.itemsize)
        if length != struct.pack("<q", count) or len(numbers) != count * found.dtype.itemsize:
            raise pickle.UnpicklingError("it ends too early")
        found.load = lambda numbers=numbers: numbers
    return content


def _dtype(kind):
    return _DTYPES.get(kind.name, "uint8")


class _Named:
    """What a pickle may name and nobody calls: the kind of a storage."""

    def __init__(self, name):
        self.name = name


class _Shell:
    """Takes the place of a record. Whatever is done with it does nothing."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass

    def __setitem__(self, *_):
        pass

    def append(self, _):
        pass

    def extend(self, _):
        pass

    def __hash__(self):
        return id(self)


class _Reader(pickle.Unpickler):
    def __init__(self, file, storage):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def persistent_load(self, pid):
        _, kind, key, _, count = pid[:5]
        return self._storage(kind, key, count)

    def find_class(self, module, name):
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch._utils" and name in _REBUILD:
            return _REBUILD[name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _Named(name)
        if module.split(".")[0] in _RECORDS:
            return _Shell
        raise ValueError(
            f"A file of weights holds tensors, and names nothing to be run. Received: one that names {module}.{name}. "
            "It was not run. If you trust the file, load it with torch and save its state_dict by itself."
        )


def _tensor(storage, offset, shape, strides, *_):
    return Tensor(storage, offset, shape, strides)


_REBUILD = {"_rebuild_tensor_v2": _tensor, "_rebuild_tensor": _tensor, "_rebuild_parameter": lambda data, *_: data}


def _flattened(prefix, content):
    """The tensors, each with the path to it."""
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, dict):
        for name, part in content.items():
            yield from _flattened(f"{prefix}.{name}" if prefix else str(name), part)
    elif isinstance(content, (list, tuple)):
        for number, part in enumerate(content):
            yield from _flattened(f"{prefix}.{number}" if prefix else str(number), part)
