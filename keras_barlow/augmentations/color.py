"""Random colour jitter, grayscale and solarisation, with the arithmetic of PIL on 0..255."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.fusion import fused
from keras_barlow.augmentations.transform import RandomTransform, per_image, uniform

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

    def apply(self, planes, transformation):
        # Contrast needs the mean of all that comes before it, so there is a half before it and a half after it.
        check_rgb(planes)
        first, second = _halves(*(transformation[name] for name in ("factors", "hue", "order", "hue_place")))
        chosen = transformation["chosen"]
        planes = _first_half(planes, chosen, *first)
        return _second_half(planes, chosen, _mean_luma(planes), transformation["factors"][:, 1], *second)

    def get_config(self):
        return {
            **super().get_config(),
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }


def check_rgb(planes):
    """Raises ValueError if planes `(batch, height, channels, width)` have not 3 channels."""
    if planes.shape[2] != 3:
        raise ValueError(
            "Colour transforms need RGB images, with 3 channels. "
            f"Received: {planes.shape[2]} channels. Repeat a grey channel 3 times, or leave colour out "
            "(views.multi_channel does)."
        )


def luma(planes):
    """ITU-R 601 luma, as PIL converts to `L`: `(batch, height, 3, width)` to `(batch, height, 1, width)`."""
    red, green, blue = _channels(planes)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def turn_hue(planes, turns):
    """Turns the hue of RGB images in HSV, keeping saturation and value.

    Args:
        planes: Float tensor `(batch, height, 3, width)` on 0..255.
        turns: `(batch,)`, in turns of the colour circle, from -0.5 to 0.5.

    Returns:
        Tensor of the shape of `planes`.
    """
    red, green, blue = _channels(planes)
    value = ops.maximum(ops.maximum(red, green), blue)
    least = ops.minimum(ops.minimum(red, green), blue)
    chroma = value - least
    share = 1.0 / ops.where(chroma > 0.0, chroma, 1.0)
    # The hue from red at 0 over green at 2 and blue at 4 to red at 6.
    hue = ops.where(
        value == red,
        (green - blue) * share,
        ops.where(value == green, 2.0 + (blue - red) * share, 4.0 + (red - green) * share),
    )
    hue = hue + 6.0 * per_image(turns)
    hue = ops.where(hue < 0.0, hue + 6.0, hue)
    hue = ops.where(hue >= 6.0, hue - 6.0, hue)
    # HSV to RGB, all channels in one expression: red is |hue - 3| - 1, green 2 - |hue - 2|, blue 2 - |hue - 4|.
    bend, sign, offset = (np.array(row, "float32")[:, None] for row in ((3, 2, 4), (1, -1, -1), (-1, 2, 2)))
    return least + chroma * ops.clip(offset + sign * ops.abs(hue - bend), 0.0, 1.0)


def _channels(planes):
    return planes[:, :, 0:1], planes[:, :, 1:2], planes[:, :, 2:3]


def _blend(planes, other, factor):
    """`other + factor * (planes - other)`, clipped to 0..255."""
    return ops.clip(planes + per_image(1.0 - factor) * (other - planes), 0.0, 255.0)


def _blends(planes, factors, greys):
    """Brightness and saturation in either order: two blends, with black, or with the luma where `greys` is 1."""
    for place in range(2):
        planes = _blend(planes, per_image(greys[:, place]) * luma(planes), factors[:, place])
    return planes


def _half(planes, factors, greys, turns):
    planes = _blends(planes, factors[:, 0], greys)
    return _blends(turn_hue(planes, turns), factors[:, 1], greys)


@fused
def _first_half(planes, chosen, *half):
    """What comes before contrast."""
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen), _half(planes, *half), planes)


@fused
def _mean_luma(planes):
    # As whole numbers, as fine as a sum below 2^31 allows: a sum of floats depends on its order, which XLA chooses by
    # the number of images, and so on how many replicas a batch is divided over.
    pixels = ops.cast(ops.shape(planes)[1] * ops.shape(planes)[3], "float32")
    parts = 2.0 ** ops.floor(ops.log2(2.0**23 / pixels))
    totals = ops.sum(ops.cast(ops.round(parts * planes), "int32"), axis=(1, 3), keepdims=True)
    # Twice the digits, of which the last may differ, and then half of them.
    return ops.cast(luma(ops.cast(totals, "float64")) / ops.cast(parts * pixels, "float64"), "float32")


@fused
def _second_half(planes, chosen, mean, contrast, *half):
    """Contrast and what comes after it."""
    return ops.where(per_image(chosen), _half(_blend(planes, mean, contrast), *half), planes)


@fused
def _halves(factors, hue, order, hue_place):
    """Sorts the drawn operations by whether they come before or after contrast, and before or after hue.

    Returns:
        For each of the two halves the factors `(batch, before or after hue, place)`, the booleans `(batch, place)` of
        which place is saturation, and the turns of hue `(batch,)`. An operation that belongs elsewhere has the factor
        1, or no turn.
    """
    place_of = [ops.argmax(ops.cast(order == operation, "int32"), axis=1) for operation in range(3)]
    brightness, contrast, saturation = (ops.cast(place, "int32") for place in place_of)
    saturation_first = saturation < brightness
    places = ops.stack([ops.minimum(brightness, saturation), ops.maximum(brightness, saturation)], axis=1)
    greys = ops.stack([saturation_first, ops.logical_not(saturation_first)], axis=1)
    drawn = ops.where(greys, factors[:, 2:3], factors[:, 0:1])
    after_hue = places >= hue_place[:, None]
    after_contrast = places > contrast[:, None]
    hue_after_contrast = contrast < hue_place
    halves = []
    for second in (False, True):
        here = after_contrast == second
        moments = [ops.where(here & (after_hue == after), drawn, 1.0) for after in (False, True)]
        turns = ops.where(hue_after_contrast == second, hue, 0.0)
        halves.append((ops.stack(moments, axis=1), ops.cast(greys, "float32"), turns))
    return halves


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

    def apply(self, planes, transformation):
        check_rgb(planes)
        return _turn_grey(planes, transformation["chosen"])


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

    def apply(self, planes, transformation):
        return _solarize(planes, transformation["chosen"], threshold=float(self.threshold))

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


@fused
def _turn_grey(planes, chosen):
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen), luma(planes), planes)


@fused
def _solarize(planes, chosen, *, threshold):
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen) & (planes >= threshold), 255.0 - planes, planes)


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
