"""Keras' own and keras-cv's layers in `Views`, as they are: two training steps with each."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests.test_augmentations import photos

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras_cv


def keras_layers():
    """One list for both views, of what Keras has."""
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomColorJitter((0, 255), 0.4, 0.4, 0.2, 0.1),
        keras.layers.RandomGrayscale(0.2),
        keras.layers.RandomGaussianBlur(0.5, 3, (0.1, 2.0), value_range=(0, 255)),
        keras.layers.Resizing(24, 24),
    ]


def keras_cv_layers():
    """The README's policy."""
    cv = keras_cv.layers
    return [
        cv.RandomCropAndResize((24, 24), crop_area_factor=(0.08, 1.0), aspect_ratio_factor=(3 / 4, 4 / 3)),
        cv.RandomFlip("horizontal"),
        cv.RandomApply(cv.RandomColorJitter((0, 255), 0.4, 0.4, 0.2, 0.1), rate=0.8),
        cv.RandomApply(cv.Grayscale(output_channels=3), rate=0.2),
        cv.RandomApply(cv.RandomGaussianBlur(kernel_size=3, factor=(0.1, 2.0)), rate=0.5),
        cv.RandomApply(cv.Solarization((0, 255), threshold_factor=(128, 128)), rate=0.2),
    ]


POLICIES = {
    "keras": keras_layers,
    "keras_cv": keras_cv_layers,
    "mixed": lambda: [kb.augmentations.RandomResizedCrop(24, 24), *keras_cv_layers()[1:3], *keras_layers()[:1]],
}


@pytest.fixture(params=POLICIES)
def views(request):
    return kb.views.Views(POLICIES[request.param](), POLICIES[request.param](), seed=0)


def model_with(views):
    encoder = kb.encoders.resnet((1,), input_shape=(24, 24, 3), stem="small", width=4)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), views)
    model.compile("sgd")
    return model


def images(count=8):
    return np.concatenate([photos(), photos()])[:count].astype("uint8")


def test_views_are_two_and_random(views):
    view_a, view_b = views(images())
    assert view_a.shape == view_b.shape == (8, 24, 24, 3)
    assert np.abs(np.asarray(view_a) - view_b).mean() > 1
    assert np.asarray(view_a).min() >= 0 and 100 < np.asarray(view_a).max() <= 255.01


def test_two_steps_in_the_model(views):
    history = model_with(views).fit(images(), batch_size=4, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_two_steps_from_tf_data(views):
    dataset = tf.data.Dataset.from_tensor_slices(images()).batch(4, drop_remainder=True)
    pairs = dataset.map(lambda batch: (views(batch, training=True),))
    history = model_with(None).fit(pairs, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
