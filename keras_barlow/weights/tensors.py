"""Tensors in a file: validated on creation, read on demand."""

import math

import numpy as np

from keras_barlow.weights.limits import Refused, allowance

_DIMENSIONS = 32  # The limit of NumPy 1.
_INTEGER = 2**63
_EXPANDED = "If you trust the file, load it with torch and save contiguous copies of its tensors."


class Storage:
    """A flat array of numbers, shared by one or more tensors.

    Args:
        path: Path of the file.
        size: Size of the file in bytes.
        dtype: Data type of the numbers. None marks a type that NumPy lacks: its tensors can be listed but not read.
        count: Number of elements. The caller has checked that the file contains them.
        load: Function without arguments that returns the bytes.
    """

    def __init__(self, path, size, dtype, count, load):
        self.path = path
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.count = count
        self.limit = allowance(size)
        self.load = load
        self._numbers = None

    def read(self):
        """Returns all numbers. They are read from the file once, even if several tensors share them."""
        if self._numbers is None:
            try:
                self._numbers = self._read()
            except Refused as error:
                raise error.about(self.path) from error
        return self._numbers

    def _read(self):
        if self.dtype is None:
            raise Refused("numbers of a type that NumPy does not have", "Load it with torch and save them as float32.")
        return np.frombuffer(self.load(), self.dtype, self.count)


class Tensor:
    """A tensor in a file, read on demand.

    Args:
        storage: `Storage` that holds its numbers.
        offset: Index of the first number in the storage.
        shape: Tuple of integers.
        strides: Tuple of integers, counted in elements.

    Raises:
        Refused: If the tensor exceeds its storage, or is far larger than the file.
    """

    def __init__(self, storage, offset, shape, strides):
        if not isinstance(shape, (list, tuple)) or not isinstance(strides, (list, tuple)):
            raise Refused("a tensor whose shape and strides are not tuples")
        self.storage = storage
        self.offset = offset
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self._check_numbers()
        if storage.dtype is not None:
            self._check_bounds()

    def read(self):
        """Returns the numbers as a read-only view of the storage."""
        numbers = self.storage.read()
        # Strides that are never used may have any value.
        nonempty = 0 not in self.shape
        strides = [
            stride * numbers.itemsize if nonempty and size > 1 else 0
            for size, stride in zip(self.shape, self.strides, strict=True)
        ]
        # `_check_bounds` has verified that the view stays inside the storage.
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)

    def _check_numbers(self):
        # Not isinstance, because True is an integer too.
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > _DIMENSIONS:
            raise Refused(f"a tensor with {len(self.shape)} sizes and {len(self.strides)} strides")
        if not all(type(number) is int and 0 <= number < _INTEGER for number in numbers):
            raise Refused("a tensor whose sizes, strides and offset are not all nonnegative integers")

    def _check_bounds(self):
        # Python integers do not overflow. NumPy multiplies the nonzero sizes even if another size is 0.
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
                f"a tensor outside its storage: shape {self.shape}, strides {self.strides} from {self.offset} of "
                f"{self.storage.count}"
            )


def read_slice(path, start, length):
    """Reads `length` bytes of a file, beginning at `start`."""
    with open(path, "rb") as file:
        file.seek(start)
        content = file.read(length)
    if len(content) != length:
        raise Refused("it was truncated after it was opened", "Read it again when no other program writes to it.")
    return content
