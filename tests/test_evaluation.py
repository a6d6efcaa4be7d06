import functools
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import keras_barlow as kb
from keras_barlow import evaluation
from keras_barlow.evaluation import knn


def clusters(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    centers = np.random.default_rng(9).normal(size=(4, 6))
    return (centers[labels] + rng.normal(size=(count, 6))).astype("float32"), labels


TRAIN, TEST = clusters(300, 0), clusters(100, 1)


@pytest.mark.parametrize("k, temperature", [(1, 0.1), (7, 0.1), (200, 0.07)])
def test_knn_agrees_with_scikit_learn(k, temperature, monkeypatch):
    monkeypatch.setattr(knn, "_CHUNK_ROWS", 32)
    monkeypatch.setattr(knn, "_BANK_ROWS", 70)
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    expected = reference.fit(*TRAIN).predict(TEST[0])
    np.testing.assert_array_equal(evaluation.knn_predict(*TRAIN, TEST[0], k, temperature), expected)
    assert evaluation.knn_accuracy(*TRAIN, *TEST, k, temperature) == np.mean(expected == TEST[1])


def test_a_bank_on_disk_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(knn, "_BANK_ROWS", 70)
    np.save(tmp_path / "bank.npy", TRAIN[0])
    bank = np.load(tmp_path / "bank.npy", mmap_mode="r")
    for got, expected in zip(
        evaluation.nearest_neighbors(TEST[0], bank, k=90),
        evaluation.nearest_neighbors(*(TEST[0], TRAIN[0]), k=90),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_top_k_and_linear_scores_agree_with_scikit_learn():
    scaler = StandardScaler().fit(TRAIN[0])
    probe = LogisticRegression(max_iter=1000).fit(scaler.transform(TRAIN[0]), TRAIN[1])
    expected = probe.predict_proba(scaler.transform(TEST[0]))
    scores = evaluation.linear_scores(*TRAIN, TEST[0])
    # Our solver has a larger tolerance, for speed.
    np.testing.assert_allclose(scores, expected, atol=1e-2)
    accuracy = evaluation.linear_accuracy(*TRAIN, *TEST)
    assert abs(accuracy - probe.score(scaler.transform(TEST[0]), TEST[1])) < 1e-3
    for k in (1, 2, 3):
        assert evaluation.top_k_accuracy(expected, TEST[1], k) == top_k_accuracy_score(TEST[1], expected, k=k)
    votes = evaluation.knn_scores(*TRAIN, TEST[0], k=20)
    assert evaluation.top_k_accuracy(votes, TEST[1], 5) == 1.0
    with pytest.raises(ValueError, match=r"Every label must have a score.*label 9.*4 classes"):
        evaluation.top_k_accuracy(scores, [9] * len(scores))


@pytest.mark.parametrize("distinct", [True, False])
def test_average_precision_agrees_with_scikit_learn_and_with_the_definition(distinct):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 3)) if distinct else rng.integers(0, 6, (60, 3)).astype(float)
    targets = rng.integers(0, 2, (60, 3))
    expected = average_precision_score(targets, scores, average=None)
    for number in range(3):
        got = evaluation.average_precision(scores[:, number], targets[:, number])
        np.testing.assert_allclose(got, expected[number], atol=1e-12)
    np.testing.assert_allclose(evaluation.mean_average_precision(scores, targets), expected.mean(), atol=1e-12)
    # Images that are ignored for a class have no effect.
    hidden = np.where(rng.uniform(size=(60, 3)) < 0.3, -1, targets)
    kept = [hidden[:, number] >= 0 for number in range(3)]
    parts = [average_precision_score(targets[rows, c], scores[rows, c]) for c, rows in enumerate(kept)]
    np.testing.assert_allclose(evaluation.mean_average_precision(scores, hidden), np.mean(parts), atol=1e-12)


def test_eleven_points():
    # Relevant rows at ranks 1, 3 and 6: precision 1, 2/3 and 1/2 at recall 1/3, 2/3 and 1.
    relevant = [1, 0, 1, 0, 0, 1, 0]
    points = [1.0] * 4 + [2 / 3] * 3 + [0.5] * 4
    got = evaluation.average_precision(-np.arange(7.0), relevant, definition="11-point")
    np.testing.assert_allclose(got, np.mean(points), atol=1e-12)


