"""Sources of images: drawn digits, which need no network, and folders of image files."""

import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

_CANVAS = 32
_TEST_DIGITS = 360
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def digits(seed=0, copies=3):
    """Scikit-learn's 1,797 handwritten digits, scattered over small coloured canvases.

    The digits are split by class into 1,437 for training and 360 for testing BEFORE anything is drawn, so no
    test image shows a training digit. Each digit is then drawn `copies` times on a black canvas of 32 x 32
    pixels: 12 to 20 pixels high, tilted up to 20 degrees either way, at a random place, in a random colour
    (each channel from 0.3 to 1).

    Args:
        seed: Integer: of the split and of the drawing.
        copies: Images drawn of each digit.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: uint8 arrays `(n, 32, 32, 3)` and int64
        arrays `(n,)`, with n = 1437 * copies and 360 * copies.

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


def image_folder(path, image_size):
    """Reads `train/<class>/` and `test/<class>/` of a folder into memory.

    Every image becomes upright RGB; its short side is resized to `image_size` and the centre cut out.

    Args:
        path: Folder with the sub-folders `train` and `test`, each with one sub-folder a class.
        image_size: Side of the images in pixels.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: uint8 arrays
        `(n, image_size, image_size, 3)` and int64 arrays `(n,)`, classes numbered in alphabetical order.

    Raises:
        ValueError: If a folder is missing or holds no image, if train and test have different classes, or if
            a file cannot be read.
    """
    path = pathlib.Path(path)
    files = {split: _image_files(path / split) for split in ("train", "test")}
    classes = {split: sorted({file.parent.name for file in files[split]}) for split in files}
    if classes["train"] != classes["test"]:
        raise ValueError(
            "Training and test images must have the same classes. "
            f"Received: train={classes['train']}, test={classes['test']} in {path}"
        )
    numbers = {name: number for number, name in enumerate(classes["train"])}
    return tuple(
        (
            np.stack([_read(file, image_size) for file in files[split]]),
            np.array([numbers[file.parent.name] for file in files[split]]),
        )
        for split in ("train", "test")
    )


def batches(images, batch_size, seed=0):
    """Shuffled batches of an array for `fit`, in another order every epoch, without an incomplete last one.

    Args:
        images: Array `(n, height, width, channels)`.
        batch_size: Images per batch.
        seed: Of the order.

    Returns:
        A `tf.data.Dataset` of `(batch_size, height, width, channels)`.

    Example:

    >>> len(batches(np.zeros((10, 4, 4, 3), "uint8"), batch_size=4))
    2
    """
    rows = tf.data.Dataset.range(len(images)).shuffle(len(images), seed=seed).batch(batch_size, drop_remainder=True)
    table = tf.constant(images)
    return rows.map(lambda row: tf.gather(table, row)).prefetch(tf.data.AUTOTUNE)


def _image_files(folder):
    if not folder.is_dir():
        raise ValueError(f"There must be a folder of images at {folder}. Received: no such folder.")
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in _IMAGE_SUFFIXES)
    if not files:
        raise ValueError(
            f"{folder} must hold one sub-folder a class with images ({', '.join(_IMAGE_SUFFIXES)}). "
            "Received: no image there."
        )
    return files


def _read(file, image_size):
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Every file must be a readable image. Received: {file} ({error}). Delete it.") from error
    return np.asarray(ImageOps.fit(upright, (image_size, image_size), Image.Resampling.BICUBIC))


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
