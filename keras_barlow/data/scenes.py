"""Scenes composed of labeled images, with a box and a class for each object: for detection and multi-label tasks."""

from typing import NamedTuple

import numpy as np
from PIL import Image

_TRIES = 100


class Scenes(NamedTuple):
    """Images with the boxes and classes of their objects.

    Attributes:
        images: uint8 array `(n, height, width, 3)`.
        boxes: Float32 array `(n, objects, 4)`: left, top, right and bottom in pixels; padded with -1.
        labels: int64 array `(n, objects)` of class numbers; padded with -1.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def scenes(images, labels, count, size=96, sides=(20, 40), objects=4, seed=0):
    """Composes scenes of small images that do not overlap, on a background of one color.

    Args:
        images: uint8 array `(m, side, side, 3)` of objects.
        labels: Integer array `(m,)`, the class of each object.
        count: Number of scenes to compose.
        size: Side of a scene, in pixels.
        sides: Smallest and largest side of an object in a scene, in pixels.
        objects: Maximum number of objects per scene; every scene has at least one.
        seed: Integer that determines backgrounds, objects, sizes and positions.

    Returns:
        `Scenes`.

    Raises:
        ValueError: If an object would be larger than a scene, or there is nothing to draw.

    Example:

    >>> result = scenes(np.zeros((5, 8, 8, 3), "uint8"), np.arange(5), count=2, size=32, sides=(8, 12))
    >>> result.images.shape, result.boxes.shape, result.labels.shape
    ((2, 32, 32, 3), (2, 4, 4), (2, 4))
    """
    if not 1 <= sides[0] <= sides[1] <= size:
        raise ValueError(
            "`sides` must be a pair (smallest, largest) from 1 to the side of the scene. "
            f"Received: sides={sides}, size={size}. Use smaller sides or a larger size."
        )
    if objects < 1 or len(images) < 1:
        raise ValueError(
            "A scene needs at least one object and one image to draw. "
            f"Received: objects={objects} of {len(images)} images. Pass at least 1 of each."
        )
    rng = np.random.default_rng(seed)
    result = Scenes(
        np.empty((count, size, size, 3), "uint8"),
        np.full((count, objects, 4), -1, "float32"),
        np.full((count, objects), -1, "int64"),
    )
    for scene, boxes, classes in zip(*result, strict=True):
        scene[:] = rng.integers(0, 256, 3)
        squares = _disjoint_squares(size, sides, int(rng.integers(1, objects + 1)), rng)
        for number, (left, top, side) in enumerate(squares):
            row = int(rng.integers(len(images)))
            scaled = Image.fromarray(images[row]).resize((side, side), Image.Resampling.BICUBIC)
            scene[top : top + side, left : left + side] = scaled
            boxes[number] = left, top, left + side, top + side
            classes[number] = labels[row]
    return result


def _disjoint_squares(size, sides, count, rng):
    """Left, top and side of up to `count` squares that do not overlap; fewer if they do not fit."""
    squares = []
    for _ in range(_TRIES):
        side = int(rng.integers(sides[0], sides[1] + 1))
        left, top = (int(start) for start in rng.integers(0, size - side + 1, 2))
        if all(left + side <= x or x + other <= left or top + side <= y or y + other <= top for x, y, other in squares):
            squares.append((left, top, side))
        if len(squares) == count:
            break
    return squares
