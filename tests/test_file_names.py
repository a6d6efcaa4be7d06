"""File names as every system and tool writes them, at every entry point.

A new entrance is tested by being listed in `ENTRANCES`, a new kind of name in `NAMES`.
"""

import os
import pathlib
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from keras_barlow.data.names import entry_parts, printable, user_path

CROP = kb.augmentations.RandomResizedCrop(8, 8)
NAMES = {
    "Latin-1": b"caf\xe9.png",
    "UTF-8": "café.png".encode(),
    "accents apart": unicodedata.normalize("NFD", "café.png").encode(),
    "spaces": b" two  words .png",
    "quotes": b'it\'s "here".png',
    "percent and braces": b"100%s {name} %d.png",
    "a star": b"*[a-z]?.png",
    "a colon": b"12:30:05.png",
    "a drive": b"c:here.png",
    "a backslash": b"folder\\photo.png",
    "a line break": b"two\nlines.png",
    "a long name": b"x" * 240 + b".png",
    "another alphabet": "写真😀.PNG".encode(),
    "Latin-1 TIFF": b"caf\xe9.TIF",
}


def encoder():
    return kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)


def in_memory(folder):
    return len(kb.data.load(folder, 8)[0].array)


def streamed(folder):
    return sum(len(batch) for batch in kb.data.load(folder, 8, memory_limit=0)[0].in_order(2))


def checked_first(folder):
    return len(kb.data.load(folder, 8, memory_limit=0, skip_corrupt=True)[0])


def every_image(folder):
    return len(kb.data.every_image(folder, 8).in_memory())


def batches(folder):
    images = kb.data.load(folder, 8, memory_limit=0)[0]
    return sum(len(batch) for batch in images.batches(3).epoch(0))


def crop_pairs(folder):
    images = kb.data.load(folder, 8, memory_limit=0)[0]
    return sum(len(pair[0]) for (pair,) in images.crop_pairs(3, CROP).epoch(0))


def gallery_npz(folder):
    images = kb.data.every_image(folder, 8)
    kb.retrieval.extract(encoder(), images, folder.parent / "all.npz", verbose=0)
    names = kb.retrieval.load(folder.parent / "all.npz").names.tolist()
    return sum((folder / name).exists() for name in names)


def gallery_parquet(folder):
    images = kb.data.every_image(folder, 8)
    kb.retrieval.extract(encoder(), images, folder.parent / "all.parquet", verbose=0)
    names = kb.retrieval.load(folder.parent / "all.parquet").names.tolist()
    return sum((folder / name).exists() for name in names)


ENTRANCES = [in_memory, streamed, checked_first, every_image, batches, crop_pairs, gallery_npz, gallery_parquet]
# Parquet stores only valid UTF-8.
ONLY_UTF_8 = {gallery_parquet: r"UTF-8.*(caf|npz)"}


def written(folder, *names):
    folder.mkdir()
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            Image.new("RGB", (9, 9), (200, 40, 90)).save(file, "TIFF" if name.lower().endswith(b"tif") else "PNG")
    return folder


def three(folder):
    return written(folder, b"a.png", b"b.png", b"c.png")


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_name_works_or_is_rejected_at_every_entrance(tmp_path, entrance):
    names = list(NAMES.values())
    if entrance in ONLY_UTF_8:
        with pytest.raises(ValueError, match=ONLY_UTF_8[entrance]):
            entrance(written(tmp_path / "refused", *names))
        names = [name for name in names if b"\xe9" not in name]
    # Whole batches of 3, so that none is left over.
    names += [b"other%d.png" % number for number in range(-len(names) % 3)]
    assert entrance(written(tmp_path / "photos", *names)) == len(names)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_folder_of_any_name_works_at_every_entrance(tmp_path, entrance):
    folder = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr \\ 100%"))
    assert entrance(three(folder)) == 3


@pytest.mark.parametrize("entrance", [in_memory, streamed, checked_first, every_image, batches, crop_pairs])
def test_the_home_directory_is_expanded_at_every_entrance(tmp_path, monkeypatch, entrance):
    three(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/photos", b"~/photos", pathlib.Path("~/photos")):
        assert entrance(path) == 3


def test_the_home_directory_is_expanded_for_archives_arrays_and_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    photos = three(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "photos.ZIP", "w") as archive:
        for file in photos.iterdir():
            archive.write(file, file.name)
    np.savez(tmp_path / "photos.npz", images=np.zeros((3, 8, 8, 3), "uint8"))
    (tmp_path / "photos.npz").rename(tmp_path / "photos.NPZ")
    for name in ("photos.ZIP", "photos.NPZ"):
        assert in_memory(f"~/{name}") == 3
    with pytest.raises(ValueError, match=rf"prepared in {tmp_path}/sets"):
        kb.data.load("~/sets", 8, dataset="nothing_of_this_name")


@pytest.mark.parametrize("path", ["", None, 7, "~nobody_of_this_name/photos", "a\0b"])
@pytest.mark.parametrize("entrance", [in_memory, every_image])
def test_invalid_paths(entrance, path):
    with pytest.raises(ValueError, match=r"path to the images. Received"):
        entrance(path)


def test_a_broken_file_of_any_name_is_named(tmp_path):
    folder = written(tmp_path / "photos", NAMES["Latin-1"], b"a.png", b"b.png")
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:
        file.write(b"text")
    for entrance in (in_memory, streamed, every_image, crop_pairs):
        with pytest.raises(ValueError, match=r"Received: caf\\xe9\.png") as raised:
            entrance(folder)
        str(raised.value).encode()
    assert checked_first(folder) == 2


# Names as tools write them, and their normalized form.
ENTRIES = {
    "train/cat/1.png": ("train", "cat", "1.png"),
    "train\\cat\\1.png": ("train", "cat", "1.png"),
    "./train/cat/1.png": ("train", "cat", "1.png"),
    ".\\train\\cat\\1.png": ("train", "cat", "1.png"),
    "train//cat/./1.png": ("train", "cat", "1.png"),
    "train/cat/": ("train", "cat"),
    "cafe\u0301/1.png": ("caf\u00e9", "1.png"),
    "12:30:05.png": ("12:30:05.png",),
    "": (),
    ".": (),
    "./": (),
    "/": None,
    "/etc/1.png": None,
    "\\\\server\\share\\1.png": None,
    "C:\\1.png": None,
    "C:1.png": None,
    "a/../../1.png": None,
    "a\\..\\..\\1.png": None,
    "..": None,
    "a\0.png": None,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_names_of_entries_are_normalized(name):
    if ENTRIES[name] is None:
        with pytest.raises(ValueError):
            entry_parts(name)
    else:
        assert entry_parts(name) == ENTRIES[name]


def test_printable_names_can_be_written_and_read_as_text():
    name = os.fsdecode(b"caf\xe9 \xff.png")
    assert printable(name) == "caf\\xe9 \\xff.png" and printable("café") == "café"
    assert user_path(os.fsencode(name)) == pathlib.Path(name)
