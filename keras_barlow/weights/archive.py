"""A reader of zip archives whose cost is bounded by the size of the file.

It does not use Python's `zipfile`, which raises a dozen kinds of exceptions on damaged files, limits neither the
directory nor the expanded size of an entry, and parses the whole directory again for every entry that is read later.
"""

import dataclasses
import os
import struct
import zlib

from keras_barlow.weights.limits import Refused, allowance, shown
from keras_barlow.weights.tensors import read_slice

_END = struct.Struct("<4s4H2IH")
_WIDE_LOCATOR = struct.Struct("<4sIQI")
_WIDE_END = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_FULL, _FULL_SHORT = 0xFFFFFFFF, 0xFFFF  # The number is stored elsewhere, as 64 bits.
_STORE = "Unpack it and pack it again without compression, as torch.save does."
_DIRECTORY_LIMIT = 2**26  # More than half a million entries.


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the directory."""

    name: bytes
    flags: int
    method: int
    checksum: int
    packed: int
    size: int
    header: int


class Archive:
    """A zip archive, opened for reading.

    Args:
        path: Path of the file.

    Raises:
        Refused: If the archive is damaged, or its entries are far larger than the file.
    """

    def __init__(self, path):
        self.path = path
        self.size = os.path.getsize(path)
        self._entries = {}
        for entry in _entries(*self._directory()):
            if entry.name in self._entries:
                raise Refused(f"an archive with two entries named {_shown(entry.name)}")
            self._entries[entry.name] = entry
        if sum(entry.size for entry in self._entries.values()) > allowance(self.size):
            raise Refused("an archive that expands far beyond its size", _STORE)

    @property
    def names(self):
        """Names of all entries as bytes, in the order of the directory."""
        return list(self._entries)

    def size_of(self, name):
        """Returns the length of an entry in bytes, after checking that the file contains them."""
        entry = self._entry(name)
        self._start(entry)
        return entry.size

    def read(self, name):
        """Returns the bytes of an entry and verifies their checksum."""
        entry = self._entry(name)
        content = read_slice(self.path, self._start(entry), entry.packed)
        if entry.method == _DEFLATED:
            content = self._inflated(entry, content)
        if zlib.crc32(content) != entry.checksum:
            raise Refused(f"the entry {_shown(entry.name)} differs from its checksum")
        return content

    def _entry(self, name):
        if name not in self._entries:
            raise Refused(f"an archive without the entry {_shown(name)}")
        return self._entries[name]

    def _directory(self):
        """Returns the bytes of the directory and its number of entries."""
        length = min(self.size, _END.size + _FULL_SHORT)
        tail = read_slice(self.path, self.size - length, length)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or length - at < _END.size:
            raise Refused("an archive without its end record; it ends too early")
        *_, count, size, start, _ = _END.unpack_from(tail, at)
        end = self.size - length + at
        if count == _FULL_SHORT or _FULL in (size, start):
            count, size, start = self._wide_end(end - _WIDE_LOCATOR.size)
        if start + size > end or size > _DIRECTORY_LIMIT or count * _ENTRY.size > size:
            raise Refused("an archive whose directory is not where its end record says")
        return read_slice(self.path, start, size), count

    def _wide_end(self, at):
        if at < 0:
            raise Refused("an archive without its end record")
        signature, _, start, _ = _WIDE_LOCATOR.unpack(read_slice(self.path, at, _WIDE_LOCATOR.size))
        if signature != b"PK\x06\x07" or start + _WIDE_END.size > at:
            raise Refused("an archive without its end record")
        signature, *_, count, size, start = _WIDE_END.unpack(read_slice(self.path, start, _WIDE_END.size))
        if signature != b"PK\x06\x06":
            raise Refused("an archive without its end record")
        return count, size, start

    def _start(self, entry):
        """Returns the position of the first byte of an entry, if the file contains all of them in a readable form."""
        if entry.flags & _ENCRYPTED:
            raise Refused(f"the entry {_shown(entry.name)} is encrypted", _STORE)
        if entry.method not in (_STORED, _DEFLATED):
            raise Refused(f"the entry {_shown(entry.name)} is compressed by zip's method {entry.method}", _STORE)
        if entry.method == _STORED and entry.packed != entry.size:
            raise Refused(f"the entry {_shown(entry.name)} has two lengths, {entry.packed} and {entry.size}")
        if entry.header + _LOCAL.size > self.size:
            raise Refused(f"the entry {_shown(entry.name)} lies outside the file")
        signature, _, flags, method, *_, name, extra = _LOCAL.unpack(read_slice(self.path, entry.header, _LOCAL.size))
        start = entry.header + _LOCAL.size + name + extra
        if signature != b"PK\x03\x04" or start + entry.packed > self.size:
            raise Refused(f"the entry {_shown(entry.name)} lies outside the file")
        local_name = read_slice(self.path, entry.header + _LOCAL.size, name)
        if (local_name, method, flags & _ENCRYPTED) != (entry.name, entry.method, 0):
            raise Refused(f"the entry {_shown(entry.name)} contradicts the directory")
        return start

    def _inflated(self, entry, content):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflater.decompress(content, entry.size + 1)
        except zlib.error as error:
            raise Refused(f"the entry {_shown(entry.name)} cannot be decompressed") from error
        if len(content) != entry.size:
            raise Refused(f"the entry {_shown(entry.name)} is not as long as the directory says")
        return content


def _entries(directory, count):
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(directory):
            raise Refused("an archive whose directory ends too early")
        signature, _, _, flags, method, _, _, checksum, packed, size, name, extra, comment, *_, header = (
            _ENTRY.unpack_from(directory, at)
        )
        end = at + _ENTRY.size + name
        if signature != b"PK\x01\x02" or end + extra + comment > len(directory):
            raise Refused("an archive whose directory is damaged")
        if _FULL in (packed, size, header):
            size, packed, header = _wide(directory[end : end + extra], (size, packed, header))
        yield Entry(directory[at + _ENTRY.size : end], flags, method, checksum, packed, size, header)
        at = end + extra + comment


def _wide(extra, numbers):
    """Replaces the numbers that need 64 bits by those in the extra field, which holds them in this order."""
    fields = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        fields.setdefault(kind, extra[at + 4 : at + 4 + length])
        at += 4 + length
    content = fields.get(1, b"")
    if len(content) < 8 * numbers.count(_FULL):
        raise Refused("an archive whose directory is damaged")
    wide = (struct.unpack_from("<Q", content, at)[0] for at in range(0, len(content) - 7, 8))
    return tuple(next(wide) if number == _FULL else number for number in numbers)


def _shown(name):
    return shown(name.decode("utf-8", "replace"))
