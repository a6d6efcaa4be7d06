"""Images and labels of a NumPy file, by the names of its arrays."""

import numpy as np
from absl import logging

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.names import LeftOut, printable
from keras_barlow.labels import checked_labels, checked_test_labels

# Names of the images and of their labels; the last ones are MedMNIST's.
_ROLES = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
}


def read_npz(path, decoder, labels=True, left_out=None):
    """The images of a `.npz` file.

    Args:
        path: The file, with arrays `images` and `labels`, or `x_train`, `y_train`, `x_test`, `y_test` (`x_val` and
            `y_val` where there is no test split), or `train_images`, `train_labels` and so on.
        decoder: `Decoder`.
        labels: False to ignore the labels.
        left_out: `LeftOut` that counts the arrays that are not used; None to count nothing.

    Returns:
        The pair `(train, test)` of `ArrayImages`; test may be None.

    Raises:
        ValueError: If the file cannot be read, holds no training images or others than uint8, if it is not clear
            which labels belong to them, or if they cannot be labels.

    Example:

    >>> import os, tempfile
    >>> from keras_barlow.data.decoding import Decoder
    >>> path = os.path.join(tempfile.mkdtemp(), "photos.npz")
    >>> np.savez(path, images=np.zeros((20, 9, 9, 3), "uint8"), labels=np.arange(20) % 2)
    >>> read_npz(path, Decoder(8))[0].array.shape
    (20, 8, 8, 3)
    """
    left_out = LeftOut() if left_out is None else left_out
    source = printable(path)
    try:
        # np.load leaves a file open that it cannot read.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            chosen = {role: _chosen(role, file.files, source) for role in _ROLES}
            if chosen["train"] is None:
                raise _Refused(
                    "The file must hold an array images, or x_train (or train_images, as MedMNIST has it). "
                    f"Received: {source} with {', '.join(file.files) or 'nothing'}. Rename its arrays."
                )
            judge = next((role for role in ("test", "val") if chosen[role]), None)
            pair = [chosen[role] and _read(file, *chosen[role], labels) for role in ("train", judge) if role]
            used = {name for role in ("train", judge) if role for name in chosen[role]}
            for name in sorted(set(file.files) - used):
                _tell_unused(name, file, chosen, labels, pair, left_out, source)
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    # A truncated file raises zipfile.BadZipFile, EOFError, OSError or zlib.error.
    except Exception as error:
        raise ValueError(f"The file must be a readable .npz file. Received: {source} ({error}).") from error
    fitted = [_fitted(*arrays, decoder) for arrays in pair]
    return _checked(fitted, [chosen["train"], judge and chosen[judge]], source)


class _Refused(Exception):
    """What is wrong with the arrays of a file that can be read."""


def _chosen(role, names, source):
    found = [pair for pair in _ROLES[role] if pair[0] in names]
    if len(found) > 1:
        raise _Refused(
            f"There must be one array of {role} images. "
            f"Received: {' and '.join(pair[0] for pair in found)} in {source}. Keep one of them."
        )
    return found[0] if found else None


def _read(file, image_name, label_name, labels):
    return image_name, file[image_name], label_name, file[label_name] if labels and label_name in file.files else None


def _tell_unused(name, file, chosen, labels, pair, left_out, source):
    """Counts an array that is not used, or refuses it where it may be the labels that are missing."""
    if name in {name for pairs in _ROLES.values() for names in pairs for name in names[1:]} and not labels:
        return
    if chosen["val"] and name in chosen["val"]:
        left_out.add("arrays, where there are test images to test on", name)
        return
    for image_name, images, label_name, numbers in pair:
        if labels and numbers is None and _may_be_labels(file, name, len(images)):
            raise _Refused(
                f"Labels must go by the name that belongs to their images. Received: an array {name} of as many rows "
                f"as {image_name}, and no {label_name}, in {source}. Rename it to {label_name}, or ignore the classes "
                "with labels=False (--nolabels)."
            )
    left_out.add("arrays that nothing uses", name)


def _may_be_labels(file, name, count):
    try:
        array = file[name]
    # Objects, which cannot be read.
    except ValueError:
        return False
    return array.ndim in (1, 2) and len(array) == count


def _fitted(image_name, images, label_name, labels, decoder):
    if images.ndim not in (3, 4) or not images.size:
        raise ValueError(
            "Images must have the shape (n, height, width[, channels]), with at least one image. "
            f"Received: {image_name} of shape {images.shape}."
        )
    array = np.stack([decoder.fit(image, f"image {row} of {image_name}") for row, image in enumerate(images)])
    if labels is not None:
        labels = checked_labels(labels, len(images), label_name, several=True)
        if labels.ndim == 2 and labels.min() == 0 and (labels.sum(axis=1) == 1).all():
            logging.warning(
                "Each row of %s has a single 1. It is taken as several labels for each image; store "
                "%s.argmax(axis=1) if it is one-hot.",
                *(label_name, label_name),
            )
    return array, labels


def _checked(fitted, names, source):
    """The pair of `ArrayImages`, of the same classes."""
    (array, labels), *test = fitted
    if not test:
        return ArrayImages(array, labels, _class_names(labels)), None
    test_array, test_labels = test[0]
    if (labels is None) != (test_labels is None):
        missing, others = (names[0][1], names[1]) if labels is None else (names[1][1], names[1])
        raise ValueError(
            "Training and test images must both have labels. "
            f"Received: no {missing} in {source}. Add it, leave {' and '.join(others)} out of the file, or ignore the "
            "classes with labels=False (--nolabels)."
        )
    if labels is not None:
        if labels.shape[1:] != test_labels.shape[1:]:
            raise ValueError(
                "Training and test labels must have the same classes. "
                f"Received: {names[0][1]} of shape {labels.shape} and {names[1][1]} of shape {test_labels.shape} in "
                f"{source}."
            )
        if labels.ndim == 1:
            test_labels = checked_test_labels(test_labels, labels, name=names[1][1])
    class_names = _class_names(labels)
    return ArrayImages(array, labels, class_names), ArrayImages(test_array, test_labels, class_names)


def _class_names(labels):
    if labels is None:
        return None
    return tuple(str(number) for number in range(labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1))
