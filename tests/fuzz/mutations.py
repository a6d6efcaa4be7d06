"""Mutations of weights files: bytes, pickles, zip archives and safetensors headers."""

import io
import json
import pickletools
import struct
import warnings
import zipfile

# Critical values of lengths, counts, offsets and strides.
NUMBERS = (-(2**63), -(2**31), -5, -1, 0, 1, 2, 7, 63, 64, 255, 256, 1000, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
NUMBERS += (2**61 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**200)
LARGEST = 2**20  # Limit on the bytes that a repetition adds, to keep files small.


def _binary(text):
    return b"X" + struct.pack("<I", len(text)) + text


def _integer(number):
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


VALUES = [
    *(_integer(number) for number in NUMBERS),
    b"N",
    b"\x88",
    b"\x89",
    b")",
    b"]",
    b"}",
    b"\x8f",
    b"G" + struct.pack(">d", 2.0),
    b"G" + struct.pack(">d", float("nan")),
    _binary(b"3"),
    _binary("\u00fc\U0001f600".encode()),
    b"C\x041234",
    b"K\x01K\x02\x86",
    b"h\x00",
    b"h\x01",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nDoubleStorage\n",
    b"ctorch.storage\nUntypedStorage\n",
    b"cargparse\nNamespace\n",
    b"ccollections\nOrderedDict\n",
    b"ccollections\nCounter\n",
    b"ctorch\nSize\n",
    b"c__builtin__\nset\n",
    b"c__builtin__\neval\n",
    b"cposix\nsystem\n",
    b"cbuiltins\ngetattr\n",
    b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000,
    b"I" + b"9" * 5000 + b"\n",
    b"L" + b"9" * 900 + b"L\n",
]
# Costly programs: nesting, doubling, copies, deep keys.
SNIPPETS = [
    b"2" * 50,
    b"]" + b"\x85" * 20_000,
    b"]" + b"(" * 20_000,
    b"}" + b"q\xfa" + b"".join(b"(h\xfah\xfat\x85q\xfa" for _ in range(200)),
    b"]q\xfa" + b"".join(b"](h\xfah\xfaeq\xfa" for _ in range(60)),
    b"](" + b"K\x01" * 2000 + b"eq\xfa" + b"c__builtin__\nlist\nh\xfa\x85R" * 500,
    b"]q\xfah\xfaa" + b"h\xfaa" * 50,
    b"}q\xfah\xfah\xfas",
    b"}(K\x01" + b"\x85" * 500 + b"K\x01u",
    b"ctorch._utils\n_rebuild_tensor_v2\nq\xfa",
    b"\x8d" + struct.pack("<Q", 2**62),
    b"\x8e" + struct.pack("<Q", 2**31),
    b"\x95" + struct.pack("<Q", 2**63),
]


def damage(rng, bases):
    """Mutates a randomly chosen file.

    Args:
        rng: `random.Random`.
        bases: Dictionary from names to the bytes of valid files.

    Returns:
        The pair of a description and the mutated bytes.
    """
    kind = rng.choice(("zip", "zip", "legacy", "legacy", "safetensors"))
    name = rng.choice(sorted(name for name in bases if kind in name))
    content = bases[name]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kinds = [*BYTES, *_structured(content)]
        kind = rng.choice(kinds)
        try:
            content = kind(rng, content, bases)
        except Exception:  # Python's readers raise many kinds of exceptions.
            # An earlier mutation destroyed the structure.
            kind = flip
            content = flip(rng, content, bases)
        done.append(kind.__name__)
    return f"{name}: {', '.join(done)}", content[: 8 * LARGEST]


def _structured(content):
    if content.startswith(b"PK"):
        return [*ENTRIES, zip_pickle, zip_pickle, zip_pickle, zip_pickle]
    if content.startswith(b"\x80"):
        return [legacy_pickle] * 6
    return [safetensors_header] * 6


# Bytes


def flip(rng, content, bases):
    content = bytearray(content or b"0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def overwrite(rng, content, bases):
    at, length = rng.randrange(len(content)), rng.randrange(1, 9)
    return (
        content[:at] + bytes(rng.choice((0, 255, 128, rng.randrange(256))) for _ in range(length)) + content[at + 8 :]
    )


def number(rng, content, bases):
    width, at = rng.choice((2, 4, 8)), rng.randrange(len(content))
    data = (rng.choice(NUMBERS) % 256**width).to_bytes(width, "little")
    return content[:at] + data + content[at + width :]


def truncate(rng, content, bases):
    return content[: rng.randrange(len(content))]


def cut(rng, content, bases):
    first, last = _piece(rng, content)
    return content[:first] + content[last:]


def repeat(rng, content, bases):
    first, last = _piece(rng, content)
    times = rng.choice((2, 3, 10, 1000))
    return content[:first] + content[first:last] * min(times, 1 + LARGEST // (last - first)) + content[last:]


def splice(rng, content, bases):
    other = bases[rng.choice(sorted(bases))]
    first, last = _piece(rng, other)
    at = rng.randrange(len(content))
    return content[:at] + other[first:last] + content[at + rng.choice((0, last - first)) :]


def _piece(rng, content):
    first = rng.randrange(len(content))
    return first, min(len(content), first + rng.choice((1, 2, 8, 46, 500)))


BYTES = [flip, overwrite, number, truncate, cut, repeat, splice]


# Pickles


def zip_pickle(rng, content, bases):
    entries = _entries(content)
    at = next(at for at, (name, *_) in enumerate(entries) if name.endswith("data.pkl"))
    name, data, method = entries[at]
    entries[at] = (name, _damaged_pickle(rng, data), method)
    return _zipped(entries)


def legacy_pickle(rng, content, bases):
    stream, programs, start = io.BytesIO(content), [], 0
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        programs.append(content[start : stream.tell()])
        start = stream.tell()
    at = rng.choice((0, 2, 3, 3, 3, 3, 4, 4))
    programs[at] = _damaged_pickle(rng, programs[at])
    return b"".join(programs) + content[start:]


def _damaged_pickle(rng, program):
    places = [place for _, _, place in pickletools.genops(program)]
    parts = [program[first:last] for first, last in zip(places, [*places[1:], len(program)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        _damage_instruction(rng, parts, rng.randrange(1, len(parts)))
    return b"".join(parts)


def _damage_instruction(rng, parts, at):
    action = rng.randrange(9)
    if action <= 2:  # Numbers are shapes, strides, offsets and lengths.
        numbers = [place for place, part in enumerate(parts) if part[:1] in (b"J", b"K", b"M", b"\x8a")]
        parts[rng.choice(numbers) if numbers else at] = rng.choice(VALUES[: len(NUMBERS)])
    elif action == 3:
        parts[at] = rng.choice(VALUES)
    elif action == 4:
        parts[at] *= min(rng.choice((2, 3, 100, 20_000)), 1 + LARGEST // len(parts[at]))
    elif action == 5:
        first, last = sorted((at, min(len(parts), at + rng.randrange(1, 30))))
        parts[last:last] = parts[first:last] * rng.choice((1, 2, 50))
    elif action == 6:
        other = rng.randrange(1, len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif action == 7:
        parts[at] = rng.choice((b"", bytes([rng.randrange(256)]) + parts[at][1:]))
    else:
        parts[at:at] = [rng.choice(SNIPPETS)]


# Archives


def _entries(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(item.filename, archive.read(item), item.compress_type) for item in archive.infolist()]


def _zipped(entries):
    with warnings.catch_warnings(), zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        warnings.simplefilter("ignore")  # Duplicate names are intended.
        for name, data, method in entries:
            archive.writestr(name, data, method)
    return file.getvalue()


def swap_entries(rng, content, bases):
    entries = _entries(content)
    one, other = rng.sample(range(len(entries)), 2)
    (name, data, method), (name2, data2, method2) = entries[one], entries[other]
    entries[one], entries[other] = (name, data2, method), (name2, data, method2)
    return _zipped(entries)


def change_entry(rng, content, bases):
    entries = _entries(content)
    at = rng.randrange(len(entries))
    name, data, _ = entries[at]
    longer = data + bytes(rng.choice((1, 4, 100_000)))
    data = rng.choice((data[:-1], data[: len(data) // 2], b"", longer, bytes(8 * LARGEST)))
    entries[at] = (name, data, rng.choice((0, 8)))
    return _zipped(entries)


def lose_entry(rng, content, bases):
    entries = _entries(content)
    entries.pop(rng.randrange(len(entries)))
    return _zipped(entries)


def double_entry(rng, content, bases):
    entries = _entries(content)
    entries.insert(rng.randrange(len(entries)), rng.choice(entries))
    return _zipped(entries)


def rename_entry(rng, content, bases):
    entries = _entries(content)
    at = rng.randrange(len(entries))
    name, data, method = entries[at]
    entries[at] = (
        rng.choice(("", "data.pkl", "a/b/data.pkl", name + "\u00fc", name.upper(), "../" + name)),
        data,
        method,
    )
    return _zipped(entries)


def compress_entries(rng, content, bases):
    entries = _entries(content)
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return _zipped([(name, data, method if rng.random() < 0.7 else old) for name, data, old in entries])


def header_field(rng, content, bases):
    """Changes a number in the header of an entry, in the directory or in the end record."""
    signature = rng.choice((b"PK\x03\x04", b"PK\x01\x02", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"))
    places = []
    at = content.find(signature)
    while at >= 0:
        places.append(at)
        at = content.find(signature, at + 1)
    at = rng.choice(places) + rng.randrange(4, 46, 2)
    width = rng.choice((2, 4, 8))
    data = (rng.choice(NUMBERS) % 256**width).to_bytes(width, "little")
    return content[:at] + data + content[at + width :]


ENTRIES = [
    swap_entries,
    change_entry,
    lose_entry,
    double_entry,
    rename_entry,
    compress_entries,
    header_field,
    header_field,
]


# Headers of safetensors


def safetensors_header(rng, content, bases):
    (length,) = struct.unpack_from("<Q", content)
    text, data = content[8 : 8 + length], content[8 + length :]
    header = json.loads(text)
    names = [name for name in header if name != "__metadata__"]
    one, other = header[rng.choice(names)], header[rng.choice(names)]
    action = rng.randrange(9)
    if action == 0:
        one["shape"] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]
    elif action == 1:
        one["data_offsets"][rng.randrange(2)] = rng.choice((*NUMBERS, True, 1.5, "0", None))
    elif action == 2:
        one["data_offsets"] = other["data_offsets"]
    elif action == 3:
        one["dtype"] = rng.choice(("F64", "F32", "BF16", "F8_E4M3", "I8", "F4", "X", "", None, 7))
    elif action == 4:
        one["shape"] = rng.choice(([[]], None, [True], [2.0], ["2"], [0, 2**62, 8], [1] * 40, {}))
    elif action == 5:
        header["\ud83d" * rng.randrange(3)] = other
    elif action == 6:
        header["deep"] = json.loads("[" * 90 + "]" * 90)
    elif action == 7:
        del one[rng.choice(sorted(one))]
    text = json.dumps(header).encode()
    if action == 8:
        text = rng.choice((text[:-1] + b"," + text[1:], b"[" * 100_000, text + b" " * 1000, b"{" + b'"a":{' * 50_000))
    length = len(text) if rng.random() < 0.8 else rng.choice(NUMBERS) % 2**64
    return struct.pack("<Q", length) + text + data
