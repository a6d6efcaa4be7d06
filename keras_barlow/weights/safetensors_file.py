"""Reads tensors from safetensors files, whose layout the `safetensors` package validates."""

import json
import os
import struct

import ml_dtypes
import safetensors

from keras_barlow.weights.limits import Refused, shown
from keras_barlow.weights.tensors import Storage, Tensor, read_slice

# The package cannot return bfloat16 to NumPy, so numbers are read directly from the offsets in its header.
_DTYPES = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": "bool",
    "C64": "complex64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}
_LENGTH = struct.Struct("<Q")


def is_safetensors(path, first):
    """Returns whether a file is in the safetensors format, by its name or its first 9 bytes."""
    if os.fsdecode(path).endswith(".safetensors"):
        return True
    if len(first) <= _LENGTH.size or first[_LENGTH.size :] != b"{":
        return False
    return _LENGTH.unpack(first[: _LENGTH.size])[0] <= os.path.getsize(path) - _LENGTH.size


def safetensors_tensors(path):
    """Returns a dictionary from the names of all tensors to `Tensor`.

    Raises:
        Refused: If the file is damaged.
    """
    try:
        with safetensors.safe_open(os.fsdecode(path), "np"):
            pass
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise Refused(f"a damaged safetensors file, {shown(str(error))}") from error
    size = os.path.getsize(path)
    (length,) = _LENGTH.unpack(read_slice(path, 0, _LENGTH.size))
    header = json.loads(read_slice(path, _LENGTH.size, length))
    header.pop("__metadata__", None)
    start = _LENGTH.size + length
    return {name: _tensor(path, size, start, **entry) for name, entry in header.items()}


def _tensor(path, size, start, dtype, shape, data_offsets):
    first, last = data_offsets
    storage = Storage(path, size, _DTYPES.get(dtype), None, lambda: read_slice(path, start + first, last - first))
    if storage.dtype is not None:
        storage.count = (last - first) // storage.dtype.itemsize
    return Tensor(storage, 0, shape, _strides(shape))


def _strides(shape):
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return strides[::-1]
