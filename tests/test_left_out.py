"""Folders and archives: the splits and classes of images, and the count of everything that is skipped."""

import os
import re
import socket
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from keras_barlow import data

TEN = range(10)


@pytest.fixture(scope="module")
def png(tmp_path_factory):
    path = tmp_path_factory.mktemp("png") / "a.png"
    Image.new("RGB", (9, 9), (200, 40, 90)).save(path)
    return path.read_bytes()


def names_of(*folders, count=10, suffix="png"):
    return [f"{folder}/{number}.{suffix}" for folder in folders for number in range(count)]


def as_folder(path, files, png):
    for name in files:
        file = path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            file.mkdir()
        else:
            file.write_bytes(png)
    return path / "photos"


def as_archive(path, files, png):
    with zipfile.ZipFile(path / "photos.zip", "w") as archive:
        for name in files:
            archive.writestr(name, b"" if name.endswith("/") else png)
    return path / "photos.zip"


CLASSES = names_of("cat", "dog")
SPLITS = names_of("train/cat", "train/dog", "test/cat", "test/dog")
# Name: files, numbers of training and test images, classes, and texts of the warnings.
LAYOUTS = {
    "classes": (CLASSES, 18, 2, "cat dog", []),
    "a class of trains": (
        names_of("bus", "car", "train"),
        27,
        3,
        "bus car train",
        ["train/ of .* are read as classes"],
    ),
    "a class of tests": (names_of("exam", "test"), 18, 2, "exam test", ["test/ of .* are read as classes"]),
    "classes named after two splits": (
        names_of("bus", "test", "val"),
        27,
        3,
        "bus test val",
        ["test/, val/ of .* are read as classes"],
    ),
    "train alone": (names_of("train/cat", "train/dog"), 18, 2, "cat dog", []),
    "train and test": (SPLITS, 20, 20, "cat dog", []),
    "train and val": ([name.replace("test", "val") for name in SPLITS], 20, 20, "cat dog", []),
    "train, val, test": (
        SPLITS + names_of("val/cat", "val/dog"),
        20,
        20,
        "cat dog",
        [r"20 in val/ \(test/ is used for testing\): val/cat/0.png, val/cat/1.png, val/cat/2.png, \.\.\."],
    ),
    "STL-10": (
        SPLITS + names_of("unlabeled"),
        20,
        20,
        "cat dog",
        [r"10 in unlabeled/ \(use labels=False.*unlabeled/0"],
    ),
    "STL-10 with folders": (
        SPLITS + names_of("unlabelled/a", "unlabelled/b"),
        20,
        20,
        "cat dog",
        ["20 in unlabelled/"],
    ),
    "train and unlabeled": (
        names_of("train/cat", "train/dog", "unlabeled"),
        18,
        2,
        "cat dog",
        ["10 in unlabeled/"],
    ),
    "unlabeled alone": (names_of("unlabeled"), 10, 0, "", []),
    "others beside splits": (
        [*SPLITS, *names_of("sketches", count=2), "cover.png"],
        20,
        20,
        "cat dog",
        ["1 next to train/: cover.png; 2 in sketches/, next to train/: sketches/0.png, sketches/1.png"],
    ),
    "in one folder": ([f"deep/inside/{name}" for name in SPLITS], 20, 20, "cat dog", []),
    "one stray": ([*CLASSES, "overview.png"], 18, 2, "cat dog", ["1 next to the class folders: overview.png"]),
    "one stray in a split": (
        [*SPLITS, "train/overview.png"],
        20,
        20,
        "cat dog",
        ["1 next to the class folders: train/overview.png"],
    ),
    "many beside folders": (
        CLASSES + [f"{number}.png" for number in TEN],
        30,
        0,
        "",
        ["10 of 30 images lie next to the folders of .*, so the folders are not classes"],
    ),
    "no folders": ([f"{number}.png" for number in TEN], 10, 0, "", []),
    "one class": (names_of("train/cat", "test/cat"), 10, 0, "", ["are of one class, cat: nothing can be evaluated"]),
    "an empty class": ([*CLASSES, "fox/", "owl/old/"], 18, 2, "cat dog", ["2 folders without an image: fox/, owl/"]),
    "an empty test split": (
        [*names_of("train/cat", "train/dog"), "test/"],
        18,
        2,
        "cat dog",
        ["1 folders without an image: test/"],
    ),
    "every ending that is read": (
        [
            f"{name}/{number}.{suffix}"
            for name in ("cat", "dog")
            for number, suffix in enumerate(["jpg", "JPEG", "jpe", "jfif", "png", "webp", "bmp", "tif", "TIFF", "gif"])
        ],
        18,
        2,
        "cat dog",
        [],
    ),
    "other endings": (
        [*CLASSES, *names_of("fox", count=4, suffix="HEIC"), "cat/labels.txt", "LICENSE"],
        18,
        2,
        "cat dog",
        [
            r"4 of another format \(\.heic\): fox/0\.HEIC",
            r"1 of another format \(\.txt\): cat/labels\.txt",
            r"1 of another format \(no suffix\): LICENSE",
            "1 folders without an image: fox/",
        ],
    ),
    "what systems leave": (
        [*CLASSES, ".DS_Store", "cat/._1.png", "__MACOSX/cat/._1.png", "cat/Thumbs.db", "desktop.ini", ".git/x.png"],
        18,
        2,
        "cat dog",
        [],
    ),
    "accents apart in one of the splits": (
        [unicodedata.normalize("NFC", name) for name in names_of("train/café", "train/dog")]
        + [unicodedata.normalize("NFD", name) for name in names_of("test/café", "test/dog")],
        20,
        20,
        "café dog",
        [],
    ),
}


