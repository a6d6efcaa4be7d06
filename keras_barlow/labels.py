"""Validation of class labels and features, shared by all functions that take them."""

import numpy as np

_REMEDY_FOR_NAMES = (
    "Number the classes: `names, numbers = np.unique(labels, return_inverse=True)`, and "
    "`np.searchsorted(names, others)` for other labels of the same classes."
)
# Scores have a column per class number, so class numbers may have gaps but must not be huge. The largest public label
# sets (ImageNet-21k) stay below this number.
_GAPS_ALLOWED_BELOW = 2**15
_FINITE_ROWS = 8192
# Compared as text, because pandas.NA does not equal anything.
_MISSING = ("None", "nan", "NaT", "<NA>")


def checked_labels(labels, count=None, name="labels", several=False, least_classes=1):
    """Validates class labels and converts them to int64.

    Integers, booleans, floats with integral values, and a column `(n, 1)` are accepted.

    Args:
        labels: Array-like `(n,)` or `(n, 1)` of class numbers from 0.
        count: Expected number of labels. None skips the check.
        name: Name of the user's argument, for error messages.
        several: Whether to accept multi-label targets `(n, classes)` of 1, 0 and -1 too (see `checked_targets`).
        least_classes: Minimum number of distinct classes.

    Returns:
        int64 array `(n,)`, or `(n, classes)` for multi-label targets.

    Raises:
        ValueError: If labels are missing, have another shape or length, are negative, fractional or not numeric, have
            fewer classes than `least_classes`, or have huge gaps.

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
            "There must be one label per image. "
            f"Received: labels of shape {labels.shape} for `{name}`. {_remedy_for_shape(labels)}"
        )
    _check_length(labels, count, name)
    labels = _as_integers(labels, name)
    if labels.min() < 0:
        raise ValueError(
            f"Labels must be class numbers from 0. Received: {_examples(labels[labels < 0])} in `{name}`. Drop "
            f"unlabeled rows, here and in the features or images: `keep = {name} >= 0`."
        )
    _check_classes(labels, name, least_classes)
    return labels


def checked_targets(targets, count=None, name="targets"):
    """Validates multi-label targets and converts them to int64.

    Args:
        targets: Array-like `(n, classes)`: 1 if the image has the label, 0 if not, -1 to ignore the entry.
        count: Expected number of rows. None skips the check.
        name: Name of the user's argument, for error messages.

    Returns:
        int64 array `(n, classes)`.

    Raises:
        ValueError: If targets are missing, or have another shape, length or value.

    Example:

    >>> checked_targets([[True, False], [False, False]]).tolist()
    [[1, 0], [0, 0]]
    """
    targets = _as_array(targets, name)
    if targets.ndim != 2:
        raise ValueError(
            "Targets must be (n, classes), a column of 1, 0 and -1 for each class. "
            f"Received: `{name}` of shape {targets.shape}. Convert class numbers with np.eye(classes)[labels]."
        )
    _check_length(targets, count, name)
    targets = _as_integers(targets, name)
    if targets.size and (targets.min() < -1 or targets.max() > 1):
        raise ValueError(
            "Targets must be 1 if the image has the label, 0 if not, and -1 to be ignored. "
            f"Received: {_examples(targets[(targets < -1) | (targets > 1)])} in `{name}`. Convert counts or scores to "
            f"1 and 0 first, for example with `({name} > 0).astype(int)`."
        )
    return targets


def checked_test_labels(test_labels, train_labels, count=None, name="test_labels"):
    """Validates test labels, whose classes must also appear in the training labels.

    Args:
        test_labels: Array-like `(m,)` of class numbers (see `checked_labels`).
        train_labels: int64 array `(n,)` of validated training labels.
        count: Expected number of test labels. None skips the check.
        name: Name of the user's argument, for error messages.

    Returns:
        int64 array `(m,)`.

    Raises:
        ValueError: If `checked_labels` raises it, or a class does not appear in training.

    Example:

    >>> checked_test_labels([2, 1], np.array([0, 1, 2])).tolist()
    [2, 1]
    """
    test_labels = checked_labels(test_labels, count, name)
    unknown = np.setdiff1d(test_labels, train_labels)
    if len(unknown):
        raise ValueError(
            f"Training and test must have the same classes. Received: labels {_examples(unknown)} of test images, "
            "which training lacks. Add these classes to the training images, or drop them from the test images: "
            f"`keep = np.isin({name}, train_labels)`."
        )
    return test_labels


def checked_features(features, name="features", finite=True):
    """Validates features and converts them to an array of rank 2.

    Args:
        features: Array-like `(n, features)` of real numbers. A memory-mapped array is not copied.
        name: Name of the user's argument, for error messages.
        finite: Whether to check that all values are finite, too.

    Returns:
        Array `(n, features)`.

    Raises:
        ValueError: If features are missing, empty, of another rank, not numeric or not finite.

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
            f"Features must be (n, features), rows of one length. Received: `{name}` with rows of several lengths. "
            "Extract all rows with the same encoder."
        ) from error
    if np.ma.is_masked(array):
        raise ValueError(
            f"Features must not be masked. Received: `{name}` with masked values. Drop these rows, in the labels too: "
            f"`keep = ~np.ma.getmaskarray({name}).any(axis=1)`."
        )
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
    """Raises an error unless all features are finite in float32, the type in which they are compared.

    Args:
        features: Array `(n, features)`.
        name: Name of the user's argument, for error messages.
        first: Row number of the first of these features in that argument.

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
                f"{first + start + rows[0]}. Check the images, and the weights and moving statistics of the encoder "
                "(`encoder.get_weights()`)."
            )


def _as_array(labels, name):
    if labels is None:
        raise ValueError(
            f"This function needs labels. Received: none for `{name}`. Pass a class number for each image, or load "
            "images from folders train/CLASS and test/CLASS."
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
            "labels per image, pass an array (n, classes) of 1 and 0."
        ) from error


def _as_integers(labels, name):
    """Converts integral values of any dtype to int64."""
    kind = labels.dtype.kind
    if kind == "O" and any(str(label) in _MISSING for label in labels.ravel() if not isinstance(label, str)):
        raise ValueError(
            f"Every row must have a label. Received: missing values in `{name}`. Drop these rows, here and in the "
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
                f"Every row must have a label. Received: NaN in `{name}`. Drop these rows, here and in the features "
                f"or images: `keep = ~np.isnan({name})`."
            )
        fractions = labels[(labels != np.floor(labels)) | np.isinf(labels)]
        if len(fractions):
            raise ValueError(
                f"Labels must be whole class numbers. Received: {_examples(fractions)} in `{name}`. Convert "
                "measurements with `np.digitize(values, edges)`, or scores with `scores.argmax(axis=1)`."
            )
    if kind in "uf":
        # Values beyond int64 are clipped, and later refused for their gaps.
        labels = np.clip(labels.astype("float64"), -(2.0**53), 2.0**53)
    return labels.astype("int64", copy=False)


def _check_length(labels, count, name):
    if not labels.size:
        raise ValueError(
            f"There must be at least one label. Received: `{name}` of shape {labels.shape}. Pass one per image."
        )
    if count is not None and len(labels) != count:
        raise ValueError(
            f"Every row must have a label. Received: {len(labels)} labels for {count} rows in `{name}`. Drop the "
            "same rows from labels and features, and keep their order."
        )


def _check_classes(labels, name, least_classes):
    highest = int(labels.max())
    # Counting distinct labels is slow, so do it only if the result matters.
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
        return "Use labels.reshape(-1), if that gives one label per image."
    numbers = labels if labels.dtype.kind in "iubf" else np.zeros((1, 1))
    several = (
        "For several labels per image, use evaluation.multi_label_scores (--protocol=transfer of examples/evaluate.py)."
    )
    if (numbers >= 0).all() and np.allclose(numbers.sum(axis=1), 1):
        return f"These look one-hot: use labels.argmax(axis=1). {several}"
    return several


def _examples(values):
    """Formats the first few distinct values."""
    return str(np.unique(values)[:5].tolist())
