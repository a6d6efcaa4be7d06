import json

import keras
import numpy as np
import pytest

import keras_barlow as kb

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
LABELS = np.arange(8) % 2


def compiled():
    encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=4)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), kb.views.barlow_twins(16, seed=0))
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


@pytest.mark.parametrize("arguments, message", [({"k": 9}, "`k` must be between"), ({"k": 1, "every": 0}, "`every`")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kb.callbacks.KNNProbe((IMAGES, LABELS), (IMAGES, LABELS), **arguments)