def test_multi_label_scores_agree_with_scikit_learn_and_bad_input():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5))
    targets = (features @ rng.normal(size=(5, 3)) + 0.3 * rng.normal(size=(200, 3)) > 0).astype(int)
    # Ignored targets have no effect.
    targets[:10, 0] = -1
    train, test = slice(0, 100), slice(100, 200)
    scores = evaluation.multi_label_scores(features[train], targets[train], features[test])
    for number, start in enumerate((10, 0, 0)):
        scaler = StandardScaler().fit(features[start:100])
        fitted = LogisticRegression(max_iter=1000).fit(
            scaler.transform(features[start:100]), targets[start:100, number]
        )
        np.testing.assert_allclose(
            average_precision_score(targets[test, number], scores[:, number]),
            average_precision_score(targets[test, number], fitted.decision_function(scaler.transform(features[test]))),
            atol=1e-3,
        )
    assert evaluation.mean_average_precision(scores, targets[test]) > 0.9
    with pytest.raises(ValueError, match=r"class 1, which is on 0 of 100"):
        evaluation.multi_label_scores(features[train], targets[train] * [1, 0, 1], features[test])
    with pytest.raises(ValueError, match=r"at least one image. Received: none of class 1"):
        evaluation.mean_average_precision(targets, targets * [1, 0, 1])
    with pytest.raises(ValueError, match="`definition` must be one of"):
        evaluation.average_precision([1.0], [1], definition="10-point")


@pytest.mark.parametrize("scores", [evaluation.knn_scores, evaluation.linear_scores, evaluation.multi_label_scores])
def test_features_of_another_encoder_are_refused(scores):
    features, labels = TRAIN
    labels = np.eye(4, dtype=int)[labels] if scores is evaluation.multi_label_scores else labels
    with pytest.raises(ValueError, match=r"of one encoder. Received: shapes \(300, 6\) and \(100, 5\)"):
        scores(features, labels, TEST[0][:, :5])
    with pytest.raises(ValueError, match="Received: 299 labels for 300 rows"):
        scores(features, labels[1:], TEST[0])


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


