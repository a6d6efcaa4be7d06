"""Random Gaussian blur."""

import math

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.base import RandomTransform, uniform
from keras_barlow.augmentations.resampling import resample


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomGaussianBlur(RandomTransform):
    """Blurs each image with a Gaussian of random width.

    The exact, normalised Gaussian out to four deviations, with the border pixels repeated outwards; two
    products with a banded matrix per image.

    Args:
        sigma: `(low, high)`: deviation in pixels, drawn uniformly.
        probability: With which an image is blurred.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: If `sigma` is no increasing pair of positive numbers.

    Example:

    >>> blurred = RandomGaussianBlur(sigma=(1.0, 1.0), probability=1.0)(np.eye(9)[None, :, :, None])
    >>> 0.2 < float(blurred[0, 4, 4, 0]) < 0.3
    True
    """

    numbers_per_image = 2

    def __init__(self, sigma=(0.1, 2.0), probability=0.5, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        low, high = map(float, sigma)
        if not 0 < low <= high:
            raise ValueError(f"`sigma` must be a pair (low, high) with 0 < low <= high. Received: sigma={sigma}")
        self.sigma = (low, high)

    def transformation_from(self, numbers, image_shape):
        return {
            **super().transformation_from(numbers, image_shape),
            "sigma": uniform(numbers[:, 0], *self.sigma),
        }

    def apply(self, images, transformation):
        rows, columns = (self._matrices(transformation["sigma"], size) for size in images.shape[1:3])
        return resample(images, rows, columns)

    def _matrices(self, sigma, size):
        """One `(size, size)` blurring matrix per image: its taps, each at the pixel it reads."""
        radius = math.ceil(4 * self.sigma[1])
        offsets = np.arange(-radius, radius + 1)
        taps = ops.exp(-0.5 * ops.square(offsets.astype("float32") / sigma[:, None]))
        taps = taps / ops.sum(taps, axis=1, keepdims=True)
        reads = np.clip(np.arange(size)[None, :] + offsets[:, None], 0, size - 1)
        places = np.zeros((len(offsets), size, size), "float32")
        np.put_along_axis(places, reads[:, :, None], 1.0, axis=2)
        matrices = ops.matmul(taps, places.reshape(len(offsets), -1))
        return ops.reshape(matrices, (-1, size, size))

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}
