"""Drawn digits: labeled images for a first run without a network."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

_CANVAS = 32
_TEST_DIGITS = 360


def digits(seed=0, copies=3):
    """Draws scikit-learn's 1,797 handwritten digits in color at random positions.

    The digits are split into 1,437 for training and 360 for testing BEFORE they are drawn, stratified by class, so no
    test image shows a training digit. Each digit is drawn `copies` times on a black canvas of 32 x 32 pixels: 12 to 20
    pixels high, rotated by up to 20 degrees, at a random position, in a random color (each channel from 0.3 to 1).

    Args:
        seed: Integer that determines the split and the drawings.
        copies: Number of images to draw of each digit.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: uint8 arrays `(n, 32, 32, 3)` and int64
        arrays `(n,)`, with n = 1437 * copies for training and 360 * copies for testing.

    Example:

    >>> (train_images, train_labels), (test_images, test_labels) = digits(copies=1)
    >>> train_images.shape, test_images.shape
    ((1437, 32, 32, 3), (360, 32, 32, 3))
    """
    strokes, labels = load_digits(return_X_y=True)
    strokes = np.round(strokes.reshape(-1, 8, 8) * (255 / 16)).astype("uint8")
    split = train_test_split(strokes, labels, test_size=_TEST_DIGITS, stratify=labels, random_state=seed)
    train_strokes, test_strokes, train_labels, test_labels = split
    rng = np.random.default_rng(seed)
    return (
        (_scatter(train_strokes, copies, rng), np.repeat(train_labels, copies)),
        (_scatter(test_strokes, copies, rng), np.repeat(test_labels, copies)),
    )


def _scatter(strokes, copies, rng):
    return np.stack([_draw(stroke, rng) for stroke in strokes for _ in range(copies)])


def _draw(stroke, rng):
    height = int(rng.integers(12, 21))
    digit = Image.fromarray(stroke).resize((height, height), Image.Resampling.BICUBIC)
    digit = digit.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, _CANVAS - height + 1, 2)
    canvas = np.zeros((_CANVAS, _CANVAS, 3))
    ink = np.asarray(digit, "float64")[:, :, None]
    canvas[top : top + height, left : left + height] = ink * rng.uniform(0.3, 1.0, 3)
    return np.round(canvas).astype("uint8")
