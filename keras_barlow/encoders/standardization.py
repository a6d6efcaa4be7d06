"""Image standardization for encoders: the statistics, the layer, and its place in front of a backbone."""

import keras
import numpy as np
from keras import layers

from keras_barlow import image_scale, networks
from keras_barlow.layers import Standardize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def with_standardization(backbone, mean=None, deviation=None):
    """Puts `Standardize` before a backbone that expects standardised images.

    Args:
        backbone: Built `keras.Model` from standardised images `(batch, H, W, channels)` to features of rank
            2, to a feature map of rank 4, or to the tokens of a transformer of rank 3; the latter two are averaged over
            their places.
        mean: One float, or one per channel, on [0, 1]; None for ImageNet's, of which gray images take the average.
        deviation: Positive, as `mean`.

    Returns:
        A `keras.Model` from images on 0..255 to float32 features `(batch, features)`.

    Raises:
        ValueError: If the backbone is not built, has several inputs or outputs, or has neither 1 nor 3 channels and no
            mean and deviation are given.

    Example:

    >>> backbone = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(5, 3)])
    >>> with_standardization(backbone).output_shape
    (None, 5)
    """
    backbone = networks.on_images(backbone, "backbone")
    images = keras.Input(backbone.inputs[0].shape[1:], name="images")
    features = backbone(standardize_layer(mean, deviation, images.shape[-1])(images))
    if len(features.shape) == 4:
        features = layers.GlobalAveragePooling2D(dtype="float32", name="features")(features)
    elif len(features.shape) == 3:
        features = layers.GlobalAveragePooling1D(dtype="float32", name="features")(features)
    else:
        features = layers.Activation("linear", dtype="float32", name="features")(features)
    return image_scale.telling_model(keras.Model(images, features, name=f"{backbone.name}_encoder"))


def standardize_layer(mean, deviation, channels):
    """The first layer of an encoder.

    Args:
        mean: One float, or one per channel, on [0, 1]; None for ImageNet's, averaged for grayscale images.
        deviation: Positive, as `mean`.
        channels: Number of channels of the images.

    Returns:
        A `layers.Standardize`.

    Raises:
        ValueError: If there are neither 1 nor 3 channels and no mean and deviation.
    """
    if channels not in (1, 3) and (mean is None or deviation is None):
        raise ValueError(
            f"Only gray and RGB images have a default mean and deviation. Received: {channels} channels with "
            f"mean={mean}, deviation={deviation}. Pass one float or {channels}, such as mean=0.5, deviation=0.25; "
            "those of your images are best."
        )
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else np.mean(IMAGENET_MEAN)
    if deviation is None:
        deviation = IMAGENET_DEVIATION if channels == 3 else np.mean(IMAGENET_DEVIATION)
    return Standardize(mean, deviation, name="standardize")
