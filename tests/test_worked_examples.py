"""Runs the code blocks of examples/use_in_keras.md on few images."""

import pathlib
import re

import numpy as np
import pytest

import keras_barlow as kb
from tests import shared

TEXT = (pathlib.Path(__file__).parents[1] / "examples" / "use_in_keras.md").read_text()
PARTS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
SECTIONS = {part.splitlines()[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL) for part in PARTS}


def run(code, names):
    exec(compile(code, "use_in_keras.md", "exec"), names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output folder of a short run, as `pretrain.py` writes it."""
    path = tmp_path_factory.mktemp("worked")
    (path / "runs" / "digits").mkdir(parents=True)
    (images, labels), test = kb.data.digits(copies=1)
    model = kb.BarlowTwins(
        kb.encoders.resnet8((32, 32, 3), stem="small", width=16),
        projector=kb.Projector((64, 64)),
        views=kb.views.barlow_twins(image_size=32),
    )
    model.compile("adam")
    model.fit(images[:512], batch_size=128, epochs=1, verbose=0)
    model.save(path / "runs" / "digits" / "model.keras")
    return path, ((images[:512], labels[:512]), test)


def test_the_document_has_its_sections():
    assert list(SECTIONS)[1:] == [
        "Frozen features in a functional model",
        "Fine-tuning",
        "KerasHub's ImageClassifier",
        "Pre-train a backbone from keras.applications",
        "Pre-train a backbone from KerasHub",
    ]


@pytest.mark.parametrize(
    "section",
    # The others take half a minute to compile.
    shared.few(list(SECTIONS)[1:], "Fine-tuning"),
)
def test_a_section_runs(section, folder, monkeypatch):
    path, digits = folder
    monkeypatch.chdir(path)
    few = (tuple(part[:256] for part in digits[0]), digits[1])
    if not section.startswith("Pre-train"):
        few = digits
    monkeypatch.setattr(kb.data, "digits", lambda: few)
    names = {}
    run(SECTIONS[next(iter(SECTIONS))][0], names)
    before = names["encoder"].get_weights()
    for code in SECTIONS[section]:
        run(code, names)
    if "frozen" in names:
        for weight, old in zip(names["frozen"].get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, old)
        losses = names["classifier"].history.history["loss"]
        assert losses[-1] < losses[0]
    if "fine_tuned" in names:
        losses = names["fine_tuned"].history.history["loss"]
        assert losses[-1] < losses[0]
        assert not np.array_equal(names["encoder"].get_weights()[0], before[0])
    if "image_classifier" in names:
        losses = names["image_classifier"].history.history["loss"]
        assert losses[-1] < losses[0]
