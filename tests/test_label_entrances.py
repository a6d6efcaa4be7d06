"""Every function that takes labels or features, with all mistakes in them: one table each.

Add new entry points to the table. `test_every_entry_point_is_listed` requires it.
"""

import inspect
import re

import keras
import numpy as np
import pytest

import keras_barlow as kb
from keras_barlow import callbacks, evaluation, export, labels
from keras_barlow.evaluation import heads

RNG = np.random.default_rng(0)
CLASSES = 3
TRAIN, TEST = np.arange(30) % CLASSES, np.arange(18) % CLASSES
FEATURES, TEST_FEATURES = (
    (np.eye(CLASSES)[one] + 0.2 * RNG.normal(size=(len(one), CLASSES))).astype("float32") for one in (TRAIN, TEST)
)
PICTURES = RNG.integers(0, 256, (len(TRAIN), 8, 8, 3), dtype="uint8")
SCORES = RNG.uniform(size=(len(TEST), CLASSES))


@pytest.fixture(scope="module")
def encoder():
    return kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)


def images(numbers, count):
    """Images whose labels have not been validated yet."""
    made = kb.data.ArrayImages(PICTURES[:count])
    made.labels = numbers
    return made


def of_features(function, *more, **settings):
    """An entry point that takes four arrays, or the first three."""
    if "test_labels" in inspect.signature(function).parameters:
        return lambda train, test, _: function(FEATURES, train, TEST_FEATURES, test, *more, **settings)
    return lambda train, test, _: function(FEATURES, train, TEST_FEATURES, *more, **settings)


def of_images(function, **settings):
    """An entry point that takes an encoder and two collections of images."""
    return lambda train, test, encoder: function(encoder, images(train, 30), images(test, 18), **settings)


def probe_of_pairs(probe, **settings):
    return lambda train, test, _: probe((PICTURES, train), (PICTURES[:18], test), **settings)


def probe_of_images(probe, **settings):
    return lambda train, test, _: probe(images(train, 30), images(test, 18), **settings)


def checked_images(train, test, _):
    return [one.labels for one in heads.checked_images(images(train, 30), images(test, 18))]


# For each entry point: how to call it, and which labels it takes.
ENTRY_POINTS = {
    "knn_scores": (of_features(evaluation.knn_scores, k=3), "train"),
    "knn_predict": (of_features(evaluation.knn_predict, k=3), "train"),
    "knn_accuracy": (of_features(evaluation.knn_accuracy, k=3), "both"),
    "linear_scores": (of_features(evaluation.linear_scores), "train"),
    "linear_accuracy": (of_features(evaluation.linear_accuracy), "both"),
    "linear_classifier": (lambda train, *_: evaluation.linear.linear_classifier(FEATURES, train), "train"),
    "few_label_accuracy": (of_features(evaluation.few_label_accuracy, labels_per_class=2), "both"),
    "evaluate_features": (of_features(evaluation.evaluate_features, k=3), "both"),
    "top_k_accuracy": (lambda train, test, _: evaluation.top_k_accuracy(SCORES, test), "scored"),
    "train_heads": (of_images(evaluation.train_heads, epochs=1), "both"),
    "linear_probe": (of_images(evaluation.linear_probe, epochs=1, batch_size=15), "both"),
    "multi_stage_probe": (of_images(evaluation.multi_stage_probe, epochs=1), "both"),
    "fine_tune": (of_images(evaluation.fine_tune, epochs=1), "both"),
    # Called first by examples/evaluate.py and examples/ablate.py.
    "checked_images": (checked_images, "both"),
    "knn_head": (lambda train, *_: export.knn_head(FEATURES, train, k=3), "train"),
    "linear_head": (lambda train, *_: export.linear_head(FEATURES, train), "train"),
    "KNNProbe": (probe_of_pairs(callbacks.KNNProbe, k=3), "both"),
    "LinearProbe": (probe_of_pairs(callbacks.LinearProbe), "both"),
    "KNNProbe of Images": (probe_of_images(callbacks.KNNProbe, k=3), "both"),
    "LinearProbe of Images": (probe_of_images(callbacks.LinearProbe), "both"),
}
# These take boxes or multi-label targets (see below and tests/test_detection.py).
OTHERS = {"multi_label_scores", "mean_average_precision", "detection_probe", "box_precision"}


