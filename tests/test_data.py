"""Image sources: folders, archives and arrays. TFDS is in test_tfds.py."""

import io
import itertools
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_barlow as kb
from keras_barlow import data


def test_digits_are_split_before_they_are_drawn():
    (train, train_labels), (test, test_labels) = data.digits()
    assert train.shape == (4311, 32, 32, 3) and test.shape == (1080, 32, 32, 3)
    assert train.dtype == test.dtype == "uint8" and train_labels.shape == (4311,)
    assert set(train_labels) == set(test_labels) == set(range(10))
    again = data.digits()
    np.testing.assert_array_equal(again[1][0], test)
    assert (data.digits(seed=1)[0][0] != train).any()


def test_digits_have_the_stated_sizes_colors_and_positions():
    (train, _), _ = data.digits()
    ink = train.max(axis=3) > 25
    rows, columns = ink.any(axis=2), ink.any(axis=1)
    heights = rows.shape[1] - rows[:, ::-1].argmax(1) - rows.argmax(1)
    assert np.quantile(heights, 0.01) >= 8 and np.quantile(heights, 0.99) <= 20
    # Every position of the canvas is used by some digits and by no more than most.
    assert rows.any(0).all() and columns.any(0).all() and ink.mean(0).max() < 0.6
    brightest = train.reshape(len(train), -1, 3).max(axis=1)
    assert brightest.min() > 40 and brightest.max() == 255


def test_copies_of_a_digit_differ():
    (train, labels), _ = data.digits()
    assert labels[0] == labels[1] == labels[2]
    assert (train[0] != train[1]).any()


COLORS = {"cat": (200, 50, 0), "dog": (0, 60, 220)}


@pytest.fixture
def folder(tmp_path):
    """Two classes in two splits: 3 + 3 training images, 2 + 2 test images."""
    path = tmp_path / "animals"
    for split, count in (("train", 3), ("test", 2)):
        for name, color in COLORS.items():
            (path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20, 10), color).save(path / split / name / f"{number}.png")
    return path


def packed(folder, path, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder)}")
    return path


def files_streamed(path, **arguments):
    return data.load(path, image_size=8, memory_limit=0, **arguments)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("top", [None, "", "deep/inside/"])
def test_folder_and_archive(folder, tmp_path, stream, top):
    path = folder if top is None else packed(folder, tmp_path / "a.zip", top)
    before = sorted(tmp_path.rglob("*"))
    train, test = data.load(path, image_size=8, memory_limit=0 if stream else 2**20)
    assert hasattr(train, "array") != stream
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 0, 1, 1]
    images = np.concatenate(list(train.in_order(4).as_numpy_iterator()))
    assert images.shape == (6, 8, 8, 3) and images.dtype == "uint8"
    np.testing.assert_array_equal(images[:, 4, 4], [COLORS["cat"]] * 3 + [COLORS["dog"]] * 3)
    np.testing.assert_array_equal(train.read([5, 0])[:, 4, 4], [COLORS["dog"], COLORS["cat"]])
    assert sorted(tmp_path.rglob("*")) == before


def test_images_without_labels(folder, tmp_path):
    for file in ("train/cat/0.png", "train/dog/0.png"):
        (folder / file).rename(folder / file.replace("/", "_"))
    loose = tmp_path / "loose"
    loose.mkdir()
    for file in folder.glob("*.png"):
        file.rename(loose / file.name)
    train, test = data.load(loose, image_size=8)
    assert len(train) == 2 and train.labels is None and test is None
    train, test = data.load(folder, image_size=8, labels=False)
    assert len(train) == 4 and train.labels is None and test is None


def test_val_is_the_test_split_without_a_test_folder(folder):
    (folder / "test").rename(folder / "val")
    assert len(data.load(folder, image_size=8)[1]) == 4
    (folder / "train").rename(folder / "TRAIN")
    assert len(data.load(folder, image_size=8)[1]) == 4


def test_a_tenth_is_held_out_without_a_test_folder(folder):
    train, test = data.load(folder / "train", image_size=8)
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    streamed = files_streamed(folder / "train")
    assert streamed[1].labels.tolist() == [0, 1] and streamed[1].names[0].startswith("cat/")


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_of_each_class(folder, stream):
    train, test = data.load(
        folder, image_size=8, train_per_class=2, test_per_class=1, memory_limit=0 if stream else 2**20
    )
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    if stream:
        assert train.names == [f"train/{name}/{number}.png" for name in ("cat", "dog") for number in (0, 1)]


