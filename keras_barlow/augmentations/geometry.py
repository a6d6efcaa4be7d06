"""Random resized crops and horizontal flips."""

import math

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.fusion import fused
from keras_barlow.augmentations.resampling import Taps, resample
from keras_barlow.augmentations.transform import RandomTransform, per_image, uniform

_ATTEMPTS = 10


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomResizedCrop(RandomTransform):
    """Crops a random box from each image and resizes it, bicubic with antialiasing, as PIL does.

    Boxes are drawn as in torchvision: ten attempts with an area uniform in `scale` and an aspect ratio log-uniform in
    `ratio`, rounded to whole pixels. The first box that fits is used, or else the largest central crop with an allowed
    ratio. Each pixel is a weighted sum along one axis and then the other, so all shapes are static.

    Args:
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        scale: `(low, high)`, range of the fraction of the image's area that is kept, in (0, 1].
        ratio: `(low, high)`, range of the aspect ratio of the box, width / height.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: Tensor `(batch, H, W, channels)` on 0..255 with static `H` and `W`.
        training: Python boolean. False resizes the whole image.

    Returns:
        Float32 tensor `(batch, height, width, channels)` on 0..255.

    Raises:
        ValueError: If `scale` or `ratio` is not an increasing pair of positive numbers, or the scale exceeds 1.

    Example:

    >>> RandomResizedCrop(24, 24, seed=0)(np.zeros((2, 32, 40, 3), "uint8")).shape
    TensorShape([2, 24, 24, 3])
    """

    numbers_per_image = 2 * _ATTEMPTS + 2

    def __init__(self, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=None, **kwargs):
        super().__init__(seed=seed, **kwargs)
        self.height = int(height)
        self.width = int(width)
        self.scale = _increasing_pair("scale", scale)
        self.ratio = _increasing_pair("ratio", ratio)
        if self.scale[1] > 1:
            raise ValueError(
                f"`scale` is a fraction of the image's area, at most 1. Received: scale={scale}. Use values in (0, 1]."
            )

    def transformation_from(self, numbers, image_shape):
        height, width = _static_size(image_shape)
        return random_boxes(numbers, height, width, scale=self.scale, ratio=self.ratio)

    def transform_planes(self, planes, transformation, training=True):
        if not training:
            _, height, _, width = planes.shape
            ones = ops.ones((ops.shape(planes)[0],), "float32")
            transformation = {"top": 0 * ones, "left": 0 * ones, "height": height * ones, "width": width * ones}
        return self.apply(planes, transformation)

    def apply(self, planes, transformation):
        height, width = _static_size((planes.shape[0], planes.shape[1], planes.shape[3]))
        rows = _cubic_taps(transformation["top"], transformation["height"], size=height, target=self.height)
        columns = _cubic_taps(transformation["left"], transformation["width"], size=width, target=self.width)
        return resample(planes, Taps(*rows), Taps(*columns))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], self.height, self.width, input_shape[-1])

    def get_config(self):
        config = super().get_config()
        del config["probability"]
        return {**config, "height": self.height, "width": self.width, "scale": self.scale, "ratio": self.ratio}


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomFlip(RandomTransform):
    """Randomly flips images horizontally.

    Args:
        probability: Probability of flipping an image.
        seed: Integer seed of the layer's own generator, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> image = np.arange(3.0).reshape(1, 1, 3, 1)
    >>> np.asarray(RandomFlip(probability=1.0)(image)).ravel().tolist()
    [2.0, 1.0, 0.0]
    """

    numbers_per_image = 1

    def __init__(self, probability=0.5, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)

    def apply(self, planes, transformation):
        return _flip(planes, transformation["chosen"])