def test_every_entry_point_is_listed():
    names = ("labels", "train_labels", "test_labels", "train", "test", "targets", "train_targets", "true_labels")
    found = {
        item.__name__
        for module in (evaluation, callbacks, export)
        for item in (getattr(module, name) for name in module.__all__)
        if callable(item)
        and set(names) & set(inspect.signature(item.__init__ if inspect.isclass(item) else item).parameters)
    }
    assert found - OTHERS <= set(ENTRY_POINTS) and found >= OTHERS


def one_nan(numbers):
    return np.where(np.arange(len(numbers)) == 1, np.nan, numbers)


def masked(numbers):
    return np.ma.masked_array(numbers, mask=np.arange(len(numbers)) == 1)


# For each mistake: how to make it, the error, and the labels in which it is one.
WRONG = {
    "missing": (lambda _: None, "This function needs labels. Received: none for", "all"),
    "-1": (lambda numbers: np.where(numbers == 1, -1, numbers), r"numbers from 0. Received: \[-1\]", "all"),
    "one-hot": (lambda numbers: np.eye(CLASSES)[numbers], r"one-hot: use labels.argmax\(axis=1\)", "all"),
    "several": (lambda numbers: np.ones((len(numbers), 4), int), r"evaluation.multi_label_scores", "all"),
    "fractions": (lambda numbers: numbers + 0.5, r"whole class numbers. Received: \[0.5, 1.5, 2.5\]", "all"),
    "NaN": (one_nan, "Every row must have a label. Received: NaN", "all"),
    "None for some": (lambda numbers: np.array([None, *numbers[1:]]), "Received: missing values", "all"),
    "masked": (masked, "Received: .* with masked values", "all"),
    "strings": (lambda numbers: np.array(["cat", "cow", "dog"])[numbers], "such as 'cat'. Number the classes", "all"),
    "objects": (lambda numbers: np.array(["cat", "cow", "dog"], object)[numbers], "such as 'cat'. Number", "all"),
    "one less": (lambda numbers: numbers[1:], r"Received: (29 labels for 30|17 labels for 18) rows", "all"),
    "one more": (lambda numbers: np.append(numbers, 0), r"Received: (31 labels for 30|19 labels for 18) rows", "all"),
    "a row": (lambda numbers: numbers[None], r"Use labels.reshape\(-1\)", "all"),
    "a number": (lambda _: 1, r"labels of shape \(\)", "all"),
    "none at all": (lambda numbers: numbers[:0], "must be at least one label", "all"),
    "ragged": (lambda numbers: [[0, 1], *([int(one)] for one in numbers[1:])], "rows of several lengths", "all"),
    "gaps": (lambda numbers: numbers * 10**8, "must not have huge gaps.*Received: 200000000", "all"),
    "one class": (lambda numbers: numbers * 0, "at least 2 classes. Received: .* with class 0 only", "train"),
    "a class of its own": (lambda numbers: np.append(numbers[1:], 7), r"same classes. Received: labels \[7\]", "test"),
    "no score": (lambda numbers: np.append(numbers[1:], 7), "Every label must have a score.*label 7", "scored"),
}


def refusal(function, *arguments):
    """Returns the error of a function, or that it accepted the arguments."""
    try:
        return f"accepted: {function(*arguments)}"
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_wrong_labels_are_rejected(name, encoder):
    call, taken = ENTRY_POINTS[name]
    for side in {"train": ("train",), "both": ("train", "test"), "scored": ("scored",)}[taken]:
        for wrong, (change, message, where) in WRONG.items():
            if where in ("all", side):
                train, test = (change(TRAIN), TEST) if side == "train" else (TRAIN, change(TEST))
                error = refusal(call, train, test, encoder)
                assert re.search(message, error) and "Received: " in error, f"{wrong} in {side}: {error}"


# Other forms of the same labels.
SAME = {
    "column": lambda numbers: numbers[:, None],
    "list": lambda numbers: numbers.tolist(),
    "uint8": lambda numbers: numbers.astype("uint8"),
    "whole floats": lambda numbers: numbers.astype("float32"),
    "tensor": keras.ops.convert_to_tensor,
}
# Fast entry points that return numbers.
QUICK = [name for name in ENTRY_POINTS if not name.endswith(("Probe", "Images", "head", "heads", "_probe", "_tune"))]