def numbered(count):
    """Images whose pixels are their row number."""
    return np.broadcast_to(np.arange(count, dtype="uint8")[:, None, None, None], (count, 4, 4, 3))


@pytest.fixture(params=["array", "files"])
def ten(request, tmp_path):
    """Ten images whose pixels are their row number, in memory and in files."""
    if request.param == "array":
        return data.ArrayImages(numbered(10))
    for row, image in enumerate(numbered(10)):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    return data.load(tmp_path, image_size=4, memory_limit=0)[0]


def rows_of(dataset):
    return [batch[:, 0, 0, 0].tolist() for batch in dataset.as_numpy_iterator()]


def epochs_of(batches, count):
    return [rows_of(batches.epoch(epoch)) for epoch in range(count)]


def test_batches_take_every_image_once_in_a_new_order_each_epoch(ten):
    epochs = epochs_of(ten.batches(batch_size=5, seed=3), 3)
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(10))
    assert len({str(epoch) for epoch in epochs}) == 3
    assert epochs_of(ten.batches(batch_size=5, seed=3), 3) == epochs
    assert epochs_of(ten.batches(batch_size=5, seed=4), 1) != epochs[:1]


def test_an_incomplete_batch_is_left_out_of_training_and_kept_in_evaluation(ten):
    batches = ten.batches(batch_size=4)
    assert len(batches) == len(batches.epoch(0)) == 2
    assert batches.stream().element_spec.shape == batches.epoch(0).element_spec.shape == (4, 4, 4, 3)
    assert len(set(itertools.chain(*rows_of(batches.epoch(0))))) == 8
    assert rows_of(ten.in_order(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_stream_starts_at_any_batch_and_continues_across_epochs(ten):
    batches = ten.batches(batch_size=4, seed=3)
    whole = list(itertools.chain(*epochs_of(batches, 4)))
    for epoch, batch in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        start = 2 * epoch + batch
        assert rows_of(batches.stream(epoch, batch).take(3)) == whole[start : start + 3]


@pytest.mark.parametrize("replicas, workers", [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_the_shares_of_a_stream_are_exactly_its_batches(ten, replicas, workers):
    batches = ten.batches(batch_size=8, seed=3)
    whole = rows_of(batches.stream().take(3))
    count = replicas // workers
    shares = [kb.distribution.Share(replicas, worker * count, count) for worker in range(workers)]
    parts = [rows_of(batches.stream(share=share).take(3 * count)) for share in shares]
    assert [
        list(itertools.chain(*(rows for part in parts for rows in part[count * step : count * (step + 1)])))
        for step in range(3)
    ] == whole
    with pytest.raises(ValueError, match=r"multiple of the number of replicas, 3.*batch_size=8. Use 6"):
        batches.stream(share=kb.distribution.Share(3, 0, 1))


def test_every_position_in_the_order_is_equally_likely():
    batches = data.ArrayImages(numbered(4)).batches(2, seed=0).stream().take(400)
    firsts = [rows[0] for rows in rows_of(batches)[::2]]
    np.testing.assert_allclose(np.bincount(firsts) / 200, 0.25, atol=0.1)


def test_sample_and_crop(ten):
    images, rows = ten.sample(4)
    assert rows.tolist() == [0, 3, 6, 9] and images[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert ten.sample(99)[1].tolist() == list(range(10))
    assert next(iter(ten.in_order(crop=2))).shape == (10, 2, 2, 3)
    with pytest.raises(ValueError, match=r"10 images. Received: batch_size=11"):
        ten.batches(11)


def test_the_center_is_cropped(tmp_path):
    picture = np.zeros((8, 24, 3), "uint8")
    picture[:, 8:16] = 255
    for name in "ab":
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    train, _ = data.load(tmp_path, image_size=8)
    np.testing.assert_array_equal(train.array, 255)


def save_all_kinds(path):
    """The same image, red on the left and blue on the right, in every format and mode."""
    array = np.zeros((40, 80, 3), "uint8")
    array[:, :40, 0] = array[:, 40:, 2] = 250
    picture = Image.fromarray(array)
    for suffix in ("jpg", "png", "webp", "bmp", "JPEG"):
        picture.save(path / f"rgb.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    picture.convert("RGBA").save(path / "rgba.png")
    picture.convert("P").save(path / "palette.png")
    picture.convert("CMYK").save(path / "cmyk.jpg")
    # Photos from a camera held sideways and upside down.
    for orientation, operation in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.transpose(operation).save(path / f"exif{orientation}.jpg", exif=exif, quality=95)


@pytest.mark.parametrize("stream", [False, True])
def test_every_format_becomes_upright_rgb_and_is_logged_once(tmp_path, caplog, stream):
    save_all_kinds(tmp_path)
    with caplog.at_level("INFO", "absl"):
        train, _ = data.load(tmp_path, image_size=20, memory_limit=0 if stream else 2**20)
        images = train.read(range(len(train)))
    assert len(train) == 10
    np.testing.assert_allclose(images[:, :, 2], np.broadcast_to([250, 0, 0], (10, 20, 3)), atol=12)
    np.testing.assert_allclose(images[:, :, -3], np.broadcast_to([0, 0, 250], (10, 20, 3)), atol=12)
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "EXIF orientation" in line]) == 1
    assert {line.split(" are ")[0] for line in said} == {
        "Images with an EXIF orientation",
        "Images of mode RGBA",
        "Images of mode P",
        "Images of mode CMYK",
    }


def test_grayscale_images_of_8_and_16_bits(tmp_path):
    Image.new("L", (9, 9), 77).save(tmp_path / "a.png")
    Image.fromarray(np.full((9, 9), 77 * 256, "uint16")).save(tmp_path / "b.png")
    train, _ = data.load(tmp_path, image_size=8)
    np.testing.assert_array_equal(train.array, 77)


def test_large_jpegs_agree_with_pil(tmp_path):
    smooth = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype("uint8")
    photo = Image.fromarray(smooth).resize((800, 600), Image.Resampling.BICUBIC)
    for name in "ab":
        photo.save(tmp_path / f"{name}.jpg", quality=95)
    train, _ = data.load(tmp_path, image_size=64)
    expected = np.asarray(photo.crop((100, 0, 700, 600)).resize((64, 64), Image.Resampling.BICUBIC), "float32")
    assert np.abs(train.array[0] - expected).mean() < 1.0


def test_npz(tmp_path):
    images, labels = np.zeros((20, 9, 7), "uint8"), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels[:, None], x_test=images[:4], y_test=labels[:4])
    train, test = data.load(tmp_path / "a.npz", image_size=8)
    assert train.array.shape == (20, 8, 8, 3) and test.labels.tolist() == [0, 1, 0, 1]
    np.savez(tmp_path / "b.npz", images=images)
    train, test = data.load(tmp_path / "b.npz", image_size=8)
    assert len(train) == 20 and test is None
    several = np.eye(3, dtype="int8")[np.arange(20) % 3] - np.eye(3, dtype="int8")[0]
    np.savez(tmp_path / "c.npz", images=np.arange(20, dtype="uint8")[:, None, None] + images, labels=several)
    train, test = data.load(tmp_path / "c.npz", image_size=8)
    assert (len(train), len(test)) == (18, 2) and train.class_names == ("0", "1", "2")
    for part in (train, test):
        np.testing.assert_array_equal(part.labels, several[part.array[:, 0, 0, 0]])


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"pixels": np.zeros((4, 8, 8, 3), "uint8")}, r"images, or x_train.* Received: .* with pixels"),
        ({"images": np.zeros((4, 8, 8, 3), "float32")}, "uint8 arrays.*dtype float32"),
        ({"images": np.zeros((8, 8), "uint8")}, r"shape \(8, 8\)"),
        ({"images": np.zeros((4, 8, 8, 3), "uint8"), "labels": np.arange(3)}, "must have a label.*3 labels for 4 rows"),
        ({"images": np.zeros((4, 8, 8, 3), "uint8"), "labels": np.array(list("abcd"))}, "must be class numbers"),
        ({"images": np.zeros((4, 8, 8, 3), "uint8"), "labels": 2 * np.eye(4, dtype=int)}, "-1 to be ignored"),
        ({"images": np.zeros((1, 8, 8, 3), "uint8")}, "at least 2 images.*Received: 1"),
    ],
)
def test_invalid_npz_files(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path / "a.npz", image_size=8)


