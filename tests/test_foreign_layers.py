"""Layers of Keras and keras-cv in `Views`: two training steps with each."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import shared
from tests.test_augmentations import photos

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras_cv


def keras_layers():
    """One list of Keras layers for both views."""
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomColorJitter((0, 255), 0.4, 0.4, 0.2, 0.1),
        keras.layers.RandomGrayscale(0.2),
        keras.layers.RandomGaussianBlur(0.5, 3, (0.1, 2.0), value_range=(0, 255)),
        keras.layers.Resizing(24, 24),
    ]


def keras_pipeline():
    """Keras' policies, which contain other layers."""
    layers = keras.layers
    return [
        layers.RandAugment((0, 255), num_ops=2, factor=0.3),
        layers.Pipeline([layers.RandomFlip("horizontal"), layers.RandomBrightness(0.2, (0, 255))]),
        layers.Resizing(24, 24),
    ]


def keras_cv_pipeline():
    cv = keras_cv.layers
    return [
        cv.RandAugment((0, 255), augmentations_per_image=1, magnitude=0.2, geometric=False),
        cv.RandomAugmentationPipeline([cv.Grayscale(output_channels=3), cv.Solarization((0, 255))], 1, rate=0.5),
        cv.Resizing(24, 24),
    ]


def twice(make):
    return lambda: kb.views.Views(make(), make(), seed=0)


POLICIES = {
    "keras": twice(keras_layers),
    "keras_pipeline": twice(keras_pipeline),
    "keras_cv": lambda: kb.views.keras_cv_barlow_twins(24),
    "keras_cv_pipeline": twice(keras_cv_pipeline),
    "mixed": twice(
        lambda: [
            kb.augmentations.RandomResizedCrop(24, 24),
            *kb.views.keras_cv_barlow_twins(24).layers_a[1:3],
            keras.layers.RandomFlip("horizontal"),
        ]
    ),
}


@pytest.fixture(params=POLICIES)
def views(request):
    return POLICIES[request.param]()


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
    assert not views.supports_jit
    assert np.asarray(view_a).min() >= 0 and 100 < np.asarray(view_a).max() <= 255.01


@pytest.mark.parametrize("views", shared.few(POLICIES, "keras_cv", "mixed"), indirect=True)
def test_two_steps_in_the_model(views):
    history = model_with(views).fit(images(), batch_size=4, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("views", ["keras", "keras_cv"], indirect=True)
def test_two_steps_from_tf_data(views):
    dataset = tf.data.Dataset.from_tensor_slices(images()).batch(4, drop_remainder=True)
    pairs = dataset.map(lambda batch: (views(batch, training=True),))
    history = model_with(None).fit(pairs, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_the_keras_cv_policy_has_the_strengths_of_the_paper():
    """keras-cv scales saturation and hue differently: 0.2 and 0.1 would remove most of the color."""
    jitter = kb.views.keras_cv_barlow_twins(24).layers_a[2]
    image = np.full((512, 4, 4, 3), (200, 100, 50), "float32")
    for layer, (low, high), measure in (
        (jitter._layer.random_saturation, (0.8, 1.2), lambda hsv: hsv[:, 1] / 0.75),
        (jitter._layer.random_hue, (-0.1, 0.1), lambda hsv: hsv[:, 0] - 1 / 18),
    ):
        hsv = np.asarray(tf.image.rgb_to_hsv(np.asarray(layer(image))[:, 0, 0] / 255.0))
        measured = (measure(hsv) + 0.5) % 1 - 0.5 if low < 0 else measure(hsv)
        assert low - 0.01 < measured.min() < low + 0.03 and high - 0.03 < measured.max() < high + 0.01
