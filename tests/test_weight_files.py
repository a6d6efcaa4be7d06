"""Reading of damaged and malicious weights files, and of valid files of all kinds, compared with PyTorch."""

import collections
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from keras_barlow.weights import tensors as tensors_module
from keras_barlow.weights.torch_file import read_tensors
from tests.fuzz.sound_files import LAYOUTS, PROTOCOLS

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch")

FUZZ = pathlib.Path(__file__).parent / "fuzz"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Replaces the fixture of all tests, which is slower than these tests and not needed without Keras."""


class Numbers:
    """A storage declared in a pickle."""

    def __init__(self, key="0", count=12, kind=torch.FloatStorage, more=()):
        self.identity = ("storage", kind, key, "cpu", count, *more)


class View:
    """A tensor declared in a pickle, with any storage, offset, shape and strides."""

    def __init__(self, shape=(12,), strides=(1,), offset=0, numbers=None):
        self.arguments = (numbers or Numbers(), offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, Numbers) else None


def program(content, protocol=2):
    file = io.BytesIO()
    Pickler(file, protocol).dump(content)
    return file.getvalue()


def write_zip(path, pickled, data=None, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, numbers in ({"0": bytes(48)} if data is None else data).items():
            archive.writestr(f"archive/data/{key}", numbers)


def write_legacy(path, pickled, data=None):
    data = {"0": bytes(48)} if data is None else data
    stored = b"".join(struct.pack("<q", len(numbers) // 4) + numbers for numbers in data.values())
    path.write_bytes(MAGIC + pickled + pickle.dumps(list(data), 2) + stored)


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def assert_rejected(path, match=""):
    """Reading must raise an error of this package, quickly."""
    start = time.perf_counter()
    with pytest.raises(ValueError, match=match) as caught:
        for tensor in read_tensors(path).values():
            tensor.read()
    assert time.perf_counter() - start < 20
    assert type(caught.value) is ValueError
    text = str(caught.value)
    assert " Received: " in text and text.endswith(".") and text.isprintable() and len(text) < 600


def flattened(prefix, content):
    """Yields the names and tensors of nested containers."""
    if isinstance(content, torch.Tensor):
        yield prefix, content
    elif isinstance(content, (dict, list, tuple)):
        for name, part in content.items() if isinstance(content, dict) else enumerate(content):
            yield from flattened(f"{prefix}.{name}" if prefix else str(name), part)


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    subprocess.run([sys.executable, FUZZ / "sound_files.py", folder], check=True)
    return folder


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["state", "training"])
def test_checkpoints_are_read_like_pytorch(name, layout, protocol, sound_files, tmp_path):
    path = tmp_path / "caf\u00e9.pth"
    path.write_bytes((sound_files / f"{name}_{layout}{protocol}").read_bytes())
    expected = dict(flattened("", torch.load(path, weights_only=False)))
    got = read_tensors(path)
    assert list(got) == list(expected) and len(expected) > 10
    for key, tensor in expected.items():
        value = got[key].read()
        if tensor.dtype == torch.bfloat16:
            value, tensor = value.astype("float32"), tensor.float()
        np.testing.assert_array_equal(value, tensor.detach().numpy(), strict=True, err_msg=key)


OUTSIDE = {
    "too long": View((13,)),
    "offset": View((12,), offset=1),
    "offset of an empty one": View((0,), offset=13),
    "negative offset": View((2,), offset=-1),
    "negative stride": View((3,), (-1,), offset=11),
    "mixed strides": View((2, 2), (-4, 5), offset=4),
    "mixed strides that cancel out": View((1000, 1000), (10**6, -(10**6)), offset=0),
    "products that overflow": View((2**32, 2**32), (2**32, 2**32)),
    "product that overflows to 0": View((2**62, 4), (0, 0)),
    "zero strides": View((2**20, 2**10), (0, 0)),
    "empty, too large for NumPy": View((0, 2**62, 4), (1, 1, 1)),
    "beyond 64 bits": View((1,), (2**200,)),
    "bool": View((True,), (1,)),
    "float": View((2.0,), (1,)),
    "text": View(("2",), (1,)),
    "None": View((None,), (1,)),
    "shape that is a number": View(12),
    "other strides": View((3, 4), (1,)),
    "strides of dimensions that it does not have": View((), (1,)),
    "too many dimensions": View((1,) * 65, (1,) * 65),
    "offset that is a list": View(offset=[]),
    "storage that is none": View(numbers="0"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tensor_outside_its_storage_is_rejected_on_creation(name, writer, tmp_path):
    WRITERS[writer](tmp_path / "in.pth", program({"a": OUTSIDE[name]}))
    assert_rejected(tmp_path / "in.pth", r"a tensor (outside|whose|with|without|of shape)")
    with pytest.raises(ValueError):
        read_tensors(tmp_path / "in.pth")  # No tensor is read.


@pytest.mark.parametrize("writer", WRITERS)
def test_a_tensor_just_inside_its_storage_is_read(writer, tmp_path):
    views = [View((3, 3), (4, 1), 1), View((1, 1), (10**18, 10**18), 11), View((0, 5), (2**60, 1), 12)]
    numbers = np.arange(12, dtype="float32")
    WRITERS[writer](tmp_path / "in.pth", program(views), {"0": numbers.tobytes()})
    inside, last, empty = (tensor.read() for tensor in read_tensors(tmp_path / "in.pth").values())
    np.testing.assert_array_equal(inside, numbers.reshape(3, 4)[:, 1:])
    assert last.item() == 11 and empty.shape == (0, 5)
    with pytest.raises(ValueError, match="read-only"):
        inside[0, 0] = 1


FULL = bytes(48)
STORAGES = {
    "shorter than declared": (View(), {"0": FULL[:44]}, "the storage 0|ends too early"),
    "longer than declared": (View(), {"0": FULL + FULL}, "the storage 0"),
    "missing": (View(), {"1": FULL}, "without the entry|its list of storages"),
    "lengths differ": ([View(), View((3,), numbers=Numbers(count=24))], {"0": FULL}, "0 twice"),
    "kinds differ": ([View(), View(numbers=Numbers(kind=torch.IntStorage))], {"0": FULL}, "0 twice"),
    "views": (View(numbers=Numbers(more=(("1", 4, 4),))), {"0": FULL}, "views of storages"),
    "negative length": (View(numbers=Numbers(count=-12)), {"0": FULL}, "without a known type"),
    "length that is true": (View((1,), numbers=Numbers(count=True)), {"0": FULL}, "without a known type"),
    "key that is a number": (View(numbers=Numbers(key=0)), {"0": FULL}, "without a known type"),
    "key of another alphabet": (View(numbers=Numbers(key="\ud800")), {"0": FULL}, "without a known type"),
    "kind that is none": (View(numbers=Numbers(kind=collections.Counter)), {"0": FULL}, "without a known type"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", STORAGES)
def test_a_storage_that_contradicts_the_file_is_rejected(name, writer, tmp_path):
    content, data, match = STORAGES[name]
    WRITERS[writer](tmp_path / "in.pth", program(content), data)
    assert_rejected(tmp_path / "in.pth", match)


def test_big_endian_numbers_are_rejected(tmp_path):
    path = tmp_path / "in.pth"
    write_zip(path, program(View()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert_rejected(path, "big-endian numbers")
    write_legacy(path, program(View()))
    path.write_bytes(path.read_bytes().replace(b"little_endianq\x01\x88", b"little_endianq\x01\x89"))
    assert_rejected(path, "big-endian numbers")


COSTLY = {
    "doubled 60 times": b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b".",
    "doubled 60 times as keys": b"}K\x01q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",
    "a set of what is doubled": b"K\x01q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"c__builtin__\nset\nh\x00\x85R.",
    "nested 100,000 deep": b"]" + b"\x85" * 100_000 + b".",
    "lists nested 100,000 deep": b"](" * 100_000 + b"e" * 100_000 + b".",
    "keys nested 100,000 deep": b"}]" + b"\x85" * 100_000 + b"K\x01s" + b".",
    "itself": b"]q\x00h\x00a.",
    "itself twice": b"]q\x00(h\x00h\x00e.",
    "copies": b"](" + b"K\x01" * 20_000 + b"eq\x00" + b"c__builtin__\nlist\nh\x00\x85R0" * 20_000 + b"h\x00.",
    "one list at many places": b"](" + b"N" * 30_000 + b"eq\x00](" + b"h\x00" * 30_000 + b"e.",
    "one long name at many places": b"](X\xff\xff\x00\x00" + b"a" * 65535 + b"q\x000" + b"}h\x00]s" * 9000 + b"e.",
    "marks": b"(" * 100_000 + b".",
    "repeated values": b"]" + b"2" * 100_000 + b".",
    "a length of 2**62": b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "a length of 3 GB": b"B" + struct.pack("<I", 3 * 10**9) + b"a.",
    "a length below 0": b"T" + struct.pack("<i", -4) + b"a.",
    "a number of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n.",
    "text that is no number": b"Iabc\n.",
    "text that is not UTF-8": b"X\x01\x00\x00\x00\xff.",
    "an endless name": b"c" + b"a" * 100_000 + b".",
    "an empty stack": b"t.",
    "a key without a value": b"}(K\x01u.",
    "items of a list": b"]K\x01K\x02s.",
    "a call of a number": b"K\x01)R.",
    "another end": b"]",
    "values of an unknown table": b"h\x07.",
    "a storage that is none": b"K\x01Q.",
    "an extension": b"\x82\x01.",
    "a dictionary of numbers": b"ccollections\nOrderedDict\n]K\x01a\x85R.",
    "a name that is none": b"K\x01K\x02\x93.",
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", COSTLY)
def test_costly_and_malformed_pickles_are_rejected(name, writer, tmp_path):
    path = tmp_path / "in.pth"
    WRITERS[writer](path, b"\x80\x02" + COSTLY[name], {})
    if "as keys" in name or "a set" in name or "keys nested" in name:
        assert read_tensors(path) == {}  # Nothing is hashed, so these are cheap.
    else:
        assert_rejected(path, r"must be written by torch\.save")


def test_a_short_program_that_would_run_for_minutes_is_rejected_quickly(tmp_path):
    """The 550 bytes of `doubled 60 times` would need 2**60 visits."""
    doubled = b"\x80\x02" + COSTLY["doubled 60 times"]
    write_zip(tmp_path / "in.pth", doubled, {})
    start = time.perf_counter()
    with pytest.raises(ValueError, match="too many places"):
        read_tensors(tmp_path / "in.pth")
    assert len(doubled) < 600 and time.perf_counter() - start < 10


def test_the_steps_of_a_pickle_are_limited(tmp_path):
    write_zip(tmp_path / "in.pth", b"\x80\x02" + b"N0" * 2_100_000 + b"].", {})
    assert_rejected(tmp_path / "in.pth", "more than 4000000 steps.*save its state_dict")


def test_values_may_be_shared(tmp_path):
    state = {f"layer.{number}": torch.ones(2) for number in range(50)}
    content = {f"copy{number}": state for number in range(20)}
    torch.save(content, tmp_path / "in.pth")
    assert len(read_tensors(tmp_path / "in.pth")) == 1000


def sound_zip(path):
    torch.save({"a": torch.arange(600.0), "b": torch.ones(3)}, path)
    return path.read_bytes()


def repacked(path, method):
    with zipfile.ZipFile(path) as archive:
        entries = [(item.filename, archive.read(item)) for item in archive.infolist()]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)


@pytest.mark.parametrize("method", ["STORED", "DEFLATED", "BZIP2", "LZMA"])
def test_compressed_archives(method, tmp_path):
    path = tmp_path / "in.pth"
    sound_zip(path)
    repacked(path, getattr(zipfile, f"ZIP_{method}"))
    if method in ("BZIP2", "LZMA"):
        return assert_rejected(
            path, r"compressed by zip's method (12|14)\)\. Unpack it and pack it again without compression"
        )
    np.testing.assert_array_equal(read_tensors(path)["a"].read(), np.arange(600.0))
    with zipfile.ZipFile(path) as archive:
        item = next(item for item in archive.infolist() if item.filename.endswith("data/0"))
    damaged = bytearray(path.read_bytes())
    damaged[item.header_offset + 30 + len(item.filename) + item.compress_size // 2] ^= 0xFF
    path.write_bytes(damaged)
    assert_rejected(path, "differs from its checksum|cannot be decompressed|as long as the directory")


def test_an_archive_that_expands_2000_fold_is_rejected_in_little_memory(tmp_path):
    path = tmp_path / "in.pth"
    write_zip(path, program(View()), {"0": bytes(100_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    assert_rejected(path, "expands far beyond its size.*without compression")
    # The directory may lie about the size.
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 100_000_000), struct.pack("<I", 48)))
    assert_rejected(path, "not as long as the directory says")


def patched_zip(content, signature, offset, value, number=0):
    """Changes two bytes of a header."""
    at = -1
    for _ in range(number + 1):
        at = content.index(signature, at + 1)
    return content[: at + offset] + struct.pack("<H", value) + content[at + offset + 2 :]


ARCHIVES = {
    "encrypted": (lambda content: patched_zip(content, b"PK\x01\x02", 8, 1), "is encrypted"),
    "encrypted in the local header": (lambda content: patched_zip(content, b"PK\x03\x04", 6, 1), "contradicts"),
    "another method": (lambda content: patched_zip(content, b"PK\x01\x02", 10, 99), "method 99"),
    "two lengths": (lambda content: patched_zip(content, b"PK\x01\x02", 24, 9999), "has two lengths"),
    "another name": (lambda content: patched_zip(content, b"PK\x03\x04", 31, 0x4141), "contradicts"),
    "outside": (lambda content: patched_zip(content, b"PK\x01\x02", 44, 0x7FFF), "outside the file"),
    "more entries": (lambda content: patched_zip(content, b"PK\x05\x06", 10, 999), "directory"),
    "truncated": (lambda content: content[:-30], "its end"),
    "without end": (lambda content: content.replace(b"PK\x05\x06", b"PK\x05\x07"), "its end"),
    "directory elsewhere": (lambda content: patched_zip(content, b"PK\x05\x06", 16, 3), "directory"),
    "end elsewhere": (
        lambda content: patched_zip(patched_zip(content, b"PK\x05\x06", 10, 0xFFFF), b"PK\x06\x07", 8, 3),
        "its end",
    ),
    "damaged numbers": (lambda content: content.replace(np.float32(7).tobytes(), b"\0\0\0\0", 1), "its checksum"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_rejected_with_a_clear_error(name, tmp_path):
    change, match = ARCHIVES[name]
    path = tmp_path / "in.pth"
    path.write_bytes(change(sound_zip(path)))
    assert_rejected(path, match)


def test_an_archive_with_duplicate_names_is_rejected(tmp_path):
    path = tmp_path / "in.pth"
    sound_zip(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("in/data/0", bytes(2400))
    assert_rejected(path, "two entries named in/data/0")


def test_a_zip64_archive_is_read(tmp_path):
    """PyTorch writes zip64 beyond 4 GB; here all numbers are small."""
    path = tmp_path / "in.pth"
    content = sound_zip(path)
    wide = bytearray()
    with zipfile.ZipFile(path) as archive:
        directory, items = archive.start_dir, archive.infolist()
    for item in items:
        name = item.filename.encode()
        extra = struct.pack("<2H3Q", 1, 24, item.file_size, item.compress_size, item.header_offset)
        extra = b"FB\x02\x00zz" + extra  # After an extra field of another kind.
        full = 0xFFFFFFFF
        wide += struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            0,
            0,
            0,
            0,
            0,
            0,
            item.CRC,
            full,
            full,
            len(name),
            len(extra),
            0,
            0,
            0,
            0,
            full,
        )
        wide += name + extra
    end = directory + len(wide)
    count = len(items)
    wide += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, count, count, end - directory, directory)
    wide += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    wide += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    path.write_bytes(content[:directory] + wide)
    np.testing.assert_array_equal(read_tensors(path)["a"].read(), np.arange(600.0))


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_storage_shared_by_tensors_is_read_once(new, tmp_path, monkeypatch):
    flat = torch.randn(60_000)
    torch.save(list(flat.split(4000)), tmp_path / "in.pth", _use_new_zipfile_serialization=new)
    lengths = []
    whole = tensors_module.read_slice

    def counted(path, start, length):
        lengths.append(length)
        return whole(path, start, length)

    for module in ("tensors", "archive", "torch_file"):
        monkeypatch.setattr(f"keras_barlow.weights.{module}.read_slice", counted)
    values = [tensor.read() for tensor in read_tensors(tmp_path / "in.pth").values()]
    assert len(values) == 15 and [length for length in lengths if length >= 200_000] == [240_000]
    np.testing.assert_array_equal(np.concatenate(values), flat)


def test_a_file_truncated_after_opening_is_reported(tmp_path):
    path = tmp_path / "in.pth"
    torch.save({"a": torch.randn(6000)}, path, _use_new_zipfile_serialization=False)
    tensor = read_tensors(path)["a"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"Received: .*in.pth \(it was truncated after it was opened\)"):
        tensor.read()


def test_folders_and_pipes_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path, tmp_path / "pipe.pth", "/dev/null"):
        assert_rejected(path, "not a regular file")


# safetensors


def sound_safetensors(path):
    flat = torch.randn(24)
    content = {
        "c.weight": flat.view(2, 3, 4),
        "a": torch.arange(6).view(2, 3),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "bytes": torch.arange(4).to(torch.uint8),
        "truth": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    safetensors_torch.save_file(content, path, metadata={"format": "pt"})
    return content


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "caf\u00e9.safetensors"])
def test_safetensors_are_read_by_content_or_name(name, tmp_path):
    content = sound_safetensors(tmp_path / name)
    got = read_tensors(tmp_path / name)
    assert set(got) == set(content)
    for key, tensor in content.items():
        value = got[key].read()
        if tensor.dtype == torch.bfloat16:
            value, tensor = value.astype("float32"), tensor.float()
        np.testing.assert_array_equal(value, tensor.numpy(), strict=True)


def test_dtypes_that_numpy_lacks_are_listed_and_rejected_when_read(tmp_path):
    content = {"a": torch.ones(2).to(torch.float8_e4m3fn), "b": torch.ones(2)}
    safetensors_torch.save_file(content, tmp_path / "in.safetensors")
    torch.save(content, tmp_path / "in.pth")
    for name in ("in.safetensors", "in.pth"):
        got = read_tensors(tmp_path / name)
        assert got["a"].shape == (2,) and got["b"].read().sum() == 2
        with pytest.raises(ValueError, match=r"in\..* \(numbers of a type that NumPy does not have\).*as float32"):
            got["a"].read()


def header(content, change):
    """Returns the file with a changed header."""
    (length,) = struct.unpack_from("<Q", content)
    text = change(content[8 : 8 + length])
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


SAFETENSORS = {
    "empty": lambda content: b"",
    "short": lambda content: content[:7],
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"0",
    "length of the header": lambda content: struct.pack("<Q", 2**63) + content[8:],
    "length of the header 0": lambda content: struct.pack("<Q", 0) + content[8:],
    "no JSON": lambda content: header(content, lambda text: text[1:]),
    "no UTF-8": lambda content: header(content, lambda text: text.replace(b"half", b"h\xff\xfff")),
    "nested": lambda content: header(content, lambda text: b'{"a":' * 100_000),
    "dtype": lambda content: header(content, lambda text: text.replace(b"F64", b"F32")),
    "unknown dtype": lambda content: header(content, lambda text: text.replace(b"F64", b"Q64")),
    "shape": lambda content: header(content, lambda text: text.replace(b"[2,3,4]", b"[2,3,5]")),
    "huge shape": lambda content: header(content, lambda text: text.replace(b"[2,3,4]", b"[99999999999,99999999999]")),
    "negative shape": lambda content: header(content, lambda text: text.replace(b"[2,3,4]", b"[-2,-3,4]")),
    "beyond 64 bits": lambda content: header(content, lambda text: text.replace(b"[2,3,4]", b"[" + b"9" * 5000 + b"]")),
    "offsets that overlap": lambda content: header(
        content, lambda text: text.replace(b'"data_offsets":[16', b'"data_offsets":[8', 1)
    ),
    "no offsets": lambda content: header(content, lambda text: text.replace(b"data_offsets", b"data_offsetz")),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_damaged_safetensors_are_rejected_with_a_clear_error(name, tmp_path):
    path = tmp_path / "in.safetensors"
    sound_safetensors(path)
    before = path.read_bytes()
    path.write_bytes(SAFETENSORS[name](before))
    assert path.read_bytes() != before
    assert_rejected(path, "a damaged safetensors file")


def test_some_hundred_damaged_files():
    """A short run of the fuzzer. Its docstring has commands for longer runs."""
    done = subprocess.run(
        [sys.executable, FUZZ / "weight_files.py", "--files=400", "--seed=7"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "anything else 0" in done.stdout, done.stdout + done.stderr