@pytest.mark.parametrize("pack", [as_folder, as_archive])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, png, caplog, layout, pack):
    files, train_count, test_count, classes, said = LAYOUTS[layout]
    with caplog.at_level("WARNING", "absl"):
        train, test = data.load(pack(tmp_path, files, png), 8, memory_limit=0)
    assert (len(train), len(test) if test else 0) == (train_count, test_count)
    assert train.class_names == (tuple(classes.split()) or None)
    if test:
        assert test.class_names == train.class_names and not set(train.names) & set(test.names)
    for text in said:
        assert any(re.search(text, record.getMessage()) for record in caplog.records), caplog.text
    assert bool(caplog.records) == bool(said)
    # A single warning counts everything that is skipped.
    assert len([record for record in caplog.records if "Skipped in" in record.getMessage()]) <= 1


@pytest.mark.parametrize("pack", [as_folder, as_archive])
def test_unlabeled_images_are_trained_on_without_labels(tmp_path, png, caplog, pack):
    path = pack(tmp_path, SPLITS + names_of("unlabeled") + names_of("val"), png)
    with caplog.at_level("WARNING", "absl"):
        train, test = data.load(path, 8, labels=False)
    assert len(train) == 30 and train.labels is None and test is None
    assert "in unlabeled/" not in caplog.text and "10 in val/" in caplog.text


@pytest.mark.parametrize("pack", [as_folder, as_archive])
@pytest.mark.parametrize(
    "files, message",
    [
        (names_of("test/cat", "test/dog"), "has test/ only"),
        (names_of("test/cat", "val/cat"), "has test/, val/ only"),
        (names_of("train/cat", "training/cat", "test/cat"), "must be in one folder.*train/ and training/ in"),
        (names_of("train/cat", "train/dog", "test/cat", "test/fox"), r"same classes.*\(cat, dog\) in train/"),
        (names_of("cat", suffix="heic"), r"has none, but 10 of another format \(\.heic\): cat/0\.heic"),
        (["cat/"], "has none"),
    ],
)
def test_rejected_layouts(tmp_path, png, files, message, pack):
    with pytest.raises(ValueError, match=message):
        data.load(pack(tmp_path, files, png), 8)


def test_every_image_counts_skipped_files(tmp_path, png, caplog):
    path = as_folder(tmp_path, [*CLASSES, "cat/1.heic"], png)
    with caplog.at_level("WARNING", "absl"):
        assert len(data.every_image(path, 8)) == 20
    assert "Skipped in" in caplog.text and "1.heic" in caplog.text


def test_many_other_formats_make_a_short_message(tmp_path, png, caplog):
    path = as_folder(tmp_path, CLASSES + [f"cat/{number}.x{number}" for number in range(50)], png)
    with caplog.at_level("WARNING", "absl"):
        data.load(path, 8)
    assert "42 others" in caplog.text and len(caplog.text) < 800


def test_cyclic_links_pipes_and_sockets_are_skipped_immediately(tmp_path, png, caplog):
    path = as_folder(tmp_path, CLASSES, png)
    for name, target in {
        "again": ".",
        "cat/up": "..",
        "cat/out": "../..",
        "loop.png": "loop.png",
        "lost.png": "nowhere.png",
        "zero.png": "/dev/zero",
        "tree": "/",
    }.items():
        os.symlink(target, path / name)
    os.mkfifo(path / "pipe.png")
    here = os.getcwd()
    os.chdir(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        os.chdir(here)
        with caplog.at_level("WARNING", "absl"):
            train, test = data.load(path, 8, memory_limit=0)
    assert len(train) + len(test) == 20 and train.class_names == ("cat", "dog")
    assert "4 linked folders that are read under another name: again, cat/out, cat/up, ..." in caplog.text
    assert "5 broken links, or not regular files" in caplog.text


def test_links_to_other_folders_are_followed_once(tmp_path, png):
    path = as_folder(tmp_path, names_of("cat"), png)
    dogs = as_folder(tmp_path / "elsewhere", names_of("deep"), png)
    os.symlink(dogs, path / "dog")
    os.symlink(path, dogs / "back")
    os.symlink(path / "cat" / "0.png", path / "cat" / "copy.png")
    train, test = data.load(path, 8, memory_limit=0)
    assert train.class_names == ("cat", "dog") and len(train) + len(test) == 21


def test_links_among_many_folders_do_not_multiply(tmp_path, png):
    path = as_folder(tmp_path, names_of(*map(str, range(30)), count=2), png)
    for one in range(30):
        for other in range(30):
            os.symlink(path / str(other), path / str(one) / f"to{other}")
    assert len(data.every_image(path, 8)) == 60


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink(path, path)]
)
@pytest.mark.parametrize("suffix", ["", ".zip", ".npz"])
@pytest.mark.parametrize("entrance", [data.load, data.every_image])
def test_pipes_and_devices_are_rejected_immediately(tmp_path, make, suffix, entrance):
    make(tmp_path / f"photos{suffix}")
    with pytest.raises(ValueError, match=r"folder, a \.zip or a \.npz file. Received: .*photos"):
        entrance(tmp_path / f"photos{suffix}", 8)