@pytest.mark.parametrize("name", QUICK)
def test_other_forms_of_labels_give_the_same_results(name, encoder):
    call, _ = ENTRY_POINTS[name]
    expected = keras.tree.flatten(call(TRAIN, TEST, encoder))
    for way, same in SAME.items():
        got = keras.tree.flatten(call(same(TRAIN), same(TEST), encoder))
        assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True)), way


def test_a_column_of_labels_trains_a_linear_probe_and_a_head(encoder):
    call, _ = ENTRY_POINTS["linear_probe"]
    assert call(TRAIN[:, None], TEST[:, None], encoder) == call(TRAIN, TEST, encoder)
    for make in (export.knn_head, export.linear_head):
        got, expected = (make(FEATURES, one)(TEST_FEATURES).numpy() for one in (TRAIN[:, None], TRAIN))
        np.testing.assert_array_equal(got, expected)


def test_the_remedies_work(encoder):
    """Applies the remedies of the errors."""
    call, _ = ENTRY_POINTS["evaluate_features"]
    expected = call(TRAIN, TEST, encoder)
    train, test = (np.array(["cat", "cow", "dog"])[one] for one in (TRAIN, TEST))
    names, numbers = np.unique(train, return_inverse=True)
    assert call(numbers, np.searchsorted(names, test), encoder) == expected
    names, numbers = np.unique(TRAIN * 10**8, return_inverse=True)
    assert call(numbers, np.searchsorted(names, TEST * 10**8), encoder) == expected
    hot = [np.eye(CLASSES)[one] for one in (TRAIN, TEST)]
    assert call(*(one.argmax(axis=1) for one in hot), encoder) == expected
    assert call(TRAIN[None].reshape(-1), TEST[None].reshape(-1), encoder) == expected
    targets = np.eye(CLASSES)[labels.checked_labels(TRAIN)]
    assert evaluation.multi_label_scores(FEATURES, targets, TEST_FEATURES).shape == (18, 3)
    # Unlabeled rows, and rows of classes that training lacks.
    train_labels, test_labels = np.where(TRAIN == 1, -1, TRAIN), TEST
    keep = train_labels >= 0
    train_labels, features = train_labels[keep], FEATURES[keep]
    keep = np.isin(test_labels, train_labels)
    assert evaluation.knn_accuracy(features, train_labels, TEST_FEATURES[keep], test_labels[keep], k=3) > 0.5
    keep = ~np.isnan(one_nan(TRAIN))
    assert evaluation.knn_predict(FEATURES[keep], one_nan(TRAIN)[keep], TEST_FEATURES, k=3).shape == (18,)
    keep = ~np.ma.getmaskarray(masked(TRAIN))
    assert labels.checked_labels(masked(TRAIN)[keep]).shape == (29,)
    np.testing.assert_array_equal(labels.checked_labels(np.digitize([0.1, 0.7], [0.5])), [0, 1])


def test_class_numbers_may_have_gaps_and_may_be_many():
    subset = np.array([3, 999, 21_000])
    np.testing.assert_array_equal(labels.checked_labels(subset), subset)
    many = np.arange(100_000)
    np.testing.assert_array_equal(labels.checked_labels(many), many)
    predicted = evaluation.knn_predict(FEATURES, subset[TRAIN], TEST_FEATURES, k=3)
    np.testing.assert_array_equal(predicted, subset[evaluation.knn_predict(FEATURES, TRAIN, TEST_FEATURES, k=3)])


WRONG_TARGETS = {
    "missing": (lambda _: None, "needs labels. Received: none"),
    "class numbers": (lambda targets: targets.argmax(axis=1), r"must be \(n, classes\).*np.eye\(classes\)"),
    "counts": (lambda targets: targets * 2, r"1 if the image has the label.*Received: \[2\]"),
    "shares": (lambda targets: targets * 0.5, r"whole.*Received: \[0.5\]"),
    "NaN": (lambda targets: np.where(targets > 0, np.nan, targets), "Received: NaN"),
    "strings": (lambda targets: targets.astype(str), "Labels must be class numbers. Received: .*dtype <U"),
    "one less": (lambda targets: targets[1:], "labels for"),
}


