"""Arrays: `.npz` files with the usual names, and `ArrayImages` with any number of channels, shape and dtype."""

import time

import numpy as np
import pytest

import keras_barlow as kb
from keras_barlow import data
from tests import shared


def numbered(count, *shape, dtype="uint8"):
    """Images whose pixels are their row number."""
    rows = np.arange(count, dtype=dtype).reshape((count,) + (1,) * len(shape))
    return np.broadcast_to(rows, (count, *shape)).copy()


X, Y = numbered(20, 8, 8, 3), np.arange(20) % 2


def saved(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


FAMILIES = [
    {"train": ("images", "labels"), "test": ("x_test", "y_test"), "val": ("x_val", "y_val")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test"), "val": ("x_val", "y_val")},
    {
        "train": ("train_images", "train_labels"),
        "test": ("test_images", "test_labels"),
        "val": ("val_images", "val_labels"),
    },
]


@pytest.mark.parametrize("names", FAMILIES, ids=lambda names: names["train"][0])
@pytest.mark.parametrize("column", [False, True])
def test_every_family_of_names(tmp_path, caplog, names, column):
    labels = Y[:, None] if column else Y
    arrays = {}
    for role, count in (("train", 20), ("test", 6), ("val", 4)):
        # Brighter, because nearly black images look like images on another scale.
        arrays |= {names[role][0]: X[:count] + 100, names[role][1]: labels[:count].astype("uint8")}
    with caplog.at_level("WARNING", "absl"):
        train, test = data.load(saved(tmp_path, **arrays), 8)
    assert (len(train), len(test)) == (20, 6) and train.class_names == test.class_names == ("0", "1")
    np.testing.assert_array_equal(train.labels, Y)
    np.testing.assert_array_equal(test.labels, Y[:6])
    val = " and ".join(names["val"])
    assert f"2 validation arrays (the test images are used): {', '.join(names['val'])}" in caplog.text, val
    for name in names["test"]:
        del arrays[name]
    caplog.clear()
    assert len(data.load(saved(tmp_path, **arrays), 8)[1]) == 4 and not caplog.records
    for name in names["val"]:
        del arrays[name]
    assert [len(images) for images in data.load(saved(tmp_path, **arrays), 8)] == [18, 2]
    assert not caplog.records


def test_medmnist_as_published(tmp_path):
    """The dtypes and shapes of PathMNIST, and of a grayscale dataset."""
    labels = (np.arange(30) % 3).reshape(-1, 1).astype("uint8")
    for images in (numbered(30, 28, 28, 3), numbered(30, 28, 28)):
        parts = {"train": slice(18), "val": slice(18, 24), "test": slice(24, 30)}
        arrays = {f"{part}_images": images[rows] for part, rows in parts.items()}
        arrays |= {f"{part}_labels": labels[rows] for part, rows in parts.items()}
        train, test = data.load(saved(tmp_path, **arrays), 28)
        assert train.array.shape == (18, 28, 28, 3) and test.array[:, 0, 0, 2].tolist() == list(range(24, 30))
        assert train.labels.tolist() == [0, 1, 2] * 6 and train.class_names == ("0", "1", "2")


REFUSED = {
    "labels under another name": ({"images": X, "y": Y}, "an array y with as many rows as images, and no labels"),
    "labels of another family": ({"images": X, "y_train": Y}, "Rename it to labels, or .*labels=False"),
    "labels beside x_train": ({"x_train": X, "labels": Y}, "Rename it to y_train"),
    "columns under another name": ({"images": X, "targets": np.eye(20)}, "an array targets"),
    "two families": ({"images": X, "labels": Y, "x_train": X}, "only one array of train images.*images and x_train"),
    "test images without labels": ({"x_train": X, "y_train": Y, "x_test": X}, "both have labels.*no y_test"),
    "labels for tests only": ({"x_train": X, "x_test": X, "y_test": Y}, "no y_train|Rename it to y_train"),
    "only tests": ({"x_test": X, "y_test": Y}, "x_train.*Received: .*x_test, y_test"),
    "nothing": ({}, "with nothing"),
    "a class that training lacks": (
        {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": np.array([0, 7])},
        r"same classes.*labels \[7\]",
    ),
    "other numbers of columns": (
        {"x_train": X, "y_train": np.eye(20, dtype=int), "x_test": X[:2], "y_test": np.ones((2, 3), int)},
        r"same classes.*\(20, 20\).*\(2, 3\)",
    ),
    "labels that jump": ({"images": X, "labels": np.where(Y, 100_000_000, 0)}, "huge gaps.*100000000"),
    "negative labels": ({"images": X, "labels": Y - 1}, r"class numbers from 0.*\[-1\] in `labels`"),
    "missing labels": ({"images": X, "labels": np.where(Y, np.nan, 0)}, "NaN in `labels`"),
    "too few labels": ({"images": X, "labels": Y[:9]}, "9 labels for 20 rows in `labels`"),
    "names as labels": ({"images": X, "labels": np.array(["cat"] * 20)}, "class numbers.*np.unique"),
    "no images": ({"images": X[:0], "labels": Y[:0]}, r"at least one image.*\(0, 8, 8, 3\)"),
    "no test images": ({"x_train": X, "y_train": Y, "x_test": X[:0], "y_test": Y[:0]}, "at least one image.*x_test"),
    "images of no pixels": ({"images": X[:, :0]}, r"at least one image.*\(20, 0, 8, 3\)"),
    "vectors": ({"images": X.reshape(20, -1)}, r"shape \(n, height, width.*\(20, 192\)"),
    "13 bands": ({"images": numbered(20, 8, 8, 13)}, r"1, 3 or 4 channels.*\(8, 8, 13\)"),
    "floats": ({"images": X / 255.0}, "uint8.*dtype float64"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rejected_npz_files(tmp_path, kind):
    arrays, message = REFUSED[kind]
    path = saved(tmp_path, **arrays)
    began = time.time()
    with pytest.raises(ValueError, match=message):
        data.load(path, 8)
    assert time.time() - began < 5


def test_labels_that_are_ignored_need_no_names(tmp_path, caplog):
    train, test = data.load(saved(tmp_path, x_train=X, y=Y, x_test=X[:2]), 8, labels=False)
    assert train.labels is None and test is None
    assert "1 unused arrays: y" in caplog.text
    caplog.clear()
    data.load(saved(tmp_path, x_train=X, y_train=-Y, x_test=X[:2], y_test=Y[:1]), 8, labels=False)
    assert not caplog.records


def test_other_arrays_are_counted(tmp_path, caplog):
    path = saved(
        tmp_path, images=X, labels=Y, ids=np.arange(20), names=np.array([{}] * 2, object), author=np.array("me")
    )
    assert len(data.load(path, 8)[0]) == 18
    assert "3 unused arrays: author, ids, names" in caplog.text


def test_one_hot_labels_are_read_as_multi_label_with_a_warning(tmp_path, caplog):
    train, _ = data.load(saved(tmp_path, images=X, labels=np.eye(2)[Y]), 8)
    assert train.labels.shape == (18, 2) and "labels.argmax(axis=1)" in caplog.text


CHANNELS = {
    "13 bands": numbered(10, 12, 12, 13),
    "one channel": numbered(10, 12, 12, 1),
    "not square": numbered(10, 8, 12, 3),
    "float32": numbered(10, 12, 12, 3, dtype="float32") + 0.5,
    "float64 of 4 bands": numbered(10, 12, 12, 4, dtype="float64"),
    "float16": numbered(10, 12, 12, 3, dtype="float16"),
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_arrays_of_any_channels_shape_and_float(kind):
    array = CHANNELS[kind]
    images = data.ArrayImages(array, labels=np.arange(10)[:, None], class_names=[str(number) for number in range(10)])
    expected = array if array.dtype == np.uint8 else array.astype("float32")
    assert images.image_shape == array.shape[1:] and images.labels.shape == (10,) and images.dtype == expected.dtype
    rows = np.concatenate(list(images.in_order(4).as_numpy_iterator()))
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == expected.dtype
    sample, numbers = images.sample(3)
    np.testing.assert_array_equal(sample, expected[numbers])
    batch = next(iter(images.batches(4).epoch(0)))
    assert batch.shape == (4, *array.shape[1:]) and batch.dtype == expected.dtype
    np.testing.assert_array_equal(batch, expected[batch.numpy()[:, 0, 0, 0].astype(int)])
    batch, labels = next(iter(images.labeled(4, crop=6)))
    with pytest.warns(DeprecationWarning, match="now Images.labeled"):
        images.labelled(4)
    assert batch.shape == (4, 6, 6, array.shape[3])
    np.testing.assert_array_equal(batch.numpy()[:, 0, 0, 0].astype(int), labels)
    assert images.take(np.array([3, 1])).read([1]).flat[0] == expected[1].flat[0]


@pytest.mark.parametrize("kind", shared.few(["13 bands", "not square", "float16"], "13 bands", "float16"))
def test_a_model_trains_on_arrays(kind):
    array = CHANNELS[kind]
    channels = array.shape[3]
    standardization = {"mean": [0.5] * channels, "deviation": [0.25] * channels}
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, channels), stem="small", width=4, **standardization)
    views = kb.views.barlow_twins(8) if channels == 3 else kb.views.multi_channel(8)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), views)
    model.compile("sgd")
    history = model.fit(data.ArrayImages(array).batches(5), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    "array, message",
    [
        (
            numbered(4, 8, 8),
            r"shape \(4, 8, 8\). Add a channel axis to grayscale images: images\[\.\.\., None\]",
        ),
        (numbered(4, 64), r"images of shape \(4, 64\)"),
        (numbered(0, 8, 8, 3), "at least one image"),
        (numbered(4, 8, 8, 3, dtype="uint16"), r"dtype uint16.*images / 257"),
        (numbered(4, 8, 8, 3, dtype="int64"), "dtype int64"),
        (numbered(4, 8, 8, 3).astype(bool), r"dtype bool.*images \* 255.0"),
        (numbered(4, 8, 8, 3).astype(object), "dtype object"),
        ([np.zeros((8, 8, 3)), np.zeros((9, 9, 3))], "of one size"),
        ("photos", "shape"),
        (None, "shape"),
    ],
)
def test_rejected_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        data.ArrayImages(array)


@pytest.mark.parametrize(
    "convert", [lambda x: (x / 257).astype("float32"), lambda x: x.astype("uint8"), lambda x: x.astype("float32")]
)
def test_the_remedies_in_the_errors_work(convert):
    assert len(data.ArrayImages(convert(numbered(4, 8, 8, 3, dtype="uint16")))) == 4
    gray = numbered(4, 8, 8)
    assert data.ArrayImages(gray[..., None]).image_shape == (8, 8, 1)
    assert data.ArrayImages(np.repeat(gray[..., None], 3, axis=-1)).image_shape == (8, 8, 3)


@pytest.mark.parametrize(
    "labels, class_names, message",
    [
        (np.arange(3), None, "3 labels for 4 rows"),
        (np.array([0, 1, 2, -1]), None, "from 0"),
        (np.array(list("abcd")), None, "class numbers"),
        (np.array([0, 1, 2, 10**8]), None, "huge gaps"),
        (np.arange(4), ("a", "b"), "2 names for 4 classes"),
        (np.eye(4, dtype=int), ("a", "b", "c", "d", "e"), "5 names for 4 classes"),
        (np.arange(4), "abcd", "tuple of names"),
    ],
)
def test_labels_of_arrays_are_checked_at_once(labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        data.ArrayImages(numbered(4, 8, 8, 3), labels, class_names)


def test_crops_larger_than_the_images_are_rejected():
    with pytest.raises(ValueError, match=r"from 1 to 8 pixels, as the images are 8 x 12. Received: crop=9"):
        data.ArrayImages(numbered(4, 8, 12, 3)).in_order(2, crop=9)
