"""Which files are for training and which for testing, and the class of each."""

import collections
import dataclasses

import numpy as np

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True)
class Split:
    """Names of one split's files with their classes.

    Attributes:
        names: File names, sorted.
        labels: int64 array of class numbers, or None.
        class_names: Names of the classes in alphabetical order, or None.
    """

    names: list
    labels: np.ndarray | None
    class_names: tuple | None


def find_splits(names, source, labels=True):
    """Divides the files of a folder or archive.

    `train/` and `test/` (or `val/`, where there is no test folder) are splits; without them everything is for
    training. Below that, sub-folders are classes, unless images lie beside them. A folder that holds nothing but
    one other folder is looked through.

    Args:
        names: Names of image files, with `/` between parts.
        source: What errors call the collection.
        labels: False to ignore the classes.

    Returns:
        The pair `(train, test)` of `Split`; test may be None.

    Raises:
        ValueError: If there is a test folder and no training folder, if the classes of the two differ, or
            if a class has one training image.

    Example:

    >>> train, test = find_splits(["a/train/cat/1.png", "a/train/cat/2.png", "a/test/cat/3.png"], "zip", labels=False)
    >>> train.names, test.names
    (['a/train/cat/1.png', 'a/train/cat/2.png'], ['a/test/cat/3.png'])
    """
    depth = 0
    while (folders := {_part(name, depth) for name in names}) and len(folders) == 1 and None not in folders:
        if next(iter(folders)).lower() in (*_TRAIN, *_TEST):
            break
        depth += 1
    parts = {part.lower(): part for part in folders if part is not None}
    train_folder = next((parts[name] for name in _TRAIN if name in parts), None)
    test_folder = next((parts[name] for name in _TEST if name in parts), None)
    if train_folder is None and test_folder is not None and len(parts) == 1:
        raise ValueError(
            f"There must be images to train on, in a folder train/. Received: {source}, which has {test_folder}/ only."
        )
    if train_folder is None:
        return _split(names, depth, source, labels), None
    train = _split([name for name in names if _part(name, depth) == train_folder], depth + 1, source, labels)
    if test_folder is None:
        return train, None
    test = _split([name for name in names if _part(name, depth) == test_folder], depth + 1, source, labels)
    if train.class_names != test.class_names:
        raise ValueError(
            "Training and test images must have the same classes. "
            f"Received: {_shown(train)} in {train_folder}/ and {_shown(test)} in {test_folder}/ of {source}. "
            "Rename the folders, or ignore the classes with labels=False (--nolabels)."
        )
    return train, test


def check_classes(labels, class_names, source):
    """Refuses a class with a single training image.

    Args:
        labels: int64 array of class numbers.
        class_names: Names of the classes.
        source: What the error calls the collection.

    Raises:
        ValueError: If a class has fewer than two images.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < 2:
        raise ValueError(
            "Every class needs at least 2 training images, one to compare with another. "
            f"Received: {counts.min()} of class {class_names[int(counts.argmin())]!r} in {source}. "
            "Add images, delete the class, or ignore the classes with labels=False (--nolabels)."
        )


def hold_out(labels, share, seed):
    """Rows for training and for testing, with `share` of each class, at least one image, in the second.

    Args:
        labels: int64 array of class numbers.
        share: Float in (0, 1).
        seed: Of the choice.

    Returns:
        The pair `(train_rows, test_rows)` of sorted int64 arrays.

    Example:

    >>> train_rows, test_rows = hold_out(np.array([0, 0, 0, 1, 1]), share=0.1, seed=0)
    >>> len(train_rows), len(test_rows)
    (3, 2)
    """
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held.append(rng.choice(members, max(1, round(share * len(members))), replace=False))
    test_rows = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), test_rows), test_rows


def first_of_each_class(labels, count):
    """Rows of the first `count` images of each class, in order.

    Args:
        labels: int64 array of class numbers.
        count: Images of each class.

    Returns:
        Sorted int64 array of rows.

    Example:

    >>> first_of_each_class(np.array([0, 1, 1, 0, 1]), count=2).tolist()
    [0, 1, 2, 3]
    """
    seen = collections.Counter()
    rows = []
    for row, label in enumerate(np.asarray(labels).tolist()):
        seen[label] += 1
        if seen[label] <= count:
            rows.append(row)
    return np.array(rows, "int64")


def _split(names, depth, source, labels):
    folders = {_part(name, depth) for name in names}
    if not labels or None in folders or len(folders) < 2:
        return Split(names, None, None)
    class_names = tuple(sorted(folders))
    numbers = {name: number for number, name in enumerate(class_names)}
    return Split(names, np.array([numbers[_part(name, depth)] for name in names], "int64"), class_names)


def _part(name, depth):
    """The folder of a file at a depth, None where the file itself is."""
    parts = name.split("/")
    return parts[depth] if depth < len(parts) - 1 else None


def _shown(split):
    if split.class_names is None:
        return "no classes"
    names = list(split.class_names)
    return f"{len(names)} classes ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
