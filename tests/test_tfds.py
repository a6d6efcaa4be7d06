"""Real TFDS datasets, written by TFDS' own writers and loaded by name."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import keras_barlow as kb
from keras_barlow import data

RNG = np.random.default_rng(0)


def store(folder, name, features, **splits):
    """Writes a dataset of `{split: examples}` as TFDS does."""
    features = tfds.features.FeaturesDict(features)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=features,
        split_datasets={
            split: tf.data.Dataset.from_generator(
                lambda examples=examples: iter(examples),
                output_signature=features.get_tensor_spec(),
            )
            for split, examples in splits.items()
        },
        data_dir=str(folder),
    )


def pictures(count, shape):
    """Images whose pixels are their row number."""
    return [np.full(shape, row, "uint8") for row in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    image = tfds.features.Image(shape=(8, 8, 3))
    label = tfds.features.ClassLabel(names=["cat", "dog"])
    labeled = [{"image": picture, "label": row % 2} for row, picture in enumerate(pictures(20, (8, 8, 3)))]
    store(path, "labeled", {"image": image, "label": label}, train=labeled, validation=labeled[:6])
    store(path, "no_test_split", {"image": image, "label": label}, train=labeled)
    store(path, "unlabeled", {"image": image}, train=[{"image": picture} for picture in pictures(6, (8, 8, 3))])
    sizes = [(10, 16, 3), (8, 8, 3), (30, 11, 3), (9, 9, 3)]
    various = [{"image": np.full(size, 40 * row, "uint8"), "id": row} for row, size in enumerate(sizes)]
    store(path, "various", {"image": tfds.features.Image(shape=(None, None, 3)), "id": np.int64}, train=various)
    gray = [{"image": picture} for picture in pictures(5, (8, 8, 1))]
    store(path, "gray", {"image": tfds.features.Image(shape=(8, 8, 1))}, train=gray)
    two = [{"left": picture, "right": picture} for picture in pictures(3, (8, 8, 3))]
    store(path, "two", {"left": image, "right": image}, train=two)
    return path


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_multi_label_images_with_difficult_objects_that_are_ignored(tmp_path, memory_limit):
    names = tfds.features.Sequence(tfds.features.ClassLabel(names=["cat", "dog", "cow"]))
    image = tfds.features.Image(shape=(8, 8, 3))
    shown, easy = [[0], [0, 2], [], [1, 2]], [[0], [2], [], [1, 2]]
    examples = [
        {"image": picture, "labels": all_of_them, "labels_no_difficult": some}
        for picture, all_of_them, some in zip(pictures(4, (8, 8, 3)), shown, easy, strict=True)
    ]
    store(tmp_path, "voc_like", {"image": image, "labels": names, "labels_no_difficult": names}, train=examples)
    both = {"train_split": "train", "test_split": "train", "memory_limit": memory_limit}
    train, test = data.load(tmp_path, 8, dataset="voc_like", **both)
    expected = np.array([[1, 0, 0], [-1, 0, 1], [0, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(train.labels, expected[rows_of(train.in_order(4))])
    assert train.class_names == ("cat", "dog", "cow") and len(test) == 4
    with pytest.raises(ValueError, match="whose images have several labels"):
        data.load(tmp_path, 8, dataset="voc_like", train_per_class=1, **both)


def rows_of(images):
    return [int(row) for batch in images.as_numpy_iterator() for row in batch[:, 0, 0, 0]]


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_labeled(folder, memory_limit):
    train, test = data.load(folder, 8, dataset="labeled", memory_limit=memory_limit)
    assert hasattr(train, "array") == bool(memory_limit)
    assert (len(train), len(test)) == (20, 6) and train.class_names == ("cat", "dog")
    order = rows_of(train.in_order(4))
    assert sorted(order) == list(range(20))
    np.testing.assert_array_equal(train.labels, np.array(order) % 2)
    assert train.read([3, 0, 3])[:, 0, 0, 0].tolist() == [order[3], order[0], order[3]]
    taken = train.take(np.array([5, 2]))
    assert taken.array[:, 0, 0, 0].tolist() == [order[5], order[2]] and taken.labels.tolist() == [
        order[5] % 2,
        order[2] % 2,
    ]
    epochs = [rows_of(train.batches(8, seed=1).epoch(epoch)) for epoch in (0, 0, 1)]
    assert epochs[0] == epochs[1] != epochs[2] and len(set(epochs[0])) == 16
    assert rows_of(train.batches(8, seed=1).stream().take(4)) == epochs[0] + epochs[2]
    assert rows_of(train.batches(8, seed=1).stream(epoch=1, batch=1).take(1)) == epochs[2][8:]
    assert train.batches(8).stream().element_spec.shape == (8, 8, 8, 3)


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_slices(folder, memory_limit):
    arguments = {"image_size": 8, "dataset": "labeled", "memory_limit": memory_limit}
    train, test = data.load(folder, train_split="train[:50%]", test_split="train[50%:]", **arguments)
    assert (len(train), len(test)) == (10, 10)
    assert sorted(rows_of(train.in_order()) + rows_of(test.in_order())) == list(range(20))
    train, test = data.load(folder, 8, dataset="no_test_split", memory_limit=memory_limit)
    assert (len(train), len(test)) == (18, 2)
    train, test = data.load(folder, train_per_class=3, test_per_class=1, **arguments)
    assert train.labels.tolist().count(0) == train.labels.tolist().count(1) == 3 and len(test) == 2


@pytest.mark.parametrize("memory_limit", [0, 2**20])
@pytest.mark.parametrize("name, count", [("unlabeled", 6), ("various", 4), ("gray", 5)])
def test_unlabeled_images_of_various_sizes_and_grayscale(folder, name, count, memory_limit):
    train, test = data.load(folder, 8, dataset=name, memory_limit=memory_limit)
    assert len(train) == count and train.labels is None and test is None
    images = train.read(range(count))
    assert images.shape == (count, 8, 8, 3) and images.dtype == "uint8"
    step = 40 if name == "various" else 1
    assert sorted(images[:, 4, 4, 1].tolist()) == [step * row for row in range(count)]


def test_crops_from_records_of_various_sizes(folder):
    train, _ = data.load(folder, 8, dataset="various", memory_limit=0)
    dataset = train.crop_pairs(2, kb.augmentations.RandomResizedCrop(8, 8)).epoch(0)
    seen = []
    for ((view_a, view_b),) in dataset.as_numpy_iterator():
        assert view_a.shape == view_b.shape == (2, 8, 8, 3)
        np.testing.assert_array_equal(view_a[:, 4, 4, 1], view_b[:, 4, 4, 1])
        seen += view_a[:, 4, 4, 1].tolist()
    assert sorted(seen) == [0, 40, 80, 120]


def test_a_model_trains_from_records(folder):
    train, _ = data.load(folder, 8, dataset="various", memory_limit=0)
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), kb.views.barlow_twins(8))
    model.compile("sgd")
    assert np.isfinite(model.fit(train.batches(2), epochs=2, verbose=0).history["loss"]).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dataset": "nothing_of_this_name"}, "known to TFDS or prepared.*nothing_of_this_name.*not found"),
        ({"dataset": "labeled:9.9.9"}, "labeled:9.9.9"),
        ({"dataset": "labeled", "train_split": "train[:"}, r"one of labeled: .*Received: 'train\[:'"),
        ({"dataset": "labeled", "test_split": "holdout"}, "one of labeled: .*Received: 'holdout'"),
        ({"dataset": "two"}, "one image of 8 or 16 bits.*left, right, of which 2"),
        ({"dataset": "unlabeled", "train_split": "train[:1]"}, "at least 2 images"),
        ({"dataset": "unlabeled", "train_per_class": 1}, "need classes"),
    ],
)
def test_rejected_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(folder, 8, **arguments)


def test_a_failed_download_names_a_remedy(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("the network is unreachable")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", no_network)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", no_network)
    with pytest.raises(ValueError, match=r"'mnist' could not be downloaded to .*\(ConnectionError.*tfds build"):
        data.load(tmp_path, 8, dataset="mnist", download=True)


def test_nothing_is_downloaded_by_default(tmp_path):
    with pytest.raises(ValueError, match=r"'mnist', which is not in .*--download.*tfds build mnist"):
        data.load(tmp_path, 8, dataset="mnist")


IMAGE = tfds.features.Image(shape=(8, 8, 3))
CLASS = tfds.features.ClassLabel(names=["cat", "dog"])


def examples(count=6, **more):
    return [
        {"image": picture, **{name: value(row) for name, value in more.items()}}
        for row, picture in enumerate(pictures(count, (8, 8, 3)))
    ]


def test_the_label_is_found_among_several_classes_as_in_cifar100(tmp_path):
    coarse = tfds.features.ClassLabel(names=["animal"])
    rows = examples(label=lambda row: row % 2, coarse_label=lambda row: 0)
    store(tmp_path, "two_levels", {"image": IMAGE, "label": CLASS, "coarse_label": coarse}, train=rows, test=rows)
    train, _ = data.load(tmp_path, 8, dataset="two_levels")
    assert train.class_names == ("cat", "dog")
    np.testing.assert_array_equal(train.labels, train.array[:, 0, 0, 0] % 2)


def test_the_image_is_found_next_to_a_mask_as_in_pets(tmp_path, caplog):
    features = {"image": IMAGE, "segmentation_mask": tfds.features.Image(shape=(8, 8, 1)), "label": CLASS}
    rows = examples(segmentation_mask=lambda row: np.full((8, 8, 1), 99, "uint8"), label=lambda row: row % 2)
    store(tmp_path, "pets", features, train=rows, test=rows)
    train, _ = data.load(tmp_path, 8, dataset="pets")
    assert sorted(train.array[:, 0, 0, 0].tolist()) == list(range(6))
    assert "using image" in caplog.text
    labeled = {"image": IMAGE, "mask": tfds.features.LabeledImage(labels=3, shape=(8, 8, 1))}
    store(tmp_path, "masks", labeled, train=examples(mask=lambda row: np.zeros((8, 8, 1), "uint8")))
    caplog.clear()
    assert len(data.load(tmp_path, 8, dataset="masks")[0]) == 6 and not caplog.records


def test_images_of_16_bits_and_of_4_channels(tmp_path):
    deep = tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16)
    store(tmp_path, "deep", {"image": deep}, train=[{"image": np.full((8, 8, 1), 77 * 257, "uint16")}] * 2)
    clear = tfds.features.Image(shape=(8, 8, 4))
    store(tmp_path, "clear", {"image": clear}, train=[{"image": np.full((8, 8, 4), 77, "uint8")}] * 2)
    for name in ("deep", "clear"):
        np.testing.assert_array_equal(data.load(tmp_path, 8, dataset=name)[0].array, 77)


LABELS = {
    "numbers": ({"label": np.int64}, {"label": lambda row: row % 2}, "must be a ClassLabel.*label: .*int64"),
    "text": ({"label": tfds.features.Text()}, {"label": lambda row: "cat"}, "must be a ClassLabel.*label: Text"),
    "unclear": (
        {"breed": CLASS, "color": CLASS},
        {"breed": lambda row: 0, "color": lambda row: 0},
        "must be a ClassLabel, the only one.*breed.*color",
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_not_classes_are_rejected_and_can_be_ignored(tmp_path, kind):
    features, values, message = LABELS[kind]
    store(tmp_path, "set", {"image": IMAGE, **features}, train=examples(**values))
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path, 8, dataset="set")
    assert len(data.load(tmp_path, 8, dataset="set", labels=False)[0]) == 6


@pytest.mark.parametrize("features", [{"nested": {"image": IMAGE}}, {"frames": tfds.features.Sequence(IMAGE)}])
def test_nested_image_features_are_rejected(tmp_path, features):
    name, inner = next(iter(features.items()))
    value = {"image": np.zeros((8, 8, 3), "uint8")} if isinstance(inner, dict) else [np.zeros((8, 8, 3), "uint8")]
    store(tmp_path, "set", features, train=[{name: value}] * 3)
    with pytest.raises(ValueError, match=rf"have one image.*{name}, of which 0 are images"):
        data.load(tmp_path, 8, dataset="set")


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_splits_without_labels_are_skipped_or_rejected(tmp_path, caplog, memory_limit):
    """As in ImageNet's test split and STL-10's unlabeled split."""
    rows = examples(label=lambda row: row % 2)
    secret = examples(label=lambda row: -1)
    splits = {"train": rows, "test": secret, "validation": rows[:4], "unlabeled": secret}
    store(tmp_path, "secret", {"image": IMAGE, "label": CLASS}, **splits)
    arguments = {"dataset": "secret", "memory_limit": memory_limit}
    train, test = data.load(tmp_path, 8, **arguments)
    assert (len(train), len(test)) == (6, 4) and "Skipped secret, test" in caplog.text
    for splits in ({"test_split": "test"}, {"train_split": "unlabeled"}, {"train_split": "train+unlabeled"}):
        with pytest.raises(ValueError, match=r"must have a label. Received: 6 of .* without one \(-1\) in secret"):
            data.load(tmp_path, 8, **arguments, **splits)
    train, _ = data.load(tmp_path, 8, train_split="train+unlabeled", labels=False, **arguments)
    assert len(train) == 12 and train.labels is None


def test_an_empty_split_is_rejected(tmp_path):
    store(tmp_path, "set", {"image": IMAGE}, train=examples())
    with pytest.raises(ValueError, match=r"must have images. Received: 'train\[:0\]' of set, which is empty"):
        data.load(tmp_path, 8, dataset="set", test_split="train[:0]")


def test_unsupported_formats_are_rejected_in_records_too(tmp_path):
    store(tmp_path, "set", {"image": tfds.features.Image(shape=(None, None, 3))}, train=examples())
    train, _ = data.load(tmp_path, 8, dataset="set", memory_limit=0)
    with pytest.raises(ValueError, match=r"an image of set, train.*PostScript"):
        train._decode_all([b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
