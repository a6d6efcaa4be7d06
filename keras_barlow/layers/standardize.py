"""Standardization of images, the first layer of all encoders in this package."""

import keras
import numpy as np
from keras import ops

from keras_barlow import engine, image_scale


@keras.saving.register_keras_serializable(package="keras_barlow")
class Standardize(keras.layers.Layer):
    """Standardizes images on 0..255 per channel: `(x - 255 mean) / (255 deviation)`.

    As the first layer of the encoder, it fixes the image scale for training, `predict` and the export. It computes in
    float32 even under a mixed policy, because bfloat16 would round 254.6 to 255.

    Args:
        mean: Mean of the images on [0, 1], one float or one per channel.
        deviation: Positive standard deviation of the images on [0, 1], one float or one per channel.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(..., channels)` on 0..255.

    Returns:
        Tensor of the same shape in the layer's compute dtype.

    Raises:
        ValueError: If a deviation is not positive, or `mean` or `deviation` does not match the number of channels.

    Example:

    >>> layer = Standardize(mean=0.5, deviation=0.25)
    >>> np.asarray(layer(np.full((1, 1, 1, 3), 255.0))).tolist()
    [[[[2.0, 2.0, 2.0]]]]
    """

    def __init__(self, mean, deviation, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.mean = tuple(np.atleast_1d(mean).astype(float).tolist())
        self.deviation = tuple(np.atleast_1d(deviation).astype(float).tolist())
        if not min(self.deviation) > 0:
            raise ValueError(f"`deviation` must be positive. Received: deviation={deviation}")

    def build(self, input_shape):
        channels = input_shape[-1]
        for name in ("mean", "deviation"):
            count = len(getattr(self, name))
            if channels is not None and count not in (1, channels):
                raise ValueError(
                    f"`{name}` must be one number, or one per channel of images (..., channels). Received: {count} for "
                    f"{channels} channels. Pass 1 or {channels} numbers, or use channels-last images."
                )

    def call(self, images):
        image_scale.warn_about_scale(images)
        dtype = engine.full_precision(self.compute_dtype)
        images = ops.cast(images, dtype)
        mean = 255.0 * np.array(self.mean, dtype)
        deviation = 255.0 * np.array(self.deviation, dtype)
        return ops.cast((images - mean) / deviation, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "deviation": self.deviation}
