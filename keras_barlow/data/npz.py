"""Images and labels from a NumPy `.npz` file, recognized by the names of its arrays."""

import numpy as np
from absl import logging

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.names import LeftOut, printable
from keras_barlow.labels import checked_labels, checked_test_labels

# Names of the arrays of images and labels; the last pair of each role is MedMNIST's.
_ROLES = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
}


def read_npz(path, decoder, labels=True, left_out=None):
    """Reads the images of a `.npz` file.

    Args:
        path: Path of a file with arrays `images` and `labels`; or `x_train`, `y_train`, `x_test` and `y_test` (`x_val`
            and `y_val` without a test split); or `train_images`, `train_labels` and so on.
        decoder: `Decoder` that resizes and crops the images.
        labels: Whether to use the labels.
        left_out: `LeftOut` that counts the unused arrays; None disables it.

    Returns:
        The pair `(train, test)` of `ArrayImages`; `test` is None if there is no test split.

    Raises:
        ValueError: If the file cannot be read, there are no training images, the images are not uint8, the labels are
            invalid, or it is ambiguous which labels belong to the images.

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
        # np.load does not close a file that it cannot read.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = {role: _find_names(role, file.files, source) for role in _ROLES}
            if names["train"] is None:
                raise _InvalidArrays(
                    "The file must have an array images, or x_train (or train_images, as in MedMNIST). "
                    f"Received: {source} with {', '.join(file.files) or 'nothing'}. Rename its arrays."
                )
            test_role = next((role for role in ("test", "val") if names[role]), None)
            pair = [names[role] and _read(file, *names[role], labels) for role in ("train", test_role) if role]
            used_names = {name for role in ("train", test_role) if role for name in names[role]}
            for name in sorted(set(file.files) - used_names):
                _count_unused(name, file, names, labels, pair, left_out, source)
    except _InvalidArrays as error:
        raise ValueError(str(error)) from None
    # A truncated file raises zipfile.BadZipFile, EOFError, OSError or zlib.error.
    except Exception as error:
        raise ValueError(
            f"The file must be a readable .npz file. Received: {source} ({error}). Save it again with np.savez."
        ) from error
    arrays = [_resize(*entry, decoder) for entry in pair]
    return _make_datasets(arrays, [names["train"], test_role and names[test_role]], source)


class _InvalidArrays(Exception):
    """A readable file has the wrong arrays."""


def _find_names(role, names, source):
    """Names of the images and labels of a role, or None."""
    matches = [pair for pair in _ROLES[role] if pair[0] in names]
    if len(matches) > 1:
        raise _InvalidArrays(
            f"There must be only one array of {role} images. "
            f"Received: {' and '.join(pair[0] for pair in matches)} in {source}. Keep one of them."
        )
    return matches[0] if matches else None


def _read(file, image_name, label_name, labels):
    return image_name, file[image_name], label_name, file[label_name] if labels and label_name in file.files else None


def _count_unused(name, file, role_names, labels, pair, left_out, source):
    """Counts an unused array, or raises an error if it may be the missing labels."""
    if name in {name for pairs in _ROLES.values() for names in pairs for name in names[1:]} and not labels:
        return
    if role_names["val"] and name in role_names["val"]:
        left_out.add("validation arrays (the test images are used)", name)
        return
    for image_name, images, label_name, numbers in pair:
        if labels and numbers is None and _may_be_labels(file, name, len(images)):
            raise _InvalidArrays(
                f"Labels must have the name that matches their images. Received: an array {name} with as many rows as "
                f"{image_name}, and no {label_name}, in {source}. Rename it to {label_name}, or ignore the classes "
                "with labels=False (--nolabels)."
            )
    left_out.add("unused arrays", name)


def _may_be_labels(file, name, count):
    try:
        array = file[name]
    # An array of objects, which needs pickle.
    except ValueError:
        return False
    return array.ndim in (1, 2) and len(array) == count


def _resize(image_name, images, label_name, labels, decoder):
    if images.ndim not in (3, 4) or not images.size:
        raise ValueError(
            "Images must have the shape (n, height, width[, channels]), with at least one image. "
            f"Received: {image_name} of shape {images.shape}. Reshape the array."
        )
    array = np.stack([decoder.fit(image, f"image {row} of {image_name}") for row, image in enumerate(images)])
    if labels is not None:
        labels = checked_labels(labels, len(images), label_name, several=True)
        if labels.ndim == 2 and labels.min() == 0 and (labels.sum(axis=1) == 1).all():
            logging.warning(
                "Each row of %s has a single 1. It is interpreted as multi-label targets; if it is one-hot, store "
                "%s.argmax(axis=1) instead.",
                *(label_name, label_name),
            )
    return array, labels


def _make_datasets(arrays, names, source):
    """Makes the pair `(train, test)` of `ArrayImages` after checking that both have the same classes."""
    (array, labels), *test = arrays
    if not test:
        return ArrayImages(array, labels, _class_names(labels)), None
    test_array, test_labels = test[0]
    if (labels is None) != (test_labels is None):
        missing, others = (names[0][1], names[1]) if labels is None else (names[1][1], names[1])
        raise ValueError(
            "Training and test images must both have labels. "
            f"Received: no {missing} in {source}. Add it, remove {' and '.join(others)} from the file, or ignore the "
            "classes with labels=False (--nolabels)."
        )
    if labels is not None:
        if labels.shape[1:] != test_labels.shape[1:]:
            raise ValueError(
                "Training and test labels must have the same classes. "
                f"Received: {names[0][1]} of shape {labels.shape} and {names[1][1]} of shape {test_labels.shape} in "
                f"{source}. Store both with the same columns."
            )
        if labels.ndim == 1:
            test_labels = checked_test_labels(test_labels, labels, name=names[1][1])
    class_names = _class_names(labels)
    return ArrayImages(array, labels, class_names), ArrayImages(test_array, test_labels, class_names)


def _class_names(labels):
    if labels is None:
        return None
    return tuple(str(number) for number in range(labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1))