def test_npz_files_must_be_complete_and_without_objects(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"readable \.npz"):
        data.load(tmp_path / "a.npz", image_size=8)
    np.savez(tmp_path / "b.npz", images=np.array([{}], object))
    with pytest.raises(ValueError, match=r"readable \.npz.*allow_pickle"):
        data.load(tmp_path / "b.npz", image_size=8)


def test_a_folder_must_exist_and_have_images(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        data.load(tmp_path / "nowhere", image_size=8)
    with pytest.raises(ValueError, match="which has none"):
        data.load(tmp_path, image_size=8)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="which has none"):
        data.load(tmp_path, image_size=8)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"at least 2 images to train on.*Received: 1"):
        data.load(tmp_path, image_size=8)
    with pytest.raises(ValueError, match="for TFDS datasets"):
        data.load(tmp_path, image_size=8, train_split="train[:50%]")


def test_classes_must_agree_and_have_two_images(folder):
    for number in (1, 2):
        (folder / "train" / "dog" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"at least 2 training images.*Received: 1 of class 'dog'.*--nolabels"):
        data.load(folder, image_size=8)
    (folder / "test" / "dog").rename(folder / "test" / "fox")
    with pytest.raises(ValueError, match=r"same classes.*\(cat, dog\) in train/ and 2 classes \(cat, fox\) in test/"):
        data.load(folder, image_size=8)
    (folder / "train").rename(folder / "somewhere")
    (folder / "somewhere").rename(folder.parent / "somewhere")
    with pytest.raises(ValueError, match="has test/ only"):
        data.load(folder, image_size=8)


