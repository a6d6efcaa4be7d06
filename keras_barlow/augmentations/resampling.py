"""Separable linear filters: each row of the result is a weighted sum of a few rows of the image."""

import typing

from keras import ops

from keras_barlow.augmentations.fusion import fused


class Taps(typing.NamedTuple):
    """The pixels that each pixel of the result reads along one axis, and their weights.

    Attributes:
        weights: Float tensor `(batch, target or 1, taps)`.
        reads: Integer tensor `(batch or 1, target, taps)` of pixel positions, from 0.
    """

    weights: object
    reads: object


def resample(planes, rows, columns):
    """Filters images along both axes, and clips the result to 0..255 after each, as PIL does.

    Args:
        planes: uint8 or float tensor `(batch, H, channels, W)`.
        rows: `Taps` along the height, one for each row of the result.
        columns: `Taps` along the width, one for each column of the result.

    Returns:
        Float32 tensor `(batch, height, channels, width)`.
    """
    for taps in (columns, rows):
        planes = _weighted_rows(_swapped(planes), *taps)
    return planes


# A separate kernel, because reading across rows inside the sum would be slower than both kernels together.
@fused
def _swapped(planes):
    """Transposes `(batch, height, channels, width)` to `(batch, width, channels, height)`."""
    return ops.transpose(planes, (0, 3, 2, 1))


@fused
def _weighted_rows(planes, weights, reads):
    """Computes `sum_k weights[:, i, k] * planes[:, reads[:, i, k]]` for each row i of the result."""
    batch, (height, channels, width) = ops.shape(planes)[0], planes.shape[1:]
    rows = ops.reshape(planes, (-1, channels, width))
    reads = reads + height * ops.arange(batch, dtype="int32")[:, None, None]
    taps = [
        weights[:, :, tap, None, None] * ops.cast(ops.take(rows, reads[:, :, tap], axis=0), "float32")
        for tap in range(reads.shape[-1])
    ]
    return ops.clip(sum(taps), 0.0, 255.0)
