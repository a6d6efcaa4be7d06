"""Ties of similarities, scores and rows have one result for any chunk size, order and rounding."""

import fractions

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_barlow import evaluation
from keras_barlow.evaluation import knn

RNG = np.random.default_rng(0)
CHUNKS = [(1, 7), (3, 50), (16, 16), (50, 1), (1024, 10**6)]


def by_exact_fractions(queries, bank, k):
    """The rule in exact arithmetic: larger cosines first, and among ties the row that comes first in the bank."""
    rows = []
    for query in queries.tolist():
        keys = []
        for number, row in enumerate(bank.tolist()):
            product = sum(one * other for one, other in zip(query, row, strict=True))
            length = sum(one * one for one in row)
            # The signed square of the cosine, up to the norm of the query.
            square = fractions.Fraction(product * abs(product), length) if length else fractions.Fraction(0)
            keys.append((-square, number))
        rows.append([number for _, number in sorted(keys)[:k]])
    return np.array(rows)


@pytest.fixture
def in_chunks(monkeypatch):
    def set_chunks(chunk, bank):
        monkeypatch.setattr(knn, "_CHUNK_ROWS", chunk)
        monkeypatch.setattr(knn, "_BANK_ROWS", bank)

    return set_chunks


@pytest.mark.parametrize("k", [1, 7, 119, 120])
def test_ties_go_to_the_first_rows_of_the_bank(k, in_chunks):
    queries, bank = RNG.integers(-1, 2, (40, 4)), RNG.integers(-1, 2, (120, 4))
    assert (bank == 0).all(axis=1).any() and len(np.unique(bank, axis=0)) < 80
    # Rows of different norms in the same direction tie as well.
    bank *= RNG.integers(1, 4, (120, 1))
    for order in (np.arange(120), RNG.permutation(120)):
        expected = by_exact_fractions(queries, bank[order], k)
        for chunks in CHUNKS:
            in_chunks(*chunks)
            indices, similarities = evaluation.nearest_neighbors(queries, bank[order], k)
            np.testing.assert_array_equal(indices, expected)
            assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("features", [3, 64, 517])
def test_similarities_do_not_depend_on_the_chunks(features, in_chunks):
    """Not in a single bit, although the last bits of a float matrix product depend on its shape."""
    bank = np.tile(RNG.normal(size=(70, features)), (3, 1)).astype("float32")[RNG.permutation(210)]
    queries = RNG.normal(size=(45, features)).astype("float32")
    results = []
    for chunks in CHUNKS:
        in_chunks(*chunks)
        results.append(evaluation.nearest_neighbors(queries, np.asfortranarray(bank), 40))
    for indices, similarities in results:
        np.testing.assert_array_equal(indices, results[0][0])
        np.testing.assert_array_equal(similarities, results[0][1])
    unit = [one.astype("float64") / np.linalg.norm(one.astype("float64"), axis=1)[:, None] for one in (queries, bank)]
    expected = -np.sort(-(unit[0] @ unit[1].T), axis=1)[:, :40]
    np.testing.assert_allclose(results[0][1], expected, atol=1e-7)
    # Copies are adjacent, in the order of the bank.
    same = (bank[results[0][0]][:, 1:] == bank[results[0][0]][:, :-1]).all(axis=2)
    assert same.sum() > 45 * 20 and (np.diff(results[0][0], axis=1)[same] > 0).all()


def test_the_accuracy_does_not_depend_on_the_chunks(in_chunks):
    """A bank of 20 images, 10 copies each, with random labels, so that only ties matter."""
    bank = np.repeat(RNG.integers(0, 3, (20, 8)), 10, axis=0)
    labels, test_labels = RNG.integers(0, 10, 200), np.arange(500) % 10
    queries = RNG.integers(0, 3, (500, 8))
    accuracies = []
    for chunks in [*CHUNKS[1:], (64, 37)]:
        in_chunks(*chunks)
        accuracies.append(evaluation.knn_accuracy(bank, labels, queries, test_labels, k=4))
    assert len(set(accuracies)) == 1


