"""Divides files into training and test images, and finds the class of each."""

import collections
import dataclasses

import numpy as np
from absl import logging

from keras_barlow.data.names import LeftOut, class_name
from keras_barlow.data.per_class import draw_per_class

_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
# Up to this fraction, images next to class folders are skipped as strays. If there are more, the folders are not
# classes.
_STRAYS = 0.1


@dataclasses.dataclass(frozen=True)
class Split:
    """The files of one split and their classes.

    Attributes:
        names: Sorted list of file names.
        labels: int64 array of class numbers, or None.
        class_names: Tuple of class names in alphabetical order, or None.
    """

    names: list
    labels: np.ndarray | None
    class_names: tuple | None


def find_splits(names, source, labels=True, left_out=None, folders=()):
    """Divides the files of a folder or archive into training and test images.

    `train/` is a split if it is alone or next to `test/`, `val/` or `unlabeled/`; next to other folders it is a class.
    Without splits all images are for training. `val/` is skipped if there is a `test/`, and `unlabeled/` is used only
    for training without labels. The subfolders of a split are its classes; up to a tenth of the images may lie next to
    them and is skipped. Folders that contain only one other folder are descended into.

    Args:
        names: Names of image files, with `/` as separator.
        source: Name of the dataset, for messages.
        labels: Whether to use the classes.
        left_out: `LeftOut` that counts the images in neither split; None disables it.
        folders: Names of all folders; those without an image are counted.

    Returns:
        The pair `(train, test)` of `Split`; `test` may be None.

    Raises:
        ValueError: If there is a test folder but no training folder, a split has two folders, or training and test
            images have different classes.

    Example:

    >>> train, test = find_splits(["a/train/cat/1.png", "a/train/cat/2.png", "a/test/cat/3.png"], "zip", labels=False)
    >>> train.names, test.names
    (['a/train/cat/1.png', 'a/train/cat/2.png'], ['a/test/cat/3.png'])
    """
    left_out = LeftOut() if left_out is None else left_out
    left_out.extend("folders without an image", (f"{folder}/" for folder in _empty(folders, names)))
    depth = 0
    while (parts := {_part(name, depth) for name in names}) and len(parts) == 1 and None not in parts:
        if _role(next(iter(parts))) not in (None, "unlabeled"):
            break
        depth += 1
    roles = _split_folders(parts - {None}, source)
    if "train" not in roles:
        return _split(names, depth, source, labels, left_out), None
    test_role = next((role for role in ("test", "val") if role in roles), None)
    reasons = {None: f"next to {roles['train']}/"}
    if "unlabeled" in roles:
        reasons[roles["unlabeled"]] = f"in {roles['unlabeled']}/ (use labels=False, --nolabels, to train on them)"
    if test_role == "test" and "val" in roles:
        reasons[roles["val"]] = f"in {roles['val']}/ ({roles['test']}/ is used for testing)"
    members = {roles["train"]: [], roles.get(test_role, ""): []}
    if not labels and "unlabeled" in roles:
        members[roles["unlabeled"]] = members[roles["train"]]
    for name in names:
        folder = _part(name, depth)
        if folder in members:
            members[folder].append(name)
        else:
            left_out.add(reasons.get(folder, f"in {folder}/, next to {roles['train']}/"), name)
    train = _split(members[roles["train"]], depth + 1, source, labels, left_out)
    if test_role is None:
        return train, None
    test = _split(members[roles[test_role]], depth + 1, source, labels, left_out)
    if train.class_names != test.class_names:
        raise ValueError(
            "Training and test images must have the same classes. "
            f"Received: {_described(train)} in {roles['train']}/ and {_described(test)} in {roles[test_role]}/ of "
            f"{source}. Rename the folders, or ignore the classes with labels=False (--nolabels)."
        )
    return train, test


