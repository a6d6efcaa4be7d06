"""Random color jitter, grayscale and solarization, with the arithmetic of PIL on 0..255."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_barlow import engine
from keras_barlow.augmentations.fusion import fused
from keras_barlow.augmentations.transform import RandomTransform, per_image, uniform

# All orders of brightness (0), contrast (1) and saturation (2). Hue is inserted at one of four positions.
_ORDERS = np.array(list(itertools.permutations(range(3))), "int32")
_HUE_POSITIONS = 4


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomColorJitter(RandomTransform):
    """Changes the brightness, contrast, saturation and hue of each image by random amounts in random order.

    Brightness, contrast and saturation blend the image with black, with its mean luma and with its luma:
    `other + factor * (image - other)`, clipped to 0..255. Hue is shifted in HSV.

    Args:
        brightness: Half-width of the factor around 1 (0.4 draws factors from 0.6 to 1.4), or a pair `(low, high)`.
        contrast: Half-width of the factor around 1, or a pair `(low, high)`.
        saturation: Half-width of the factor around 1, or a pair `(low, high)`.
        hue: Half-width of the shift around 0, in turns (0.1 is up to 36 degrees), or a pair `(low, high)`.
        probability: Probability of changing an image.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If a factor is negative, the hue is shifted by more than half a turn, or images do not have 3
            channels.

    Example:

    >>> jitter = RandomColorJitter(0.4, 0.4, 0.2, 0.1, probability=0.8, seed=0)
    >>> jitter(np.full((2, 4, 4, 3), 100, "uint8")).shape
    TensorShape([2, 4, 4, 3])
    """

    numbers_per_image = 6

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        self.brightness = _bounds("brightness", brightness, center=1.0)
        self.contrast = _bounds("contrast", contrast, center=1.0)
        self.saturation = _bounds("saturation", saturation, center=1.0)
        self.hue = _bounds("hue", hue, center=0.0, limits=(-0.5, 0.5))

    def transformation_from(self, numbers, image_shape):
        bounds = (self.brightness, self.contrast, self.saturation)
        factors = ops.stack([uniform(numbers[:, i], *bounds[i]) for i in range(3)], axis=1)
        order = ops.cast(ops.floor(numbers[:, 4] * (len(_ORDERS) * _HUE_POSITIONS)), "int32")
        return {
            **super().transformation_from(numbers, image_shape),
            "factors": factors,
            "hue": uniform(numbers[:, 3], *self.hue),
            "order": ops.take(_ORDERS, order // _HUE_POSITIONS, axis=0),
            "hue_position": order % _HUE_POSITIONS,
        }

    def apply(self, planes, transformation):
        # Contrast needs the mean of the result so far, so the operations before and after it are two kernels.
        check_rgb(planes)
        first, second = _halves(*(transformation[name] for name in ("factors", "hue", "order", "hue_position")))
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
    """Checks that images have 3 channels.

    Args:
        planes: Tensor `(batch, height, channels, width)`.

    Raises:
        ValueError: If the number of channels is not 3.
    """
    if planes.shape[2] != 3:
        raise ValueError(
            "Color transforms need RGB images, with 3 channels. "
            f"Received: {planes.shape[2]} channels. Repeat a grayscale channel 3 times, or use views without color "
            "transforms (views.multi_channel)."
        )


def luma(planes):
    """Computes the ITU-R 601 luma, as PIL's mode `L`: `(batch, height, 3, width)` to `(batch, height, 1, width)`."""
    red, green, blue = _channels(planes)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def shift_hue(planes, turns):
    """Shifts the hue of RGB images in HSV, keeping saturation and value.

    Args:
        planes: Float tensor `(batch, height, 3, width)` on 0..255.
        turns: Float tensor `(batch,)` of shifts in turns of the color circle, from -0.5 to 0.5.

    Returns:
        Tensor of the shape of `planes`.
    """
    red, green, blue = _channels(planes)
    value = ops.maximum(ops.maximum(red, green), blue)
    least = ops.minimum(ops.minimum(red, green), blue)
    chroma = value - least
    scale = 1.0 / ops.where(chroma > 0.0, chroma, 1.0)
    # Hue on [0, 6): red is 0, green is 2, blue is 4.
    hue = ops.where(
        value == red,
        (green - blue) * scale,
        ops.where(value == green, 2.0 + (blue - red) * scale, 4.0 + (red - green) * scale),
    )
    hue = hue + 6.0 * per_image(turns)
    hue = ops.where(hue < 0.0, hue + 6.0, hue)
    hue = ops.where(hue >= 6.0, hue - 6.0, hue)
    # HSV to RGB, all channels in one expression: red is |hue - 3| - 1, green 2 - |hue - 2|, blue 2 - |hue - 4|.
    vertex, sign, offset = (np.array(row, "float32")[:, None] for row in ((3, 2, 4), (1, -1, -1), (-1, 2, 2)))
    return least + chroma * ops.clip(offset + sign * ops.abs(hue - vertex), 0.0, 1.0)


