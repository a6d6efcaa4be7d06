"""Which files are for training and which for testing, and the class of each."""

import collections
import dataclasses

import numpy as np
from absl import logging

from keras_barlow.class_sampling import draw_per_class
from keras_barlow.data.names import LeftOut, class_name

_ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
# Images beside the folders of classes are strays up to this share; more of them, and the folders are no classes.
_STRAYS = 0.1


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


def find_splits(names, source, labels=True, left_out=None, folders=()):
    """Divides the files of a folder or archive.

    `train/` is a split beside `test/`, `val/` or `unlabeled/`, or alone, and a class beside anything else; without
    splits everything is for training. Where `test/` and `val/` are both there, `val/` is left out. The images of
    `unlabeled/` are for training without labels, and left out otherwise. Below that, sub-folders are classes; a tenth
    of the images may lie beside them and is left out. A folder that holds nothing but one other folder is looked
    through.

    Args:
        names: Names of image files, with `/` between parts.
        source: What errors call the collection.
        labels: False to ignore the classes.
        left_out: `LeftOut` that counts the images in neither split; None to count nothing.
        folders: Names of all folders, those without images too, which are counted.

    Returns:
        The pair `(train, test)` of `Split`; test may be None.

    Raises:
        ValueError: If there is a test folder and no training folder, if a split is there under two names, or if the
            classes of the two differ.

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
    judge = next((role for role in ("test", "val") if role in roles), None)
    reasons = {None: f"beside {roles['train']}/"}
    if "unlabeled" in roles:
        reasons[roles["unlabeled"]] = f"in {roles['unlabeled']}/ (labels=False, --nolabels, trains on them)"
    if judge == "test" and "val" in roles:
        reasons[roles["val"]] = f"in {roles['val']}/ (there is {roles['test']}/ to test on)"
    members = {roles["train"]: [], roles.get(judge, ""): []}
    if not labels and "unlabeled" in roles:
        members[roles["unlabeled"]] = members[roles["train"]]
    for name in names:
        folder = _part(name, depth)
        if folder in members:
            members[folder].append(name)
        else:
            left_out.add(reasons.get(folder, f"in {folder}/, beside {roles['train']}/"), name)
    train = _split(members[roles["train"]], depth + 1, source, labels, left_out)
    if judge is None:
        return train, None
    test = _split(members[roles[judge]], depth + 1, source, labels, left_out)
    if train.class_names != test.class_names:
        raise ValueError(
            "Training and test images must have the same classes. "
            f"Received: {_shown(train)} in {roles['train']}/ and {_shown(test)} in {roles[judge]}/ of {source}. "
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
    test_rows = np.sort(draw_per_class(labels, lambda _, size: max(1, round(share * size)), rng))
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


def _role(folder):
    return next((role for role, names in _ROLES.items() if folder.lower() in names), None)


def _split_folders(folders, source):
    """The folder of each split; none where the folders are classes."""
    by_role = collections.defaultdict(list)
    for folder in sorted(folders):
        by_role[_role(folder)].append(folder)
    classes = by_role.pop(None, [])
    if not by_role or (by_role.keys() == {"unlabeled"} and not classes):
        return {}
    if "train" not in by_role and not classes:
        raise ValueError(
            "There must be images to train on, in a folder train/. "
            f"Received: {source}, which has {'/, '.join(sorted(folders))}/ only."
        )
    if "train" not in by_role or (classes and not by_role.keys() & {"test", "val"}):
        named = [folder for found in by_role.values() for folder in found]
        logging.warning(
            "%s/ of %s are classes as the other folders are: splits are train/ beside test/ or val/.",
            "/, ".join(named),
            source,
        )
        return {}
    for found in by_role.values():
        if len(found) > 1:
            raise ValueError(
                "Each split must be one folder. "
                f"Received: {'/ and '.join(found)}/ in {source}. Put their images into one of them."
            )
    return {role: found[0] for role, found in by_role.items()}


def _empty(folders, names):
    """The folders without an image, but for those inside of one."""
    full = {""}
    for folder in {name.rpartition("/")[0] for name in names}:
        while folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    return [folder for folder in sorted(folders) if folder not in full and folder.rpartition("/")[0] in full]


def _split(names, depth, source, labels, left_out):
    folders = collections.Counter(_part(name, depth) for name in names)
    loose = folders.pop(None, 0)
    if not labels or not folders:
        return Split(names, None, None)
    class_names = tuple(sorted({class_name(folder) for folder in folders}))
    if loose > _STRAYS * len(names):
        logging.warning(
            "%d of %d images lie beside the folders of %s, which are no classes then: nothing can be evaluated.",
            *(loose, len(names), source),
        )
        return Split(names, None, None)
    if len(class_names) < 2:
        logging.warning("The images of %s are of one class, %s: nothing can be evaluated.", source, class_names[0])
        return Split(names, None, None)
    if loose:
        left_out.extend("beside the folders of classes", [name for name in names if _part(name, depth) is None])
        names = [name for name in names if _part(name, depth) is not None]
    numbers = {name: number for number, name in enumerate(class_names)}
    return Split(names, np.array([numbers[class_name(_part(name, depth))] for name in names], "int64"), class_names)


def _part(name, depth):
    """The folder of a file at a depth, None where the file itself is."""
    parts = name.split("/")
    return parts[depth] if depth < len(parts) - 1 else None


def _shown(split):
    if split.class_names is None:
        return "no classes"
    names = list(split.class_names)
    return f"{len(names)} classes ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
