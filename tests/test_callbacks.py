import json

import keras
import numpy as np
import pytest

import keras_barlow as kb

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
LABELS = np.arange(8) % 2


def compiled():
    encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=4)
    flips = kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=0)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), flips)
    model.compile(keras.optimizers.SGD(1e-3))
    return model


def test_knn_probe_reports_every_few_epochs_and_at_the_end(tmp_path):
    model = compiled()
    callbacks = [
        kb.callbacks.KNNProbe((IMAGES, LABELS), (IMAGES, LABELS), k=1, every=2),
        kb.callbacks.MetricsLog(tmp_path / "metrics.jsonl"),
    ]
    history = model.fit(IMAGES, batch_size=4, epochs=3, verbose=0, callbacks=callbacks)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line.get("knn_top1") for line in lines] == [None, 1.0, 1.0]
    assert [line["loss"] for line in lines] == history.history["loss"]
    assert set(lines[0]) == {"epoch", "loss", "invariance", "redundancy"}


def test_probes_do_not_affect_training():
    plain, probed = compiled(), compiled()
    probed.set_weights(plain.get_weights())
    labelled = (IMAGES, LABELS)
    probes = [
        kb.callbacks.LinearProbe(labelled, labelled, passes=20, every=2),
        kb.callbacks.CollapseMonitor(IMAGES, every=2),
        kb.callbacks.KNNProbe(labelled, labelled, k=1),
    ]
    for model, callbacks in ((plain, []), (probed, probes)):
        history = model.fit(kb.data.ArrayImages(IMAGES).batches(4), epochs=3, verbose=0, callbacks=callbacks).history
    for one, other in zip(plain.get_weights(), probed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(history["linear_top1"]) == len(history["effective_rank"]) == 2
    assert history["linear_top5"] == [1.0, 1.0] and history["linear_top1"][1] > 0.7


def test_the_linear_probe_becomes_logistic_regression():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 16, 16, 3), dtype="uint8")
    labels = (images[:, :, :, 0].mean((1, 2)) > images[:, :, :, 1].mean((1, 2))).astype(int)
    train, test = (images[:150], labels[:150]), (images[150:], labels[150:])
    model = compiled()
    probe = kb.callbacks.LinearProbe(train, test, passes=1000, learning_rate=3e-2)
    probe.set_model(model)
    logs = {}
    probe.measure(logs)
    features = [kb.evaluation.extract_features(model, part[0]) for part in (train, test)]
    expected = kb.evaluation.linear_accuracy(features[0], train[1], features[1], test[1], inverse_penalty=1e4)
    assert abs(logs["linear_top1"] - expected) <= 0.04


def test_collapse_is_measured_and_reported(caplog):
    model = compiled()
    monitor = kb.callbacks.CollapseMonitor(IMAGES)
    monitor.set_model(model)
    monitor.measure(logs := {})
    assert logs["embedding_deviation"] > 0.02 and 1 < logs["effective_rank"] <= 7 and "collapse" not in caplog.text
    # Collapse to a point: all images have the same embedding.
    model.encoder.get_layer("stem_normalization").gamma.assign(np.zeros(4))
    monitor.measure(logs)
    assert logs["embedding_deviation"] == 0.0 and "The embeddings collapse to a point" in caplog.text
    # Collapse to one direction.
    model = compiled()
    weights = model.projector.get_weights()
    model.projector.set_weights([np.repeat(weights[0][:, :1] - 0.5, 8, axis=1) * np.linspace(-1, 1, 8)])
    monitor = kb.callbacks.CollapseMonitor(IMAGES, least_deviation=0.0, least_rank=0.2)
    monitor.set_model(model)
    monitor.measure(logs)
    assert logs["effective_rank"] < 1.1 and logs["mean_correlation"] > 0.99
    assert "The embeddings use 1.0 of 7 directions. Raise redundancy_weight" in caplog.text


def test_measures_of_collapse_on_known_embeddings():
    rng = np.random.default_rng(0)
    gaussian = rng.normal(size=(5000, 20))
    assert abs(kb.evaluation.embedding_deviation(gaussian) - 1) < 0.01
    assert abs(kb.evaluation.effective_rank(gaussian) - 20) < 0.1
    expected = np.abs(np.corrcoef(gaussian[:50].T)[~np.eye(20, dtype=bool)]).mean()
    np.testing.assert_allclose(kb.evaluation.mean_correlation(gaussian[:50]), expected, rtol=1e-9)
    assert kb.evaluation.effective_rank(np.ones((4, 3))) == 0.0
    assert kb.evaluation.mean_correlation(np.ones((4, 3))) == 0.0


@pytest.mark.parametrize("arguments, message", [({"k": 9}, "`k` must be between"), ({"k": 1, "every": 0}, "`every`")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kb.callbacks.KNNProbe((IMAGES, LABELS), (IMAGES, LABELS), **arguments)


def test_bad_arguments_of_the_other_probes():
    with pytest.raises(ValueError, match="`passes` must be at least 1"):
        kb.callbacks.LinearProbe((IMAGES, LABELS), (IMAGES, LABELS), passes=0)
    with pytest.raises(ValueError, match="`images` must be at least 2"):
        kb.callbacks.CollapseMonitor(IMAGES[:1])
