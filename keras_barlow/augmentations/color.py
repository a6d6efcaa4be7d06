"""Random colour jitter, grayscale and solarisation, with the arithmetic of PIL on 0..255."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.base import RandomTransform, luma, per_image, uniform

# All orders of brightness (0), contrast (1) and saturation (2); hue stands at one of four places among them.
_ORDERS = np.array(list(itertools.permutations(range(3))), "int32")
_HUE_PLACES = 4


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomColorJitter(RandomTransform):
    """Changes brightness, contrast, saturation and hue of each image by random amounts in random order.

    Brightness, contrast and saturation multiply: each blends the image with black, with its mean luma or
    with its luma, `other + factor * (image - other)`, clipped to 0..255. Hue is turned in HSV.

    Args:
        brightness: Half-width around 1 (0.4 draws factors from 0.6 to 1.4), or a pair `(low, high)`.
        contrast: The same.
        saturation: The same.
        hue: Half-width around 0 in turns (0.1 is 36 degrees either way), or a pair `(low, high)`.
        probability: With which an image is changed.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: For a negative factor, a hue beyond half a turn, or images without 3 channels.

    Example:

    >>> jitter = RandomColorJitter(0.4, 0.4, 0.2, 0.1, probability=0.8, seed=0)
    >>> jitter(np.full((2, 4, 4, 3), 100, "uint8")).shape
    TensorShape([2, 4, 4, 3])
    """

    numbers_per_image = 6

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        self.brightness = _bounds("brightness", brightness, centre=1.0)
        self.contrast = _bounds("contrast", contrast, centre=1.0)
        self.saturation = _bounds("saturation", saturation, centre=1.0)
        self.hue = _bounds("hue", hue, centre=0.0, limits=(-0.5, 0.5))

    def transformation_from(self, numbers, image_shape):
        bounds = (self.brightness, self.contrast, self.saturation)
        factors = ops.stack([uniform(numbers[:, i], *bounds[i]) for i in range(3)], axis=1)
        order = ops.cast(ops.floor(numbers[:, 4] * (len(_ORDERS) * _HUE_PLACES)), "int32")
        return {
            **super().transformation_from(numbers, image_shape),
            "factors": factors,
            "hue": uniform(numbers[:, 3], *self.hue),
            "order": ops.take(_ORDERS, order // _HUE_PLACES, axis=0),
            "hue_place": order % _HUE_PLACES,
        }

    def apply(self, images, transformation):
        # Hue is the dear one. It is computed once, between two runs through the other three, each of which
        # leaves out (by a factor of 1) what the image's own order has on the other side.
        for place in range(3):
            images = self._blend(images, transformation, place, transformation["hue_place"] > place)
        if self.hue != (0.0, 0.0):
            images = turn_hue(images, transformation["hue"])
        for place in range(3):
            images = self._blend(images, transformation, place, transformation["hue_place"] <= place)
        return images

    def _blend(self, images, transformation, place, active):
        chosen = ops.one_hot(transformation["order"][:, place], 3)
        factor = ops.where(active, ops.sum(chosen * transformation["factors"], axis=1), 1.0)
        grey = luma(images)
        mean = ops.mean(grey, axis=(1, 2, 3), keepdims=True)
        other = per_image(chosen[:, 1]) * mean + per_image(chosen[:, 2]) * grey
        return ops.clip(images + per_image(1.0 - factor) * (other - images), 0.0, 255.0)

    def get_config(self):
        return {
            **super().get_config(),
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }


def turn_hue(images, turns):
    """Turns the hue of RGB images in HSV, keeping saturation and value.

    Args:
        images: Float tensor `(batch, height, width, 3)` on 0..255.
        turns: `(batch,)`, in turns of the colour circle.

    Returns:
        Tensor of the shape of `images`.
    """
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value = ops.maximum(ops.maximum(red, green), blue)
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    divisor = ops.where(chroma > 0, chroma, 1.0)
    sextant = ops.where(
        value == red,
        (green - blue) / divisor,
        ops.where(value == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    sextant = sextant + 6.0 * turns[:, None, None]
    # Channel n of HSV to RGB: value - chroma * clip(min(k, 4 - k), 0, 1), with k = (n + hue) mod 6.
    places = [ops.mod(offset + sextant, 6.0) for offset in (5.0, 3.0, 1.0)]
    return ops.stack([value - chroma * ops.clip(ops.minimum(k, 4.0 - k), 0.0, 1.0) for k in places], axis=-1)


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomGrayscale(RandomTransform):
    """Replaces each image by its luma, in all three channels, with some probability.

    Args:
        probability: With which an image turns grey.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Example:

    >>> grey = RandomGrayscale(probability=1.0)(np.array([[[[255.0, 0.0, 0.0]]]]))
    >>> [round(float(channel), 3) for channel in grey[0, 0, 0]]
    [76.245, 76.245, 76.245]
    """

    numbers_per_image = 1

    def __init__(self, probability=0.2, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)

    def apply(self, images, transformation):
        return ops.broadcast_to(luma(images), ops.shape(images))


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomSolarization(RandomTransform):
    """Inverts the pixels at or above a threshold, `255 - x`, with some probability.

    Args:
        threshold: On 0..255.
        probability: With which an image is solarised.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Example:

    >>> np.asarray(RandomSolarization(probability=1.0)(np.array([[[[127.0, 128.0, 200.0]]]]))).ravel().tolist()
    [127.0, 127.0, 55.0]
    """

    numbers_per_image = 1

    def __init__(self, threshold=128, probability=0.2, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        self.threshold = threshold

    def apply(self, images, transformation):
        return ops.where(images < self.threshold, images, 255.0 - images)

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


def _bounds(name, strength, centre, limits=(0.0, float("inf"))):
    """`(low, high)` from a half-width around `centre`, cut at the lower limit, or from the pair itself."""
    if isinstance(strength, (int, float)):
        low, high = max(centre - strength, limits[0]), centre + strength
    else:
        low, high = map(float, strength)
    if not limits[0] <= low <= high <= limits[1]:
        raise ValueError(
            f"`{name}` must be a half-width around {centre} or a pair (low, high) within {limits}. "
            f"Received: {name}={strength}"
        )
    return low, high