def _channels(planes):
    return planes[:, :, 0:1], planes[:, :, 1:2], planes[:, :, 2:3]


def _blend(planes, other, factor):
    """Computes `other + factor * (planes - other)`, clipped to 0..255."""
    return ops.clip(planes + per_image(1.0 - factor) * (other - planes), 0.0, 255.0)


def _blends(planes, factors, uses_luma):
    """Brightness and saturation in either order: two blends, with the luma where `uses_luma` is 1, else with black."""
    for position in range(2):
        planes = _blend(planes, per_image(uses_luma[:, position]) * luma(planes), factors[:, position])
    return planes


def _half(planes, factors, uses_luma, turns):
    planes = _blends(planes, factors[:, 0], uses_luma)
    return _blends(shift_hue(planes, turns), factors[:, 1], uses_luma)


@fused
def _first_half(planes, chosen, *half):
    """The operations before contrast."""
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen), _half(planes, *half), planes)


@fused
def _mean_luma(planes):
    # Sums integers, in fixed point with as many bits as int32 allows. A float sum would depend on the order that XLA
    # chooses, which depends on the number of images, and so on the number of replicas.
    pixels = ops.cast(ops.shape(planes)[1] * ops.shape(planes)[3], "float32")
    resolution = 2.0 ** ops.floor(ops.log2(2.0**23 / pixels))
    totals = ops.sum(ops.cast(ops.round(resolution * planes), "int32"), axis=(1, 3), keepdims=True)
    # In float64, whose last bits may differ between programs, and rounded to float32.
    wide = engine.widest_float()
    return ops.cast(luma(ops.cast(totals, wide)) / ops.cast(resolution * pixels, wide), "float32")


@fused
def _second_half(planes, chosen, mean, contrast, *half):
    """Contrast and the operations after it."""
    return ops.where(per_image(chosen), _half(_blend(planes, mean, contrast), *half), planes)


@fused
def _halves(factors, hue, order, hue_position):
    """Divides the operations into those before and those after contrast, and each half by hue.

    Returns:
        For each half: the factors `(batch, before or after hue, position)`; floats `(batch, position)` that are 1 where
        the operation is saturation and 0 where it is brightness; and the shift of hue `(batch,)`. Operations of the
        other half have the factor 1 or the shift 0.
    """
    positions = [ops.argmax(ops.cast(order == operation, "int32"), axis=1) for operation in range(3)]
    brightness, contrast, saturation = (ops.cast(position, "int32") for position in positions)
    saturation_first = saturation < brightness
    pair = ops.stack([ops.minimum(brightness, saturation), ops.maximum(brightness, saturation)], axis=1)
    is_saturation = ops.stack([saturation_first, ops.logical_not(saturation_first)], axis=1)
    pair_factors = ops.where(is_saturation, factors[:, 2:3], factors[:, 0:1])
    after_hue = pair >= hue_position[:, None]
    after_contrast = pair > contrast[:, None]
    hue_after_contrast = contrast < hue_position
    halves = []
    for second in (False, True):
        in_half = after_contrast == second
        by_hue = [ops.where(in_half & (after_hue == after), pair_factors, 1.0) for after in (False, True)]
        turns = ops.where(hue_after_contrast == second, hue, 0.0)
        halves.append((ops.stack(by_hue, axis=1), ops.cast(is_saturation, "float32"), turns))
    return halves


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomGrayscale(RandomTransform):
    """Randomly converts images to grayscale: the luma in all three channels.

    Args:
        probability: Probability of converting an image.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> gray = RandomGrayscale(probability=1.0)(np.array([[[[255.0, 0.0, 0.0]]]]))
    >>> [round(float(channel), 3) for channel in gray[0, 0, 0]]
    [76.245, 76.245, 76.245]
    """

    numbers_per_image = 1

    def __init__(self, probability=0.2, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)

    def apply(self, planes, transformation):
        check_rgb(planes)
        return _to_grayscale(planes, transformation["chosen"])


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomSolarization(RandomTransform):
    """Randomly solarizes images: inverts the pixels at or above a threshold, `255 - x`.

    Args:
        threshold: Threshold on 0..255.
        probability: Probability of solarizing an image.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

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
def _to_grayscale(planes, chosen):
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen), luma(planes), planes)


@fused
def _solarize(planes, chosen, *, threshold):
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen) & (planes >= threshold), 255.0 - planes, planes)


def _bounds(name, strength, center, limits=(0.0, float("inf"))):
    """Makes `(low, high)` from a pair, or from a half-width around `center`, clipped at the lower limit."""
    if isinstance(strength, (int, float)):
        low, high = max(center - strength, limits[0]), center + strength
    else:
        low, high = map(float, strength)
    if not limits[0] <= low <= high <= limits[1]:
        raise ValueError(
            f"`{name}` must be a half-width around {center} or a pair (low, high) within {limits}. "
            f"Received: {name}={strength}. Use a smaller half-width, or a pair in ascending order."
        )
    return low, high
