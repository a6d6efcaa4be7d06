"""Every entry point warns once about images on [0, 1], on [-1, 1] or standardized."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

import keras_barlow as kb
from keras_barlow import image_scale
from tests import shared

SIZE = 8


def images(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3)).astype(dtype)


def encoder():
    return kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=4)


def model(views=True):
    return shared.model(("image_scale", views), lambda: new_model(views))


def new_model(views):
    flips = kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=0)
    made = kb.BarlowTwins(encoder(), kb.Projector((8,)), flips if views else None)
    made.compile("sgd")
    return made


def loaded(path, form):
    if form == "run":
        model().save(path / "model.keras")
    else:
        kb.export.save_encoder(encoder(), path / "encoder")
        path = path / "encoder"
    return kb.load_encoder(path)


def slices(data):
    return tf.data.Dataset.from_tensor_slices(data).batch(8)


LABELS = np.arange(8) % 2
# Add new entry points here to test them.
ENTRY_POINTS = {
    "fit(array)": lambda x, _: model().fit(x, verbose=0),
    "fit(dataset)": lambda x, _: model().fit(slices(x), verbose=0),
    "fit(dictionaries)": lambda x, _: model().fit(slices({"image": x}), verbose=0),
    "fit(pairs)": lambda x, _: model(views=False).fit(slices(((x, x),)), verbose=0),
    "fit(validation array)": lambda x, _: model().fit(images(), validation_data=(x,), verbose=0),
    "fit(validation dataset)": lambda x, _: model().fit(images(), validation_data=slices(x), verbose=0),
    "evaluate": lambda x, _: model().evaluate(x, verbose=0),
    "evaluate(dataset)": lambda x, _: model().evaluate(slices(x), verbose=0),
    "predict": lambda x, _: model().predict(x, verbose=0),
    "predict(dataset)": lambda x, _: model().predict(slices(x), verbose=0),
    "model(images)": lambda x, _: model()(x),
    "project": lambda x, _: model().project(x),
    "encoder(images)": lambda x, _: encoder()(x),
    "encoder.predict": lambda x, _: encoder().predict(x, verbose=0),
    "encoder.predict(dataset)": lambda x, _: encoder().predict(slices(x), verbose=0),
    "load_encoder(run)": lambda x, path: loaded(path, "run")(x),
    "load_encoder(run).predict": lambda x, path: loaded(path, "run").predict(x, verbose=0),
    "load_encoder(SavedModel)": lambda x, path: loaded(path, "saved")(x),
    "load_encoder(SavedModel).predict": lambda x, path: loaded(path, "saved").predict(x, verbose=0),
    "views": lambda x, _: kb.views.barlow_twins(SIZE, seed=0)(x),
    "extract_features": lambda x, _: kb.evaluation.extract_features(encoder(), x),
    "extract_features of a backbone": lambda x, _: kb.evaluation.extract_features(
        keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D()]), x
    ),
    "ArrayImages": lambda x, _: kb.data.ArrayImages(x),
    "KNNProbe": lambda x, _: model().fit(
        images(), verbose=0, callbacks=[kb.callbacks.KNNProbe((x, LABELS), (x, LABELS), k=2)]
    ),
    "LinearProbe": lambda x, _: model().fit(
        images(), verbose=0, callbacks=[kb.callbacks.LinearProbe((x, LABELS), (x, LABELS))]
    ),
    "CollapseMonitor": lambda x, _: model().fit(images(), verbose=0, callbacks=[kb.callbacks.CollapseMonitor(x)]),
}


@pytest.fixture
def warnings(monkeypatch):
    """Returns a function that lists the warnings since the beginning of the test."""
    messages = []
    monkeypatch.setattr(image_scale, "_warned", set())
    monkeypatch.setattr(logging, "warning", lambda text, *values: messages.append(text % values))
    return lambda: [message for message in messages if "0 to 255" in message]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_warns_once(name, warnings, tmp_path):
    ENTRY_POINTS[name](images("float32") / 255, tmp_path)
    assert len(warnings()) == 1
    assert "values from 0 to 1," in warnings()[0]


@pytest.mark.parametrize("name", ["fit(array)", "fit(dataset)", "predict", "encoder(images)", "encoder.predict"])
def test_correct_images_cause_no_warning(name, warnings, tmp_path):
    for dtype in ("uint8", "float32", "int32"):
        ENTRY_POINTS[name](images(dtype), tmp_path)
    assert not warnings()


@pytest.mark.parametrize(
    "x, warned",
    [
        (images("float32") / 127.5 - 1, True),
        ((images("float32") - 120) / 60, True),
        (images() // 128, True),
        (images("float32") * 257, True),
        (images("float32") - 128, True),
        (images("float32") * 1.2 - 20, False),
        (np.zeros((8, SIZE, SIZE, 3), "uint8"), False),
        (images() // 16, False),
    ],
    ids=["-1 to 1", "standardized", "0 and 1", "16 bits", "centered", "overshooting", "black", "dark"],
)
def test_another_scale_is_recognized(x, warned, warnings):
    image_scale.warn_about_scale(x)
    assert bool(warnings()) == warned


def test_a_dataset_keeps_its_order_size_and_structure():
    data = slices({"image": images(), "label": LABELS}).shuffle(4, seed=3)
    twin = image_scale.with_scale_check(slices({"image": images(), "label": LABELS}).shuffle(4, seed=3))
    assert twin.cardinality() == data.cardinality() and twin.element_spec == data.element_spec
    for _ in range(2):
        for got, expected in zip(twin, data, strict=True):
            np.testing.assert_array_equal(got["label"], expected["label"])


@pytest.mark.parametrize("dtype", ["bool", "uint16", "int8", "complex64"])
@pytest.mark.parametrize("name", ["fit(array)", "fit(dataset)", "predict", "views"])
def test_dtypes_of_another_scale_are_rejected(name, dtype, tmp_path):
    with pytest.raises(ValueError, match=f"Received: images of dtype {dtype}"):
        ENTRY_POINTS[name](images(dtype), tmp_path)