def test_wrong_targets_are_rejected():
    for wrong, (change, message) in WRONG_TARGETS.items():
        train, test = change(np.eye(CLASSES)[TRAIN]), change(np.eye(CLASSES)[TEST])
        for error in (
            refusal(evaluation.multi_label_scores, FEATURES, train, TEST_FEATURES),
            refusal(evaluation.mean_average_precision, SCORES, test),
        ):
            assert re.search(message, error), f"{wrong}: {error}"


def last_value(value):
    def change(features):
        features = np.array(features)
        features[-1, -1] = value
        return features

    return change


WRONG_FEATURES = {
    "missing": (lambda _: None, "Received: none for"),
    "NaN": (last_value(np.nan), r"must be finite. Received: NaN or infinite values in .*, first in row (29|17)"),
    "infinite": (last_value(-np.inf), "must be finite"),
    "beyond float32": (lambda features: features.astype("float64") * 1e300, "must be finite"),
    "rank 1": (lambda features: features[:, 0], r"numbers \(n, features\)"),
    "maps": (lambda features: features[:, None, None], r"Reshape feature maps and images to \(n, -1\)"),
    "no rows": (lambda features: features[:0], "at least one row"),
    "strings": (lambda features: features.astype(str), "dtype <U"),
    "masked": (lambda features: np.ma.masked_greater(features, 0.9), "with masked values"),
    "ragged": (lambda features: [[1.0], *features.tolist()[1:]], "rows of several lengths"),
}
# Functions of training and test features.
FEATURE_ENTRY_POINTS = {
    "knn_scores": lambda a, b: evaluation.knn_scores(a, TRAIN, b, k=3),
    "knn_predict": lambda a, b: evaluation.knn_predict(a, TRAIN, b, k=3),
    "knn_accuracy": lambda a, b: evaluation.knn_accuracy(a, TRAIN, b, TEST, k=3),
    "linear_scores": lambda a, b: evaluation.linear_scores(a, TRAIN, b),
    "linear_accuracy": lambda a, b: evaluation.linear_accuracy(a, TRAIN, b, TEST),
    "few_label_accuracy": lambda a, b: evaluation.few_label_accuracy(a, TRAIN, b, TEST, labels_per_class=2),
    "evaluate_features": lambda a, b: evaluation.evaluate_features(a, TRAIN, b, TEST, k=3),
    "multi_label_scores": lambda a, b: evaluation.multi_label_scores(a, np.eye(CLASSES)[TRAIN], b),
    "nearest_neighbors": lambda a, b: evaluation.nearest_neighbors(b, a, k=3),
    "retrieval.search": lambda a, b: kb.retrieval.search(kb.retrieval.Gallery(np.arange(30).astype(str), a), b, k=3),
    "retrieval.duplicates": lambda a, b: kb.retrieval.duplicates(a),
    "knn_head": lambda a, b: export.knn_head(a, TRAIN, k=3),
    "linear_head": lambda a, b: export.linear_head(a, TRAIN),
    "effective_rank": lambda a, b: evaluation.effective_rank(a),
    "embedding_deviation": lambda a, b: evaluation.embedding_deviation(a),
    "mean_correlation": lambda a, b: evaluation.mean_correlation(a),
}
OF_ONE_ARRAY = list(FEATURE_ENTRY_POINTS)[-6:]


@pytest.mark.parametrize("name", FEATURE_ENTRY_POINTS)
def test_wrong_features_are_rejected(name):
    call = FEATURE_ENTRY_POINTS[name]
    for wrong, (change, message) in WRONG_FEATURES.items():
        # retrieval.load has already checked the shape of a gallery.
        if name != "retrieval.search" or wrong in ("NaN", "infinite"):
            error = refusal(call, change(FEATURES), TEST_FEATURES)
            assert re.search(message, error), f"{wrong}: {error}"
        if name not in OF_ONE_ARRAY:
            error = refusal(call, FEATURES, change(TEST_FEATURES))
            assert re.search(message, error), f"{wrong} of the test images: {error}"
    if name not in OF_ONE_ARRAY:
        assert re.search("of (one|the) encoder", refusal(call, FEATURES, TEST_FEATURES[:, :2]))