def test_folders_and_files_without_permission(tmp_path, png, monkeypatch):
    path = as_folder(tmp_path, CLASSES, png)
    scandir, opened = os.scandir, type(path).open

    def denied(folder):
        if str(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ValueError, match=r"Every folder must be readable.*dog.*Permission denied"):
        data.load(path, 8)
    monkeypatch.undo()

    def locked(self, *arguments, **options):
        if self.name == "0.png":
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(type(path), "open", locked)
    with pytest.raises(ValueError, match=r"must be readable. Received: cat/0\.png \(PermissionError.*skip_corrupt"):
        data.load(path, 8)
    assert len(data.load(path, 8, skip_corrupt=True)[0]) == 16


def packed(path, png, *names, **options):
    with zipfile.ZipFile(path / "a.zip", "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo("x")
            # Set afterwards, because the constructor would normalize it.
            entry.filename = name
            for option, value in options.items():
                setattr(entry, option, value)
            archive.writestr(entry, png)
    return path / "a.zip"


@pytest.mark.parametrize(
    "write",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: f"./{name}",
        lambda name: f".\\{name}".replace("/", "\\"),
        lambda name: f"photos//{name}",
        lambda name: unicodedata.normalize("NFD", name),
    ],
)
@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_archives_from_every_tool_have_the_same_splits_and_classes(tmp_path, png, write, memory_limit):
    names = names_of("train/café", "train/dog", "test/café", "test/dog", count=3)
    path = packed(tmp_path, png, *map(write, names), "", ".", "./")
    train, test = data.load(path, 8, memory_limit=memory_limit)
    assert train.class_names == test.class_names == ("café", "dog") and len(train) == len(test) == 6
    assert train.labels.tolist() == test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(train.read([5])[0, 4, 4], (200, 40, 90))


def test_crops_from_an_archive_from_windows(tmp_path, png):
    path = packed(tmp_path, png, "photos\\1.png", "photos\\2.png")
    crops = data.every_image(path, 8).crop_pairs(2, kb.augmentations.RandomResizedCrop(8, 8))
    np.testing.assert_array_equal(next(iter(crops.epoch(0)))[0][0][:, 4, 4], [(200, 40, 90)] * 2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("other", ["a/1.png", "a\\1.png", "./a/1.png", "a//1.png", "a/./1.png"])
def test_two_entries_of_one_name_are_rejected(tmp_path, png, other):
    with pytest.raises(ValueError, match=r"its own name. Received: 'a/1\.png' and .*Create the archive again"):
        data.load(packed(tmp_path, png, "a/1.png", "a/2.png", other), 8)


def test_composed_and_decomposed_accents_are_one_name(tmp_path, png):
    with pytest.raises(ValueError, match="its own name"):
        data.load(packed(tmp_path, png, "caf\u00e9.png", "cafe\u0301.png"), 8)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_entries_may_share_a_name(tmp_path, png):
    assert len(data.load(packed(tmp_path, png, "a.txt", "a.txt", "1.png", "12:30:05.png"), 8)[0]) == 2


def test_links_in_archives_are_skipped(tmp_path, png, caplog):
    path = packed(tmp_path, b"../elsewhere.png", "link.png", external_attr=0o120777 << 16)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", png)
    with caplog.at_level("WARNING", "absl"):
        assert len(data.load(path, 8)[0]) == 3
    assert "1 entries that are links, or have no name: link.png" in caplog.text


def test_encrypted_images_are_rejected_and_other_encrypted_files_are_skipped(tmp_path, png):
    for name, refused in (("a.png", True), ("a.txt", False)):
        path = packed(tmp_path, png, "1.png", "2.png", name)
        content = bytearray(path.read_bytes())
        # The flag of the last entry in the central directory.
        place = content.rindex(b"PK\x01\x02")
        content[place + 8] |= 1
        path.write_bytes(content)
        if refused:
            with pytest.raises(ValueError, match="must not be encrypted"):
                data.load(path, 8)
        else:
            assert len(data.load(path, 8)[0]) == 2


@pytest.mark.parametrize("offset, value", [(16, 0xFF), (10, 99)], ids=["checksum", "compression"])
def test_entries_that_cannot_be_unpacked_are_named(tmp_path, png, offset, value):
    path = packed(tmp_path, png, "1.png", "2.png", "3.png")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + offset] ^= value
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be readable. Received: 3\.png"):
        data.load(path, 8)
    assert len(data.load(path, 8, skip_corrupt=True)[0]) == 2