@fused
def random_boxes(numbers, image_height, image_width, *, scale, ratio):
    """Draws one box per image, as torchvision does.

    Args:
        numbers: Uniform random numbers in [0, 1), `(batch, RandomResizedCrop.numbers_per_image)`.
        image_height: Height of the images in pixels, an integer or a float tensor `(batch,)`.
        image_width: Width of the images in pixels, an integer or a float tensor `(batch,)`.
        scale: `(low, high)`, range of the fraction of the image's area that is kept.
        ratio: `(low, high)`, range of the aspect ratio of the box, width / height.

    Returns:
        A dictionary of `top`, `left`, `height` and `width`: float32 tensors `(batch,)` of whole pixels.
    """
    ones = ops.ones((ops.shape(numbers)[0], 1), "float32")
    image_height = ops.reshape(ops.cast(image_height, "float32"), (-1, 1)) * ones
    image_width = ops.reshape(ops.cast(image_width, "float32"), (-1, 1)) * ones
    area = uniform(numbers[:, :_ATTEMPTS], *scale) * image_height * image_width
    shape = ops.exp(uniform(numbers[:, _ATTEMPTS : 2 * _ATTEMPTS], *map(math.log, ratio)))
    heights, widths = ops.round(ops.sqrt(area / shape)), ops.round(ops.sqrt(area * shape))
    fits = (heights >= 1) & (heights <= image_height) & (widths >= 1) & (widths <= image_width)
    # A last attempt that always fits: the largest central crop with an allowed ratio.
    heights = ops.concatenate([heights, ops.minimum(image_height, ops.round(image_width / ratio[0]))], axis=1)
    widths = ops.concatenate([widths, ops.minimum(image_width, ops.round(image_height * ratio[1]))], axis=1)
    first = ops.argmax(ops.concatenate([ops.cast(fits, "int32"), ops.ones_like(fits[:, :1], "int32")], axis=1), axis=1)
    selection = ops.one_hot(first, _ATTEMPTS + 1, dtype="float32")
    height, width = ops.sum(selection * heights, axis=1), ops.sum(selection * widths, axis=1)
    free_rows, free_columns = image_height[:, 0] - height, image_width[:, 0] - width
    attempted = first < _ATTEMPTS
    return {
        "top": ops.floor(ops.where(attempted, (free_rows + 1) * numbers[:, -2], free_rows / 2)),
        "left": ops.floor(ops.where(attempted, (free_columns + 1) * numbers[:, -1], free_columns / 2)),
        "height": height,
        "width": width,
    }


@fused
def _cubic_taps(start, length, *, size, target):
    """The weights that resample the pixels `[start, start + length)` to `target` pixels along one axis.

    The kernel is PIL's bicubic with antialiasing: Keys' cubic with a = -0.5, stretched by the scale if the box is
    larger than the target. Taps outside the box are dropped, and the weights are renormalized.

    Args:
        start: First pixel of the box, a float tensor `(batch,)`.
        length: Length of the box in pixels, a float tensor `(batch,)`.
        size: Length of the image in pixels, an integer.
        target: Length of the result in pixels, an integer.

    Returns:
        The pair `(weights, reads)` of `Taps`; the weights of each pixel sum to 1.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / target
    stretch = ops.maximum(scale, 1.0)
    center = start + (np.arange(target, dtype="float32")[None, :, None] + 0.5) * scale
    # The kernel is four pixels wide before it is stretched, and the box is no larger than the image.
    taps = np.arange(math.ceil(4 * max(size / target, 1)), dtype="float32")
    pixel = ops.floor(center - 2.0 * stretch + 0.5) + taps
    x = ops.abs(pixel + 0.5 - center) / stretch
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = ops.where(x < 1.0, near, ops.where(x < 2.0, far, 0.0))
    weights = ops.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True), ops.cast(ops.clip(pixel, 0, size - 1), "int32")


@fused
def _flip(planes, chosen):
    planes = ops.cast(planes, "float32")
    return ops.where(per_image(chosen), ops.flip(planes, axis=3), planes)


def _static_size(image_shape):
    height, width = image_shape[1:3]
    if height is None or width is None:
        raise ValueError(
            "RandomResizedCrop needs images of a known height and width. "
            f"Received: images.shape={tuple(image_shape)}. Resize or crop them to one size first, or set their static "
            "shape."
        )
    return height, width


def _increasing_pair(name, pair):
    low, high = map(float, pair)
    if not 0 < low <= high:
        raise ValueError(
            f"`{name}` must be a pair (low, high) with 0 < low <= high. Received: {name}={pair}. Use such a pair."
        )
    return low, high
