"""Random resized crop and flip."""

import math

import keras
import numpy as np
from keras import ops

from keras_barlow.augmentations.base import RandomTransform, uniform
from keras_barlow.augmentations.resampling import resample

_ATTEMPTS = 10


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomResizedCrop(RandomTransform):
    """Crops a random box from each image and resizes it, bicubic with antialiasing, as PIL does.

    The box is drawn as in torchvision: ten attempts at an area uniform in `scale` and a ratio log-uniform in
    `ratio`, rounded to whole pixels, the first that fits; else the largest central crop with an allowed
    ratio. Both resampling passes are products with a weight matrix per image, so shapes are static.

    Args:
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        scale: `(low, high)`: share of the image's area that is kept, in (0, 1].
        ratio: `(low, high)`: width / height of the box.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        images: Tensor `(batch, H, W, channels)` on 0..255, `H` and `W` static.
        training: Python boolean. False resizes the whole image.

    Returns:
        Float32 tensor `(batch, height, width, channels)` on 0..255.

    Raises:
        ValueError: For bounds that are no increasing pair of positive numbers, or a scale above 1.

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
            raise ValueError(f"`scale` is a share of the image's area, at most 1. Received: scale={scale}")

    def transformation_from(self, numbers, image_shape):
        image_height, image_width = _static_size(image_shape)
        area = uniform(numbers[:, :_ATTEMPTS], *self.scale) * image_height * image_width
        ratio = ops.exp(uniform(numbers[:, _ATTEMPTS : 2 * _ATTEMPTS], *map(math.log, self.ratio)))
        heights = ops.round(ops.sqrt(area / ratio))
        widths = ops.round(ops.sqrt(area * ratio))
        fits = (heights >= 1) & (heights <= image_height) & (widths >= 1) & (widths <= image_width)
        # A last column that always fits makes the fallback the first hit where no attempt was one.
        fallback_height, fallback_width = self._fallback(image_height, image_width)
        heights = ops.pad(heights, ((0, 0), (0, 1)), constant_values=fallback_height)
        widths = ops.pad(widths, ((0, 0), (0, 1)), constant_values=fallback_width)
        first = ops.argmax(ops.cast(ops.pad(fits, ((0, 0), (0, 1)), constant_values=True), "int32"), axis=1)
        height = ops.take_along_axis(heights, first[:, None], axis=1)[:, 0]
        width = ops.take_along_axis(widths, first[:, None], axis=1)[:, 0]
        attempted = first < _ATTEMPTS
        top = (image_height - height + 1) * numbers[:, -2]
        left = (image_width - width + 1) * numbers[:, -1]
        return {
            "top": ops.floor(ops.where(attempted, top, (image_height - height) / 2)),
            "left": ops.floor(ops.where(attempted, left, (image_width - width) / 2)),
            "height": height,
            "width": width,
        }

    def transform_images(self, images, transformation, training=True):
        images = ops.cast(images, "float32")
        if not training:
            height, width = _static_size(images.shape)
            ones = ops.ones((ops.shape(images)[0],))
            transformation = {"top": 0 * ones, "left": 0 * ones, "height": height * ones, "width": width * ones}
        return self.apply(images, transformation)

    def apply(self, images, transformation):
        image_height, image_width = _static_size(images.shape)
        rows = _cubic_weights(transformation["top"], transformation["height"], image_height, self.height)
        columns = _cubic_weights(transformation["left"], transformation["width"], image_width, self.width)
        return ops.clip(resample(images, rows, columns), 0.0, 255.0)

    def _fallback(self, image_height, image_width):
        """The largest central crop whose ratio is allowed."""
        low, high = self.ratio
        if image_width / image_height < low:
            return round(image_width / low), image_width
        if image_width / image_height > high:
            return image_height, round(image_height * high)
        return image_height, image_width

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], self.height, self.width, input_shape[-1])

    def get_config(self):
        config = super().get_config()
        del config["probability"]
        return {**config, "height": self.height, "width": self.width, "scale": self.scale, "ratio": self.ratio}


@keras.saving.register_keras_serializable(package="keras_barlow")
class RandomFlip(RandomTransform):
    """Mirrors each image left to right with some probability.

    Args:
        probability: With which an image is mirrored.
        seed: See `RandomTransform`.
        **kwargs: Those of `keras.layers.Layer`.

    Example:

    >>> image = np.arange(3.0).reshape(1, 1, 3, 1)
    >>> np.asarray(RandomFlip(probability=1.0)(image)).ravel().tolist()
    [2.0, 1.0, 0.0]
    """

    numbers_per_image = 1

    def __init__(self, probability=0.5, seed=None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)

    def apply(self, images, transformation):
        return ops.flip(images, axis=2)


def _cubic_weights(start, length, size, target):
    """Resampling weights from `size` pixels to `target`, reading only `[start, start + length)`.

    The cubic of Keys with a = -0.5, stretched by the scale where the box is larger than the target: PIL's
    bicubic with antialiasing. Taps outside of the box are left out and the rest normalised.

    Args:
        start: First pixel of the box, `(batch,)`.
        length: Pixels of the box, `(batch,)`.
        size: Pixels of the image, an integer.
        target: Pixels of the result, an integer.

    Returns:
        Tensor `(batch, target, size)` whose rows sum to 1.
    """
    start, length = start[:, None, None], length[:, None, None]
    pixel = np.arange(size, dtype="float32")[None, None, :]
    scale = length / target
    centre = start + (np.arange(target, dtype="float32")[None, :, None] + 0.5) * scale
    x = ops.abs(pixel + 0.5 - centre) / ops.maximum(scale, 1.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = ops.where(x < 1.0, near, ops.where(x < 2.0, far, 0.0))
    inside = (pixel >= start) & (pixel < start + length)
    weights = ops.where(inside, weights, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _static_size(image_shape):
    height, width = image_shape[1:3]
    if height is None or width is None:
        raise ValueError(
            "RandomResizedCrop needs images of a known height and width. "
            f"Received: images.shape={tuple(image_shape)}. Resize or crop them to one size first, or set their shape."
        )
    return height, width


def _increasing_pair(name, pair):
    low, high = map(float, pair)
    if not 0 < low <= high:
        raise ValueError(f"`{name}` must be a pair (low, high) with 0 < low <= high. Received: {name}={pair}")
    return low, high
