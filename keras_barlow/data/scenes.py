"""Pictures composed of labelled ones, with the box and the class of each: for detection and for several labels."""

from typing import NamedTuple

import numpy as np
from PIL import Image

_TRIES = 100


class Scenes(NamedTuple):
    """Pictures with the objects that are on them.

    Attributes:
        images: uint8 array `(n, height, width, 3)`.
        boxes: Float32 array `(n, objects, 4)`: left, top, right and bottom in pixels; -1 where there is no object.
        labels: int64 array `(n, objects)`: the class of each; -1 where there is no object.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def scenes(images, labels, count, size=96, sides=(20, 40), objects=4, seed=0):
    """Small pictures scattered over plain ones, apart from each other.

    Args:
        images: uint8 array `(m, side, side, 3)`.
        labels: Integer array `(m,)`.
        count: Number of scenes.
        size: Their side, in pixels.
        sides: Smallest and largest side at which a small picture is drawn, in pixels.
        objects: At most so many on one scene, and at least one.
        seed: Integer: of everything random.

    Returns:
        `Scenes`.

    Raises:
        ValueError: If a small picture is larger than a scene, or none may be drawn.

    Example:

    >>> drawn = scenes(np.zeros((5, 8, 8, 3), "uint8"), np.arange(5), count=2, size=32, sides=(8, 12))
    >>> drawn.images.shape, drawn.boxes.shape, drawn.labels.shape
    ((2, 32, 32, 3), (2, 4, 4), (2, 4))
    """
    if not 1 <= sides[0] <= sides[1] <= size:
        raise ValueError(
            "The sides must be a smallest and a largest one, from 1 to the side of the scene. "
            f"Received: sides={sides}, size={size}."
        )
    if objects < 1 or len(images) < 1:
        raise ValueError(
            f"There must be something to draw. Received: objects={objects} of {len(images)} images. Use at least 1."
        )
    rng = np.random.default_rng(seed)
    drawn = Scenes(
        np.empty((count, size, size, 3), "uint8"),
        np.full((count, objects, 4), -1, "float32"),
        np.full((count, objects), -1, "int64"),
    )
    for scene, boxes, classes in zip(*drawn, strict=True):
        scene[:] = rng.integers(0, 256, 3)
        places = _places(size, sides, int(rng.integers(1, objects + 1)), rng)
        for number, (left, top, side) in enumerate(places):
            row = int(rng.integers(len(images)))
            tile = Image.fromarray(images[row]).resize((side, side), Image.Resampling.BICUBIC)
            scene[top : top + side, left : left + side] = tile
            boxes[number] = left, top, left + side, top + side
            classes[number] = labels[row]
    return drawn


def _places(size, sides, wanted, rng):
    """Left, top and side of squares that do not overlap; fewer than wanted where there is no room."""
    places = []
    for _ in range(_TRIES):
        side = int(rng.integers(sides[0], sides[1] + 1))
        left, top = (int(start) for start in rng.integers(0, size - side + 1, 2))
        if all(left + side <= x or x + other <= left or top + side <= y or y + other <= top for x, y, other in places):
            places.append((left, top, side))
        if len(places) == wanted:
            break
    return places