def test_per_class_needs_classes(folder):
    with pytest.raises(ValueError, match="need classes"):
        data.load(folder, image_size=8, labels=False, train_per_class=2)


def a_jpeg():
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")).save(content, "JPEG")
    return content.getvalue()


BROKEN = {
    "text": b"only looks like an image",
    "empty": b"",
    "truncated": a_jpeg()[:1500],
    "header": b"\x89PNG\r\n\x1a\n" + b"\x00" * 40,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_corrupt_file_is_named_or_skipped_with_a_count(folder, caplog, kind, stream):
    (folder / "train" / "dog" / "1.jpg").write_bytes(BROKEN[kind])
    arguments = {"image_size": 8, "memory_limit": 0 if stream else 2**20}
    with pytest.raises(ValueError, match=r"must be readable. Received: train/dog/1\.jpg.*--skip_corrupt"):
        data.load(folder, **arguments)
    with caplog.at_level("WARNING", "absl"):
        train, test = data.load(folder, skip_corrupt=True, **arguments)
    assert "1 of 7 files cannot be read and are skipped" in caplog.text and "train/dog/1.jpg" in caplog.text
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(test) == 4
    assert np.concatenate(list(train.in_order().as_numpy_iterator())).shape == (6, 8, 8, 3)


def test_no_readable_image(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.jpg"):
        data.load(tmp_path, image_size=8)
    with pytest.raises(ValueError, match=r"must be a readable image.*3 files failed"):
        data.load(tmp_path, image_size=8, skip_corrupt=True)


def test_a_file_that_breaks_while_streaming_is_named(folder):
    train, _ = files_streamed(folder)
    (folder / "train" / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"train/dog/2\.png"):
        list(train.in_order())


def test_invalid_archives(folder, tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"must be a readable \.zip"):
        data.load(path, image_size=8)
    packed(folder, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"must be a readable \.zip"):
        data.load(path, image_size=8)
    for name in ("../outside.png", "/etc/outside.png", "train/../../outside.png", "C:\\outside.png"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, a_jpeg())
        with pytest.raises(ValueError, match="point outside"):
            data.load(path, image_size=8)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a.png", b"")
    with pytest.raises(ValueError, match="which has none"):
        data.load(path, image_size=8)


def test_a_damaged_entry_of_an_archive_is_named(folder, tmp_path):
    path = packed(folder, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    # The data of the first entry follow its local header and name.
    start = content.index(b"train/cat/0.png") + len(b"train/cat/0.png")
    content[start + 20 : start + 40] = b"\x00" * 20
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"cat/0\.png.*--skip_corrupt"):
        data.load(path, image_size=8)
    assert len(data.load(path, image_size=8, skip_corrupt=True)[0]) == 5
