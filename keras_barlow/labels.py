"""Checks of class labels and features, shared by every function that takes them."""

import numpy as np

_REMEDY_FOR_NAMES = (
    "Number the classes: `names, numbers = np.unique(labels, return_inverse=True)`, and "
    "`np.searchsorted(names, others)` for other labels of the same classes."
)
# Scores have a column per class number, so numbers may have gaps, but must not jump to 1e8. The largest public sets of
# classes (ImageNet-21k) stay below.
_GAPS_ALLOWED_BELOW = 2**15
_FINITE_ROWS = 8192
# As text, because pandas' NA is equal to nothing.
_MISSING = ("None", "nan", "NaT", "<NA>")


def checked_labels(labels, count=None, name="labels", several=False, least_classes=1):
    """Class labels as int64, or an error that says what is wrong with them.

    Integers, booleans, floats that hold whole numbers, and a column `(n, 1)` are accepted.

    Args:
        labels: Array-like `(n,)` or `(n, 1)` of class numbers from 0.
        count: Number of rows that the labels belong to; None skips the check.
        name: Name of the argument, for the error.
        several: Whether rows `(n, classes)` of 1, 0 and -1 are accepted too, see `checked_targets`.
        least_classes: Number of different classes that must be there.

    Returns:
        int64 array `(n,)`; `(n, classes)` if `several` and that shape was given.

    Raises:
        ValueError: If labels are missing, of another shape or length, negative, not whole numbers, names instead of
            numbers, of too few classes, or numbered with huge gaps.

    Example:

    >>> checked_labels([[2], [0], [1]], count=3).tolist()
    [2, 0, 1]
    """
    labels = _as_array(labels, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and several:
        return checked_targets(labels, count, name)
    if labels.ndim != 1 and labels.size:
        raise ValueError(
            "There must be one label for each image. "
            f"Received: labels of shape {labels.shape} for `{name}`. {_remedy_for_shape(labels)}"
        )
    _check_length(labels, count, name)
    labels = _as_integers(labels, name)
    if labels.min() < 0:
        raise ValueError(
            f"Labels must be class numbers from 0. Received: {_some(labels[labels < 0])} in `{name}`. Drop the rows "
            f"without a label, there and in the features or images: `keep = {name} >= 0`."
        )
    _check_classes(labels, name, least_classes)
    return labels


def checked_targets(targets, count=None, name="targets"):
    """Targets for images with any number of labels as int64, or an error that says what is wrong with them.

    Args:
        targets: Array-like `(n, classes)`: 1 where the image has the label, 0 where not, -1 where it does not count.
        count: Number of rows that the targets belong to; None skips the check.
        name: Name of the argument, for the error.

    Returns:
        int64 array `(n, classes)`.

    Raises:
        ValueError: If targets are missing, or of another shape, length or value.

    Example:

    >>> checked_targets([[True, False], [False, False]]).tolist()
    [[1, 0], [0, 0]]
    """
    targets = _as_array(targets, name)
    if targets.ndim != 2:
        raise ValueError(
            "Targets must be (n, classes), a column of 1, 0 and -1 for each class. "
            f"Received: `{name}` of shape {targets.shape}. From class numbers: np.eye(classes)[labels]."
        )
    _check_length(targets, count, name)
    targets = _as_integers(targets, name)
    if targets.size and (targets.min() < -1 or targets.max() > 1):
        raise ValueError(
            "Targets must be 1 where the image has the label, 0 where not, and -1 where it does not count. "
            f"Received: {_some(targets[(targets < -1) | (targets > 1)])} in `{name}`. Turn counts or scores into 1 and "
            f"0 first, such as `({name} > 0).astype(int)`."
        )
    return targets


def checked_test_labels(test_labels, train_labels, count=None, name="test_labels"):
    """Labels to test with as int64, if training has their classes: nothing can predict the others.

    Args:
        test_labels: Array-like `(m,)`, see `checked_labels`.
        train_labels: int64 array `(n,)`, checked.
        count: Number of rows that the test labels belong to; None skips the check.
        name: Name of the argument, for the error.

    Returns:
        int64 array `(m,)`.

    Raises:
        ValueError: For what `checked_labels` refuses, and for classes that training does not have.

    Example:

    >>> checked_test_labels([2, 1], np.array([0, 1, 2])).tolist()
    [2, 1]
    """
    test_labels = checked_labels(test_labels, count, name)
    unknown = np.setdiff1d(test_labels, train_labels)
    if len(unknown):
        raise ValueError(
            f"Training and test must have the same classes. Received: labels {_some(unknown)} of the test images that "
            "training does not have. Add their classes to training, or drop these rows from the test images: "
            f"`keep = np.isin({name}, train_labels)`."
        )
    return test_labels


def checked_features(features, name="features", finite=True):
    """Features as an array of rank 2, or an error that says what is wrong with them.

    Args:
        features: Array-like `(n, features)` of real numbers. A memory-mapped array is not copied.
        name: Name of the argument, for the error.
        finite: Whether to check the values too, see `check_finite`.

    Returns:
        Array `(n, features)`.

    Raises:
        ValueError: If the features are missing, of another rank, empty, not numbers or not finite.

    Example:

    >>> checked_features([[1.0, 2.0]]).shape
    (1, 2)
    """
    if features is None:
        raise ValueError(f"Features must be (n, features). Received: none for `{name}`. Use extract_features.")
    try:
        array = np.asanyarray(features)
    except ValueError as error:
        raise ValueError(
            f"Features must be (n, features), rows of one length. Received: `{name}` with rows of several lengths."
        ) from error
    if array.dtype.name == "bfloat16":
        array = array.astype("float32")
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise ValueError(
            f"Features must be numbers (n, features), at least one row. Received: `{name}` of shape {array.shape} and "
            f"dtype {array.dtype}. Reshape feature maps and images to (n, -1) first."
        )
    if finite:
        check_finite(array, name)
    return array


def check_finite(features, name="features", first=0):
    """Refuses features that are not finite in float32, in which they are compared.

    Args:
        features: Array `(n, features)`.
        name: Name of the argument, for the error.
        first: Row of the argument that these features begin with.

    Raises:
        ValueError: If there are NaN or infinite values.

    Example:

    >>> check_finite(np.zeros((2, 3)))
    """
    if features.dtype.kind != "f":
        return
    for start in range(0, len(features), _FINITE_ROWS):
        with np.errstate(over="ignore"):
            portion = np.asarray(features[start : start + _FINITE_ROWS], "float32")
        rows = np.flatnonzero(~np.isfinite(portion).all(axis=1))
        if len(rows):
            raise ValueError(
                f"Features must be finite. Received: NaN or infinite values in `{name}`, first in row "
                f"{first + start + rows[0]}. Look for them in the images, and in the weights and moving statistics of "
                "the encoder (`encoder.get_weights()`); go back to an encoder without them."
            )


def _as_array(labels, name):
    if labels is None:
        raise ValueError(
            f"This needs labels. Received: none for `{name}`. Give a class number for each image, or load images from "
            "folders train/CLASS and test/CLASS."
        )
    if np.ma.is_masked(labels):
        raise ValueError(
            f"Every row must have a label. Received: `{name}` with masked values. Drop these rows: "
            f"`keep = ~np.ma.getmaskarray({name})`."
        )
    try:
        return np.asarray(labels)
    except ValueError as error:
        raise ValueError(
            f"There must be one label for each image. Received: `{name}` with rows of several lengths. For several "
            "labels per image give rows (n, classes) of 1 and 0."
        ) from error


def _as_integers(labels, name):
    """Whole numbers of any dtype as int64."""
    kind = labels.dtype.kind
    if kind == "O" and any(str(one) in _MISSING for one in labels.ravel() if not isinstance(one, str)):
        raise ValueError(
            f"Every row must have a label. Received: missing values in `{name}`. Drop these rows, there and in the "
            "features or images."
        )
    if kind not in "iubf":
        example = f", such as {labels.ravel().tolist()[0]!r}" if labels.size else ""
        raise ValueError(
            f"Labels must be class numbers. Received: `{name}` of dtype {labels.dtype}{example}. {_REMEDY_FOR_NAMES}"
        )
    if kind == "f":
        if np.isnan(labels).any():
            raise ValueError(
                f"Every row must have a label. Received: NaN in `{name}`. Drop these rows, there and in the features "
                f"or images: `keep = ~np.isnan({name})`."
            )
        fractions = labels[(labels != np.floor(labels)) | np.isinf(labels)]
        if len(fractions):
            raise ValueError(
                f"Labels must be whole class numbers. Received: {_some(fractions)} in `{name}`. Give classes, such as "
                "`np.digitize(values, edges)` of a measurement, or `scores.argmax(axis=1)` of scores."
            )
    if kind in "uf":
        # What does not fit into int64 is no class number either: clipped, it is refused for its gap.
        labels = np.clip(labels.astype("float64"), -(2.0**53), 2.0**53)
    return labels.astype("int64", copy=False)


def _check_length(labels, count, name):
    if not labels.size:
        raise ValueError(f"There must be at least one label. Received: `{name}` of shape {labels.shape}.")
    if count is not None and len(labels) != count:
        raise ValueError(
            f"Every row must have a label. Received: {len(labels)} labels for {count} rows in `{name}`. Give both in "
            "the same order, and drop from both what is dropped from one."
        )


def _check_classes(labels, name, least_classes):
    highest = int(labels.max())
    # Few labels cannot have many classes, so this is only counted where it decides.
    if highest < _GAPS_ALLOWED_BELOW and least_classes <= 1:
        return
    classes = len(np.unique(labels))
    if classes < least_classes:
        raise ValueError(
            f"A classifier needs at least {least_classes} classes. Received: `{name}` with class {highest} only. Add "
            "images of another class."
        )
    if highest >= max(_GAPS_ALLOWED_BELOW, 4 * classes):
        raise ValueError(
            f"Class numbers must not have huge gaps: scores have a column for each number. Received: {highest} as the "
            f"highest of {classes} classes in `{name}`. {_REMEDY_FOR_NAMES}"
        )


def _remedy_for_shape(labels):
    if labels.ndim != 2 or 1 in labels.shape:
        return "Use labels.reshape(-1), if that gives one for each image."
    numbers = labels if labels.dtype.kind in "iubf" else np.zeros((1, 1))
    several = (
        "For several labels an image there is evaluation.multi_label_scores (--protocol=transfer of "
        "examples/evaluate.py)."
    )
    if (numbers >= 0).all() and np.allclose(numbers.sum(axis=1), 1):
        return f"These are one-hot: use labels.argmax(axis=1). {several}"
    return several


def _some(values):
    """The first few different values, as text."""
    return str(np.unique(values)[:5].tolist())