def check_classes(labels, class_names, source):
    """Checks that every class has at least two training images.

    Args:
        labels: int64 array of class numbers.
        class_names: Tuple of class names.
        source: Name of the dataset, for the error message.

    Raises:
        ValueError: If a class has fewer than two images.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < 2:
        raise ValueError(
            "Every class needs at least 2 training images. "
            f"Received: {counts.min()} of class {class_names[int(counts.argmin())]!r} in {source}. "
            "Add images, remove the class, or ignore the classes with labels=False (--nolabels)."
        )


def hold_out(labels, share, seed):
    """Holds out a random fraction of each class, at least one image, for testing.

    Args:
        labels: int64 array of class numbers.
        share: Fraction of each class to hold out, in (0, 1).
        seed: Integer that determines which images are held out.

    Returns:
        The pair `(train_rows, test_rows)` of sorted int64 arrays.

    Example:

    >>> train_rows, test_rows = hold_out(np.array([0, 0, 0, 1, 1]), share=0.1, seed=0)
    >>> len(train_rows), len(test_rows)
    (3, 2)
    """
    test_rows = np.sort(draw_per_class(labels, lambda _, size: max(1, round(share * size)), seed))
    return np.setdiff1d(np.arange(len(labels)), test_rows), test_rows


def _role(folder):
    return next((role for role, names in _ROLES.items() if folder.lower() in names), None)


def _split_folders(folders, source):
    """Maps the role of each split to its folder; empty if the folders are classes."""
    by_role = collections.defaultdict(list)
    for folder in sorted(folders):
        by_role[_role(folder)].append(folder)
    classes = by_role.pop(None, [])
    if not by_role or (by_role.keys() == {"unlabeled"} and not classes):
        return {}
    if "train" not in by_role and not classes:
        raise ValueError(
            "There must be images to train on, in a folder train/. "
            f"Received: {source}, which has {'/, '.join(sorted(folders))}/ only. Add train/, or rename the folders."
        )
    if "train" not in by_role or (classes and not by_role.keys() & {"test", "val"}):
        split_names = [name for names in by_role.values() for name in names]
        logging.warning(
            "%s/ of %s are read as classes, like the other folders: splits are train/ next to test/ or val/.",
            "/, ".join(split_names),
            source,
        )
        return {}
    for names in by_role.values():
        if len(names) > 1:
            raise ValueError(
                "Each split must be in one folder. "
                f"Received: {'/ and '.join(names)}/ in {source}. Move their images into one of them."
            )
    return {role: names[0] for role, names in by_role.items()}


def _empty(folders, names):
    """The outermost folders without an image."""
    nonempty = {""}
    for folder in {name.rpartition("/")[0] for name in names}:
        while folder not in nonempty:
            nonempty.add(folder)
            folder = folder.rpartition("/")[0]
    return [folder for folder in sorted(folders) if folder not in nonempty and folder.rpartition("/")[0] in nonempty]


def _split(names, depth, source, labels, left_out):
    folders = collections.Counter(_part(name, depth) for name in names)
    loose = folders.pop(None, 0)
    if not labels or not folders:
        return Split(names, None, None)
    class_names = tuple(sorted({class_name(folder) for folder in folders}))
    if loose > _STRAYS * len(names):
        logging.warning(
            "%d of %d images lie next to the folders of %s, so the folders are not classes: nothing can be evaluated.",
            *(loose, len(names), source),
        )
        return Split(names, None, None)
    if len(class_names) < 2:
        logging.warning("All images of %s are of one class, %s: nothing can be evaluated.", source, class_names[0])
        return Split(names, None, None)
    if loose:
        left_out.extend("next to the class folders", [name for name in names if _part(name, depth) is None])
        names = [name for name in names if _part(name, depth) is not None]
    numbers = {name: number for number, name in enumerate(class_names)}
    return Split(names, np.array([numbers[class_name(_part(name, depth))] for name in names], "int64"), class_names)


def _part(name, depth):
    """The folder of a file at a given depth; None if the file itself is at that depth."""
    parts = name.split("/")
    return parts[depth] if depth < len(parts) - 1 else None


def _described(split):
    if split.class_names is None:
        return "no classes"
    names = list(split.class_names)
    return f"{len(names)} classes ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
