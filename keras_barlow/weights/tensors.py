"""Tensors that lie in a file: checked when they are named, read when they are asked for."""

import math

import numpy as np

from keras_barlow.weights.limits import Refused, allowance

_DIMENSIONS = 32  # NumPy 1 has no more.
_INTEGER = 2**63
_EXPANDED = "If you trust the file, load it with torch and save contiguous copies of its tensors."


class Storage:
    """The numbers of one or several tensors, in one row.

    Args:
        path: Path of the file.
        size: Of the file, in bytes.
        dtype: Of the numbers; None for those that NumPy does not have, which can be listed but not read.
        count: How many there are. The caller has checked that the file holds as many.
        load: Function without arguments that returns their bytes.
    """

    def __init__(self, path, size, dtype, count, load):
        self.path = path
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.count = count
        self.limit = allowance(size)
        self.load = load
        self._numbers = None

    def read(self):
        """All numbers, read from the file once however many tensors share them."""
        if self._numbers is None:
            try:
                self._numbers = self._read()
            except Refused as error:
                raise error.about(self.path) from error
        return self._numbers

    def _read(self):
        if self.dtype is None:
            raise Refused("numbers of a kind that NumPy does not have", "Load it with torch and save them as float32.")
        return np.frombuffer(self.load(), self.dtype, self.count)


class Tensor:
    """A tensor in a file, read when it is asked for.

    Args:
        storage: `Storage` that holds its numbers.
        offset: Index of the first number.
        shape: Tuple of integers.
        strides: Tuple of integers, in numbers.

    Raises:
        Refused: If it does not lie inside the storage, or is far larger than the file.
    """

    def __init__(self, storage, offset, shape, strides):
        if not isinstance(shape, (list, tuple)) or not isinstance(strides, (list, tuple)):
            raise Refused("a tensor whose shape and strides are no tuples")
        self.storage = storage
        self.offset = offset
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self._check_numbers()
        if storage.dtype is not None:
            self._check_bounds()

    def read(self):
        """The numbers, as a read-only view of the storage."""
        numbers = self.storage.read()
        # Strides that are never taken may be of any size.
        taken = 0 not in self.shape
        strides = [
            stride * numbers.itemsize if taken and size > 1 else 0
            for size, stride in zip(self.shape, self.strides, strict=True)
        ]
        # `_check_bounds` has shown that every number of the view is one of the storage.
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)

    def _check_numbers(self):
        # Not isinstance: True is an integer too.
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > _DIMENSIONS:
            raise Refused(f"a tensor with {len(self.shape)} sizes and {len(self.strides)} strides")
        if not all(type(number) is int and 0 <= number < _INTEGER for number in numbers):
            raise Refused("a tensor whose sizes, strides and offset are no integers from 0 on")

    def _check_bounds(self):
        # Python's integers do not overflow. NumPy multiplies the sizes other than 0 even if there is a 0.
        length = math.prod(max(size, 1) for size in self.shape) * self.storage.dtype.itemsize
        if length > self.storage.limit:
            raise Refused(
                f"a tensor of shape {self.shape}, {length} bytes, which is far larger than the file", _EXPANDED
            )
        inside = self.offset <= self.storage.count
        if 0 not in self.shape:
            last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
            inside = self.offset + last < self.storage.count
        if not inside:
            raise Refused(
                f"a tensor outside its numbers: shape {self.shape}, strides {self.strides} from {self.offset} of "
                f"{self.storage.count}"
            )


def read_slice(path, start, length):
    """The bytes of a file from a position on."""
    with open(path, "rb") as file:
        file.seek(start)
        found = file.read(length)
    if len(found) != length:
        raise Refused("it was cut off after it was opened", "Read it again when nothing writes to it.")
    return found
