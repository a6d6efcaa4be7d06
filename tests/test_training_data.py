"""Data for `fit`, `evaluate`, `predict` and validation works as Keras users expect, or is rejected."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import shared

SIZE, ROWS = 8, 16


def images(rows=ROWS, channels=3, size=SIZE, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 256, (rows, size, size, channels)).astype(dtype)


LABELS = np.arange(ROWS) % 2


def build():
    """`new_model()`, from the models that tests share."""
    model = shared.model("training_data", new_model)
    keras.utils.set_random_seed(1)
    return model


def new_model(views=None, **arguments):
    keras.utils.set_random_seed(1)
    flips = kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=2)
    model = kb.BarlowTwins(
        kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=4),
        kb.Projector((8, 8)),
        views=flips if views is None else views,
        **arguments,
    )
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def collection(rows=ROWS):
    return kb.data.ArrayImages(images(rows), LABELS[:rows])


def slices(data, batch=8):
    return tf.data.Dataset.from_tensor_slices(data).batch(batch)


def features_of(model, data=None):
    return model.predict(images() if data is None else data, verbose=0)


def features_after(data, **arguments):
    model = build()
    model.fit(data, verbose=0, **arguments)
    return features_of(model)


class TestAcceptedData:
    @pytest.mark.parametrize(
        "data",
        [
            lambda: collection().batches(8),
            lambda: collection(),
            lambda: slices({"image": images(), "label": LABELS, "id": LABELS.astype(str)}),
            lambda: slices((images(), LABELS)),
            lambda: {"image": images()},
        ],
        ids=["batches", "images", "dictionaries", "labeled", "dictionary of arrays"],
    )
    def test_fit_accepts_it(self, data):
        model, data = build(), data()
        sizes = {} if isinstance(data, (kb.data.Batches, tf.data.Dataset)) else {"batch_size": 8}
        model.fit(data, epochs=2, verbose=0, **sizes)
        assert int(model.batch_count) == 4

    def test_fit_on_images_equals_fit_on_their_batches(self):
        first = features_after(collection(), batch_size=8, epochs=2)
        np.testing.assert_array_equal(first, features_after(collection().batches(8), epochs=2))

    def test_fit_on_images_without_shuffling_keeps_their_order(self):
        first = features_after(collection(), batch_size=8, shuffle=False)
        np.testing.assert_allclose(first, features_after(slices(images())), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        "data",
        [collection, lambda: slices(images()), lambda: slices({"image": images(), "label": LABELS})],
        ids=["images", "dataset", "dictionaries"],
    )
    def test_predict_and_evaluate_match_arrays(self, data):
        model = build()
        np.testing.assert_allclose(features_of(model, data()), features_of(model), rtol=1e-5, atol=1e-6)
        sizes = {"batch_size": 8} if isinstance(data(), kb.data.Images) else {}
        got = model.evaluate(data(), verbose=0, return_dict=True, **sizes)
        expected = model.evaluate(images(), batch_size=8, verbose=0, return_dict=True)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-4, err_msg=name)

    @pytest.mark.parametrize(
        "data",
        [collection, lambda: (collection(),), lambda: (images(),), lambda: slices(images())],
        ids=["images", "tuple of images", "array", "dataset"],
    )
    def test_validation_data(self, data):
        histories = []
        for validation in (data(), slices(images())):
            model = build()
            histories.append(model.fit(images(), batch_size=8, shuffle=False, validation_data=validation, verbose=0))
        values = [history.history["val_loss"][0] for history in histories]
        np.testing.assert_allclose(*values, rtol=1e-4)

    def test_batches_for_evaluate_and_as_validation_data(self):
        model = build()
        logs = model.evaluate(collection().batches(8), verbose=0, return_dict=True)
        assert model.fit(collection().batches(8), validation_data=collection().batches(8), verbose=0).history[
            "val_loss"
        ]
        assert np.isfinite(logs["loss"])

    def test_batch_size_and_steps_may_repeat_those_of_the_batches(self):
        model = build()
        model.fit(collection().batches(8), batch_size=8, steps_per_epoch=2, verbose=0)
        assert int(model.batch_count) == 2


_TOO_SMALL = "A batch needs at least 2 images"

REJECTED = {
    "sample_weight": (images, {"sample_weight": np.zeros(ROWS)}, r"all images have equal weight.*sample_weight"),
    "class_weight": (images, {"y": LABELS, "class_weight": {0: 0.0}}, r"all images have equal weight.*class_weight"),
    "class_weight of Batches": (
        lambda: collection().batches(8),
        {"class_weight": {0: 1.0}},
        "all images have equal weight",
    ),
    "sample weights in the data": (lambda: slices((images(), LABELS, LABELS)), {}, r"sample weights in the data.*map"),
    "validation sample weights": (images, {"validation_data": (images(), LABELS, LABELS)}, "with sample weights"),
    "batch_size of Batches": (
        lambda: collection().batches(8),
        {"batch_size": 4},
        r"`batch_size` of these Batches is 8.*Received",
    ),
    "batch_size of a dataset": (lambda: slices(images()), {"batch_size": 4}, r"is already batched.*dataset.batch"),
    "steps_per_epoch of Batches": (
        lambda: collection().batches(8),
        {"steps_per_epoch": 1},
        r"`steps_per_epoch` of these Batches is 2",
    ),
    "shuffle of Batches": (lambda: collection().batches(8), {"shuffle": False}, r"shuffled with their own seed"),
    "validation_split of Batches": (lambda: collection().batches(8), {"validation_split": 0.5}, "cannot be split"),
    "validation_split of images": (collection, {"validation_split": 0.5}, "own test split"),
    "one validation image": (images, {"validation_data": (images(1),)}, _TOO_SMALL),
    "17 validation images": (
        images,
        {"batch_size": 16, "validation_data": (images(17),)},
        _TOO_SMALL,
    ),
    "17 validation images of a collection": (
        images,
        {"batch_size": 16, "validation_data": kb.data.ArrayImages(images(17))},
        _TOO_SMALL,
    ),
    "a split of one validation image": (
        images,
        {"validation_split": 1 / 16, "batch_size": 5},
        _TOO_SMALL,
    ),
    "validation images of another rank": (images, {"validation_data": (images()[0],)}, "shape .batch, height"),
    "channels first": (lambda: np.moveaxis(images(), -1, 1), {}, r"channels first. Use np.moveaxis\(images, 1, -1\)"),
    "bool": (lambda: images() > 9, {}, r"of dtype bool. Use images.astype"),
    "uint16": (lambda: images(dtype="uint16"), {}, r"of dtype uint16. Use \(images / 257\)"),
    "text": (lambda: np.full((ROWS, SIZE, SIZE, 3), "a"), {}, "Images must be uint8 or float on 0 to 255"),
    "a dictionary without images": (lambda: slices({"picture": images()}), {}, r"the key \"image\".*'picture'.*map"),
    "unknown rank": (lambda: slices(images()).map(lambda x: _forget(x, None)), {}, r"unknown.*tf.ensure_shape"),
    "unknown channels": (
        lambda: slices(images()).map(lambda x: _forget(x, (None, SIZE, SIZE, None))),
        {},
        "unknown.*ensure_shape",
    ),
    "no channels": (lambda: images()[..., 0], {}, r"shape \(batch, height, width, channels\)"),
}


def _forget(x, shape):
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], x.dtype), shape)


@pytest.mark.parametrize("name", REJECTED)
def test_bad_data_is_rejected_before_training(name):
    data, arguments, message = REJECTED[name]
    model = build()
    with pytest.raises(ValueError, match=message):
        model.fit(data(), verbose=0, **arguments)
    assert int(model.batch_count) == 0


def test_the_remedies_in_the_errors_work():
    model = build()
    dataset = slices(images()).map(lambda x: _forget(x, None))
    model.fit(dataset.map(lambda x: tf.ensure_shape(x, (None, 8, 8, 3))), verbose=0)
    weighted = slices((images(), LABELS, LABELS))
    model.fit(weighted.map(lambda x, y, w: (x, y)), verbose=0)
    model.fit(np.moveaxis(np.moveaxis(images(), -1, 1), 1, -1), verbose=0)
    model.fit((images() > 9).astype("uint8") * 255, verbose=0)
    model.fit((images(dtype="uint16") * 257 / 257).round().astype("uint8"), verbose=0)
    model.fit(slices({"picture": images()}).map(lambda features: features["picture"]), verbose=0)
    model.fit(collection().take(range(8)).batches(8), verbose=0)


def test_predict_rejects_shuffled_batches():
    with pytest.raises(ValueError, match=r"returns one row per image, in order.*predict\(images\)"):
        build().predict(collection().batches(8))


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_views_that_do_not_fit_the_encoder_are_rejected(accumulation_steps):
    model = new_model(kb.views.barlow_twins(6, seed=0), accumulation_steps=accumulation_steps)
    with pytest.raises(ValueError, match=r"\(8, 8, 3\)\. Received: views of shape \(6, 6, 3\).*image_size=8"):
        model.fit(images(), batch_size=8, verbose=0)
