"""Random Gaussian blur."""

import math

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.fusion import fused
from keras_barlow.augmentations.resampling import Taps, resample
from keras_barlow.augmentations.sparse import apply_to_selected
from keras_barlow.augmentations.transform import RandomTransform, uniform


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomGaussianBlur(RandomTransform):
    """Blurs each image with a Gaussian of random width.

    The kernel is the exact, normalized Gaussian up to four standard deviations; pixels beyond the border repeat the
    border. If the probability is low, only the selected images are processed.

    Args:
        sigma: `(low, high)`, range of the standard deviation in pixels, drawn uniformly.
        probability: Probability of blurring an image.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `sigma` is not an increasing pair of positive numbers.

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
            raise ValueError(
                f"`sigma` must be a pair (low, high) with 0 < low <= high. Received: sigma={sigma}. Use such a pair, "
                "and probability=0 to disable the blur."
            )
        self.sigma = (low, high)

    def transformation_from(self, numbers, image_shape):
        return {
            **super().transformation_from(numbers, image_shape),
            "sigma": uniform(numbers[:, 0], *self.sigma),
        }

    def apply(self, planes, transformation):
        return apply_to_selected(self._blur, planes, transformation, self.probability)

    def _blur(self, planes, transformation):
        weights = _gaussian_weights(transformation["sigma"], transformation["chosen"], radius=self._radius)
        rows, columns = (Taps(weights, self._reads(size)) for size in (planes.shape[1], planes.shape[3]))
        return resample(planes, rows, columns)

    @property
    def _radius(self):
        return math.ceil(4 * self.sigma[1])

    def _reads(self, size):
        """The pixel under each tap; beyond the border, the nearest border pixel."""
        taps = np.arange(-self._radius, self._radius + 1)
        return np.clip(np.arange(size)[:, None] + taps, 0, size - 1)[None].astype("int32")

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


@fused
def _gaussian_weights(sigma, chosen, *, radius):
    """Normalized Gaussian taps `(batch, 1, 2 * radius + 1)`; the identity for images that are not selected."""
    taps = np.arange(-radius, radius + 1).astype("float32")
    weights = ops.exp(-0.5 * ops.square(taps / sigma[:, None]))
    weights = weights / ops.sum(weights, axis=1, keepdims=True)
    return ops.where(chosen[:, None], weights, ops.cast(taps == 0, "float32"))[:, None]
