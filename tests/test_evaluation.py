import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from keras_barlow import evaluation
from keras_barlow.evaluation import knn


def clusters(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    centres = np.random.default_rng(9).normal(size=(4, 6))
    return (centres[labels] + rng.normal(size=(count, 6))).astype("float32"), labels


TRAIN, TEST = clusters(300, 0), clusters(100, 1)


@pytest.mark.parametrize("k, temperature", [(1, 0.1), (7, 0.1), (200, 0.07)])
def test_knn_agrees_with_scikit_learn(k, temperature, monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK_ROWS", 32)
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    expected = reference.fit(*TRAIN).predict(TEST[0])
    np.testing.assert_array_equal(evaluation.knn_predict(*TRAIN, TEST[0], k, temperature), expected)
    assert evaluation.knn_accuracy(*TRAIN, *TEST, k, temperature) == np.mean(expected == TEST[1])


def test_neighbors_are_sorted_by_cosine():
    indices, similarities = evaluation.nearest_neighbors(TEST[0], TRAIN[0], k=5)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (TEST[0], TRAIN[0])]
    cosine = unit[0] @ unit[1].T
    np.testing.assert_array_equal(indices, np.argsort(-cosine, axis=1)[:, :5])
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("k", [0, 301])
def test_more_neighbors_than_rows_are_refused(k):
    with pytest.raises(ValueError, match="`k` must be between 1 and the number of rows in the bank, 300"):
        evaluation.nearest_neighbors(TEST[0], TRAIN[0], k)


def test_few_labels_are_balanced_seeded_and_worse_than_all():
    few = evaluation.few_label_accuracy(*TRAIN, *TEST, labels_per_class=2)
    assert few == evaluation.few_label_accuracy(*TRAIN, *TEST, labels_per_class=2)
    assert 0.25 < few < evaluation.linear_accuracy(*TRAIN, *TEST)
    with pytest.raises(ValueError, match="at least labels_per_class=1000 images"):
        evaluation.few_label_accuracy(*TRAIN, *TEST, labels_per_class=1000)