def test_rows_of_any_length_have_a_direction():
    bank = np.array([[1e-30, 0], [0, 1e30], [3e38, 3e38], [0, 0]], "float32")
    indices, similarities = evaluation.nearest_neighbors([[1.0, 0.0], [1e-20, 1e-20]], bank, k=4)
    assert indices.tolist() == [[0, 2, 1, 3], [2, 0, 1, 3]]
    np.testing.assert_allclose(similarities, [[1, 0.5**0.5, 0, 0], [1, 0.5**0.5, 0.5**0.5, 0]], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(knn.unit_rows(bank), axis=1), [1, 1, 1, 0], atol=1e-6)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must be positive and finite.*use k=1"):
        evaluation.knn_predict([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.0, 0.2]], k=1, temperature=temperature)


@pytest.mark.parametrize("k", [2.5, True, "all"])
def test_k_is_a_whole_number(k):
    with pytest.raises(ValueError, match="`k` must be between 1 and"):
        evaluation.nearest_neighbors([[1.0]], [[1.0], [2.0], [3.0]], k)


@pytest.mark.parametrize("definition", ["area", "11-point"])
def test_precision_does_not_depend_on_the_order_of_rows_with_equal_scores(definition):
    scores = np.append(RNG.integers(0, 4, 50).astype(float), [np.inf, np.inf, -np.inf, -np.inf])
    relevant = RNG.integers(0, 2, 54)
    relevant[50:] = [0, 1, 0, 1]
    orders = [np.lexsort((relevant, scores)), np.lexsort((-relevant, scores)), RNG.permutation(54)]
    precisions = {evaluation.average_precision(scores[order], relevant[order], definition) for order in orders}
    assert len(precisions) == 1
    if definition == "area":
        finite = np.nan_to_num(scores, posinf=9.0, neginf=-9.0)
        np.testing.assert_allclose(precisions.pop(), average_precision_score(relevant, finite))


def test_eleven_points_by_hand_where_all_scores_are_equal():
    # One threshold: 2 of 5 are relevant at every recall.
    assert evaluation.average_precision(np.ones(5), [1, 0, 0, 1, 0], definition="11-point") == 0.4


def test_bad_scores():
    for relevant, message in (([1, 0, -1], "such as -1. Drop the rows"), ([1, 0], r"shape \(2,\) for 3 scores")):
        with pytest.raises(ValueError, match=message):
            evaluation.average_precision([0.1, 0.2, 0.3], relevant)
    broken = np.array([[0.1, 0.9], [np.nan, 0.2]])
    for call in (
        lambda: evaluation.average_precision(broken[:, 0], [1, 0]),
        lambda: evaluation.mean_average_precision(broken, [[1, 0], [0, 1]]),
        lambda: evaluation.top_k_accuracy(broken, [0, 1]),
    ):
        with pytest.raises(ValueError, match="Received: NaN, first in row 1"):
            call()
    # Among equal scores, the lower class number ranks first.
    assert evaluation.top_k_accuracy(np.zeros((4, 3)), [0, 1, 2, 0], k=1) == 0.5
    assert evaluation.top_k_accuracy(np.zeros((4, 3)), [0, 1, 2, 0], k=2) == 0.75


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 50, 1000])
def test_equal_rows_count_as_collapsed(rows, dtype):
    for row in (RNG.normal(size=33), np.full(33, 0.1), np.zeros(33), 1e6 * RNG.normal(size=33)):
        embeddings = np.tile(row, (rows, 1)).astype(dtype)
        assert evaluation.effective_rank(embeddings) == 0.0
        assert evaluation.embedding_deviation(embeddings) == 0.0
        assert evaluation.mean_correlation(embeddings) == 0.0
        # The same row, as if summed in a different order.
        noisy = embeddings * (1 + np.finfo(dtype).eps * RNG.integers(-1, 2, embeddings.shape)).astype(dtype)
        assert evaluation.effective_rank(noisy) == evaluation.embedding_deviation(noisy) == 0.0


def test_differences_above_rounding_count():
    embeddings = (1.0 + 1e-4 * RNG.normal(size=(200, 5))).astype("float32")
    assert 4.5 < evaluation.effective_rank(embeddings) <= 5.0
    assert evaluation.embedding_deviation(embeddings) > 0 and 0 < evaluation.mean_correlation(embeddings) < 0.2
    with pytest.raises(ValueError, match="at least 2 features"):
        evaluation.mean_correlation(np.ones((3, 1)))
