"""Standardization of images for encoders: default statistics, and a wrapper for backbones without it."""

import keras
import numpy as np
from keras import layers

from keras_barlow import engine, image_scale, networks
from keras_barlow.layers import Standardize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def with_standardization(backbone, mean=None, deviation=None):
    """Wraps a backbone that expects standardized images into an encoder for images on 0..255.

    Args:
        backbone: Built `keras.Model` from standardized images `(batch, height, width, channels)` to features of rank 2,
            transformer tokens of rank 3, or a feature map of rank 4. Tokens and feature maps are average-pooled.
        mean: Mean of the images on [0, 1], one float or one per channel. None uses the mean of ImageNet, averaged over
            the channels for grayscale images.
        deviation: Positive standard deviation of the images on [0, 1], one float or one per channel. None uses the
            deviation of ImageNet, averaged over the channels for grayscale images.

    Returns:
        A `keras.Model` from images on 0..255 to float32 features `(batch, features)`.

    Raises:
        ValueError: If the backbone is not built or has several inputs or outputs, or if `mean` or `deviation` is None
            and the images have neither 1 nor 3 channels.

    Example:

    >>> backbone = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(5, 3)])
    >>> with_standardization(backbone).output_shape
    (None, 5)
    """
    backbone = networks.on_images(backbone, "backbone")
    images = keras.Input(backbone.inputs[0].shape[1:], name="images")
    features = backbone(standardize_layer(mean, deviation, images.shape[-1])(images))
    if len(features.shape) == 4:
        features = layers.GlobalAveragePooling2D(dtype=engine.full_precision(), name="features")(features)
    elif len(features.shape) == 3:
        features = layers.GlobalAveragePooling1D(dtype=engine.full_precision(), name="features")(features)
    else:
        features = layers.Activation("linear", dtype=engine.full_precision(), name="features")(features)
    return image_scale.with_scale_check_in_predict(keras.Model(images, features, name=f"{backbone.name}_encoder"))


def standardize_layer(mean, deviation, channels):
    """Creates the first layer of an encoder.

    Args:
        mean: Mean of the images on [0, 1], one float or one per channel. None uses the mean of ImageNet, averaged over
            the channels for grayscale images.
        deviation: Positive standard deviation of the images on [0, 1], one float or one per channel. None uses the
            deviation of ImageNet, averaged over the channels for grayscale images.
        channels: Number of channels of the images.

    Returns:
        A `Standardize` layer.

    Raises:
        ValueError: If `mean` or `deviation` is None and the images have neither 1 nor 3 channels.
    """
    if channels not in (1, 3) and (mean is None or deviation is None):
        raise ValueError(
            f"Only grayscale and RGB images have a default mean and deviation. Received: {channels} channels with "
            f"mean={mean}, deviation={deviation}. Pass 1 or {channels} floats for both, such as mean=0.5, "
            "deviation=0.25. The statistics of your own images work best."
        )
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else np.mean(IMAGENET_MEAN)
    if deviation is None:
        deviation = IMAGENET_DEVIATION if channels == 3 else np.mean(IMAGENET_DEVIATION)
    return Standardize(mean, deviation, name="standardize")
