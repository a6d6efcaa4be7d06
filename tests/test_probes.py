"""Inputs that probes accept, and inputs that they refuse before training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow.callbacks import CollapseMonitor, KNNProbe, LinearProbe

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), dtype="uint8")
LABELS = np.arange(8) % 2
CENTERS = IMAGES[:, 2:18, 2:18]
ARRAY = kb.data.ArrayImages
# Ways to pass the same images of 16 pixels with labels.
GIVEN = {
    "arrays": (CENTERS, LABELS),
    "a list": [CENTERS, LABELS],
    "a column": (CENTERS, LABELS[:, None]),
    "a dataset": (tf.data.Dataset.from_tensor_slices(CENTERS).batch(3), LABELS),
    "Images": ARRAY(CENTERS, LABELS),
    "larger Images": ARRAY(IMAGES, LABELS),
    "Images and labels": (ARRAY(IMAGES), LABELS),
}


@pytest.fixture(scope="module")
def model():
    encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=4)
    flips = kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=0)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), flips)
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def probes(given):
    return [KNNProbe(given, given, k=3), LinearProbe(given, given, passes=3), CollapseMonitor(given)]


def measured(model, given):
    logs = {}
    for probe in probes(given):
        probe.set_model(model)
        probe.measure(logs)
    return logs


@pytest.mark.parametrize("way", GIVEN)
def test_images_are_accepted_in_many_forms(way, model):
    logs = measured(model, GIVEN[way])
    assert logs == measured(model, GIVEN["arrays"])
    assert set(logs) >= {"knn_top1", "linear_top5", "effective_rank"}


def test_files_are_center_cropped(folder, model):
    train, test = kb.data.load(folder, image_size=24, memory_limit=0)
    logs = {}
    for probe in (KNNProbe(train, test, k=3), CollapseMonitor(train)):
        probe.set_model(model)
        probe.measure(logs)
    centers = [(one.read(range(len(one)))[:, 4:20, 4:20], one.labels) for one in (train, test)]
    probe = KNNProbe(*centers, k=3)
    probe.set_model(model)
    probe.measure(expected := {})
    assert logs["knn_top1"] == expected["knn_top1"] and logs["effective_rank"] > 1


def test_the_monitor_samples_from_many_images(model, monkeypatch):
    monkeypatch.setattr(kb.callbacks.probes, "_MONITORED", 4)
    monitor = CollapseMonitor(ARRAY(IMAGES))
    np.testing.assert_array_equal(monitor.images.array, IMAGES[[0, 2, 4, 7]])


# Images that an encoder of 16 pixels refuses, with the error message.
REFUSED = {
    "larger arrays": (IMAGES, "takes images of 16 x 16 x 3. Received: `{}` of 20 x 20 x 3"),
    "smaller arrays": (IMAGES[:, :12, :12], "Received: `{}` of 12 x 12 x 3"),
    "gray arrays": (CENTERS[..., :1], "Received: `{}` of 16 x 16 x 1"),
    "gray arrays without channels": (CENTERS[..., 0], r"Received: `{}` of shape \(8, 16, 16\)"),
    "larger images in a dataset": (tf.data.Dataset.from_tensor_slices(IMAGES).batch(3), "`{}` of 20 x 20 x 3"),
    "single images in a dataset": (tf.data.Dataset.from_tensor_slices(CENTERS), r"Use .batch\(256\)"),
    "an infinite dataset": (
        tf.data.Dataset.from_tensor_slices(CENTERS).batch(3).repeat(),
        "an infinite dataset for `{}`",
    ),
    "smaller Images": (ARRAY(IMAGES[:, :12, :12]), "Received: `{}` of 12 x 12 x "),
    "Batches": (ARRAY(CENTERS).batches(4), "Received: data.Batches for `{}`"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_other_images_are_refused_before_training(wrong, model):
    images, message = REFUSED[wrong]
    good = (CENTERS, LABELS)
    makers = {
        "train": lambda: KNNProbe((images, LABELS), good, k=3),
        "test": lambda: LinearProbe(good, (images, LABELS)),
        "images": lambda: CollapseMonitor(images),
    }
    before = model.get_weights()
    for name, make in makers.items():
        with pytest.raises(ValueError, match=message.format(name)):
            model.fit(CENTERS, batch_size=4, verbose=0, callbacks=[make()])
    assert model.optimizer.iterations == 0
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_without_labels_are_refused():
    for given in (ARRAY(CENTERS), (ARRAY(CENTERS), None), (CENTERS, None)):
        with pytest.raises(ValueError, match=r"needs labels. Received: none for `test`"):
            KNNProbe((CENTERS, LABELS), given, k=3)
    for given, what in ((CENTERS, "ndarray"), (CENTERS[:2], "ndarray"), (None, "NoneType"), ((CENTERS,), "tuple")):
        with pytest.raises(ValueError, match=f"images and their labels. Received: {what} for `train`"):
            LinearProbe(given, (CENTERS, LABELS))
    with pytest.raises(ValueError, match="Batches for `train`, whose order is random"):
        KNNProbe(ARRAY(CENTERS, LABELS).batches(4), (CENTERS, LABELS))


def test_a_dataset_of_another_length_is_refused_when_it_is_known(model):
    short = (tf.data.Dataset.from_tensor_slices(CENTERS).batch(3), LABELS[:7])
    for probe in (KNNProbe(short, short, k=3), LinearProbe(short, short)):
        probe.set_model(model)
        with pytest.raises(ValueError, match="Received: 7 labels for 8 rows"):
            probe.measure({})


def test_an_encoder_of_free_size_takes_every_size():
    encoder = kb.encoders.resnet((1,), input_shape=(None, None, 3), stem="small", width=4)
    for images in (IMAGES, ARRAY(IMAGES)):
        assert kb.evaluation.extract_features(encoder, images).shape == (8, 4)
    oblong = kb.encoders.resnet((1,), input_shape=(16, 12, 3), stem="small", width=4)
    with pytest.raises(ValueError, match=r"Center crops of data.Images are square"):
        kb.evaluation.extract_features(oblong, ARRAY(IMAGES))
    assert kb.evaluation.extract_features(oblong, IMAGES[:, :16, :12]).shape == (8, 4)


def test_nan_features_are_refused_by_name(model):
    broken = keras.models.clone_model(model.encoder)
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    twins = kb.BarlowTwins(broken, kb.Projector((8,)), views=None)
    for probe in probes(GIVEN["arrays"]):
        probe.set_model(twins)
        with pytest.raises(ValueError, match=r"Features must be finite. Received: NaN"):
            probe.measure({})


def test_a_feature_that_is_constant_in_training_does_not_dominate():
    """Divided by its rounding error, it would outweigh all other features of a test image."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = np.stack([labels + 0.1 * rng.normal(size=200), np.full(200, 0.1)], axis=1).astype("float32")
    test = features + np.array([0.0, 1.0], "float32")
    probe = LinearProbe((features[:, None, None], labels), (test[:, None, None], labels), passes=50)
    # The encoder averages over the pixels.
    probe.set_model(keras.Sequential([keras.Input((1, 1, 2)), keras.layers.Flatten()]))
    probe.measure(logs := {})
    assert logs["linear_top1"] == 1.0