def labeled_images(count=24, seed=0, classes=3):
    """Images whose classes differ in color."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, 10, 10, 3)) + 90 * (np.arange(3) == labels[:, None])[:, None, None]
    return kb.data.ArrayImages(images.astype("uint8"), labels)


def small_encoder():
    keras.utils.set_random_seed(0)
    return kb.encoders.resnet((1, 1), input_shape=(8, 8, 3), stem="small", width=4)


@pytest.fixture
def encoder():
    """An encoder that the test must leave unchanged to the bit, including moving statistics."""
    encoder = small_encoder()
    before = encoder.get_weights()
    yield encoder
    assert all(one.tobytes() == other.tobytes() for one, other in zip(before, encoder.get_weights(), strict=True))


def test_a_linear_probe_learns_and_leaves_the_encoder(encoder):
    train, test = labeled_images(), labeled_images(seed=1)
    result = evaluation.linear_probe(encoder, train, test, epochs=30, batch_size=10)
    assert result["top1"] > 0.9 and result["top5"] == 1.0
    assert result == evaluation.linear_probe(encoder, train, test, epochs=30, batch_size=10)


def test_all_stages_are_probed_in_one_training(encoder):
    results = evaluation.multi_stage_probe(encoder, labeled_images(), labeled_images(seed=1), epochs=20, batch_size=8)
    assert list(results) == ["feature1", "feature2", "feature3", "features"]
    # The features are the pooled last feature map.
    assert abs(results["feature3"]["top1"] - results["features"]["top1"]) < 0.2
    stages = kb.encoders.stage_outputs(encoder)
    assert [stage.shape[1:] for stage in stages] == [(8, 8, 4), (8, 8, 4), (4, 4, 8)]


def test_fine_tuning_trains_a_copy_on_a_fraction_of_the_labels(encoder):
    train = labeled_images(60)
    result = evaluation.fine_tune(encoder, train, labeled_images(seed=1), fraction=0.2, epochs=20, encoder_rate=0.05)
    assert result["images"] == 12 and result["top1"] > 0.6
    rows = evaluation.fine_tuning.rows_of_each_class(train.labels, 0.2, seed=3)
    np.testing.assert_array_equal(np.bincount(train.labels[rows]), [4, 4, 4])
    np.testing.assert_array_equal(rows, evaluation.fine_tuning.rows_of_each_class(train.labels, 0.2, seed=3))
    assert not np.array_equal(rows, evaluation.fine_tuning.rows_of_each_class(train.labels, 0.2, seed=4))


def test_a_separate_encoder_rate_equals_two_optimizers():
    images, labels = labeled_images(8).array[:, :8, :8], labeled_images(8).labels
    one, other = (evaluation.head_training.Heads(small_encoder(), 3, frozen=False, encoder_rate=0.01) for _ in range(2))
    other.heads[0].set_weights(one.heads[0].get_weights())
    one.compile(keras.optimizers.SGD(0.5, momentum=0.9))
    optimizers = [keras.optimizers.SGD(rate, momentum=0.9) for rate in (0.5, 0.005)]
    for _ in range(3):
        one.train_on_batch(images, labels)
        parts = [other.heads[0].trainable_weights, other.encoder.trainable_weights]
        with tf.GradientTape() as tape:
            scores = other(images, training=True)[0]
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))
        gradients = tape.gradient(loss, [[weight.value for weight in part] for part in parts])
        for optimizer, part, gradient in zip(optimizers, parts, gradients, strict=True):
            optimizer.apply(gradient, part)
    for got, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bad_input_before_any_training(encoder):
    train, test = labeled_images(), labeled_images(seed=1)
    unlabeled = kb.data.ArrayImages(train.array)
    for run in (evaluation.linear_probe, evaluation.fine_tune, evaluation.multi_stage_probe):
        with pytest.raises(ValueError, match=r"needs labels. Received: none for `train`"):
            run(encoder, unlabeled, test)
        with pytest.raises(ValueError, match=r"needs labels. Received: none for `test`"):
            run(encoder, train, None)
        with pytest.raises(ValueError, match=r"same classes. Received: labels \[.*3.*\] of test images"):
            run(encoder, train, labeled_images(classes=5))
    with pytest.raises(ValueError, match=r"keep at least one image.*fraction=0.01 of 8 images of class 0"):
        evaluation.fine_tune(encoder, train, test, fraction=0.01)
    with pytest.raises(ValueError, match="`fraction` must be in"):
        evaluation.fine_tune(encoder, train, test, fraction=0)
    several = kb.data.ArrayImages(train.array, np.eye(3, dtype="int64")[train.labels])
    for run in (evaluation.linear_probe, evaluation.fine_tune):
        with pytest.raises(ValueError, match=r"one label per image. Received: .* \(24, 3\) for `train`"):
            run(encoder, several, several)
    check = functools.partial(evaluation.input_checks.checked_images, several=True)
    check(several, several)
    with pytest.raises(ValueError, match="labels of one kind"):
        check(train, several)
    with pytest.raises(ValueError, match="same classes"):
        check(several, kb.data.ArrayImages(train.array, several.labels[:, :2]))
    with pytest.raises(ValueError, match=r"class 0, which is on 0 of 24"):
        check(kb.data.ArrayImages(train.array, several.labels * [0, 1, 1]), several)
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="layers are named by stage"):
        evaluation.multi_stage_probe(plain, train, test)


@pytest.fixture
def run(tmp_path):
    """Runs the example on a model in `tmp_path` and on images in `tmp_path / "data"`."""
    model = kb.BarlowTwins(small_encoder(), kb.Projector((8, 8)))
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    kb.export.save_encoder(model, tmp_path / "saved")
    for split, seed in (("train", 0), ("test", 1)):
        source = labeled_images(24, seed)
        for row, (image, label) in enumerate(zip(source.array, source.labels, strict=True)):
            (tmp_path / "data" / split / str(label)).mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(tmp_path / "data" / split / str(label) / f"{row}.png", image)
    several = {"x_train": labeled_images(24).array, "y_train": np.eye(3, dtype="int64")[labeled_images(24).labels]}
    np.savez(tmp_path / "several.npz", x_test=several["x_train"], y_test=several["y_train"], **several)
    script = pathlib.Path(__file__).parents[1] / "examples" / "evaluate.py"

    def run(*flags):
        command = [sys.executable, script, f"--encoder={tmp_path}", f"--data_dir={tmp_path / 'data'}", *flags]
        return subprocess.run(command, capture_output=True, text=True)

    return run


@pytest.mark.full
def test_the_example_runs_every_protocol(run, tmp_path):
    protocols = "knn,linear_fast,linear,multi_stage,semi_supervised,finetune,transfer,detection"
    done = run(f"--protocol={protocols}", "--epochs=2", "--batch_size=8", "--fraction=0.5,1", "--scenes=8")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(results) == protocols.split(",") and results["semi_supervised"]["0.5"]["images"] == 12
    assert "multi_stage feature2" in done.stdout and "top5" in done.stdout and "ap50" in done.stdout
    assert results["transfer"] == results["linear"]


@pytest.mark.full
def test_the_example_on_several_labels_and_on_fractions(run, tmp_path):
    several = f"--data_dir={tmp_path / 'several.npz'}"
    done = run("--protocol=transfer", several, f"--output={tmp_path / 'several.json'}")
    assert done.returncode == 0, done.stderr
    precisions = json.loads((tmp_path / "several.json").read_text())["transfer"]
    assert 0.5 < precisions["map"] <= 1 and 0.5 < precisions["map_11_points"] <= 1
    done = run("--protocol=semi_supervised", "--fraction=1,0.01")
    assert done.returncode == 1 and "keep at least one image" in done.stderr and "Epoch" not in done.stdout


@pytest.mark.full
def test_the_example_on_a_saved_model_and_on_bad_input(run, tmp_path):
    saved = f"--encoder={tmp_path / 'saved'}"
    protocols, settings = "--protocol=knn,linear", ("--epochs=2", "--batch_size=8")
    for flags in ((), (saved,)):
        done = run(protocols, *settings, *flags)
        assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in (".", "saved")]
    assert results[0] == results[1]
    for flags, message in (
        (("--protocol=knn", f"--data_dir={tmp_path / 'several.npz'}"), "(--protocol=transfer)"),
        (("--protocol=finetune", saved), "Fine-tuning needs an encoder with trainable weights"),
        ((f"--encoder={tmp_path / 'data'}",), "which is none of them"),
        (("--protocol=nearest",), "Unknown protocol. Received: 'nearest'"),
    ):
        done = run(*flags)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
