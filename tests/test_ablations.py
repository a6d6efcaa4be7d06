"""Tests of the ablation tables and of examples/ablate.py."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from tests import shared

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "ablate.py"
# Runs the script with two rows of a small recipe.
SMALL = """
import os, runpy, sys
import keras_barlow as kb
kb.recipes.ablations._TABLES["loss"] = kb.recipes.ablations.table("loss")[:2]
small = kb.recipes.DIGITS.changed(encoder_options={"width": 4}, projector=(16, 16), batch_size=16)
kb.recipes.get = lambda name, method=None: small
sys.argv[0] = sys.argv.pop(1)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", shared.few(kb.recipes.ablations.names(), "loss", "asymmetry", "batch_size"))
def test_every_row_builds(name):
    base = kb.recipes.CIFAR10_RESNET18 if name == "optimizer" else kb.recipes.CIFAR10_SMALL
    recipe = base.changed(image_size=8, encoder="resnet8", encoder_options={"width": 2})
    recipe = recipe.changed(batch_size=4, projector=(8, 8), precision="float32")
    rows = kb.recipes.ablations.table(name)
    assert len({row.name for row in rows}) == len(rows) > 1
    for row in rows:
        changes = {key: value for key, value in row.changes.items() if key != "batch_size"}
        model = recipe.changed(**changes).build(num_images=8, seed=0)
        weight = row.changes.get("loss_options", {}).get("redundancy_weight", base.loss_options["redundancy_weight"])
        assert model.loss.get_config()["redundancy_weight"] == weight
        assert type(model.optimizer).__name__.lower() == row.changes.get("optimizer", base.optimizer)
        predictor = row.changes.get("method_options", {}).get("predictor", False)
        assert (model.predictor is not None) is predictor


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"Unknown table. Received: 'optimizers'. Known tables: loss, asymmetry"):
        kb.recipes.ablations.table("optimizers")


def test_shuffling_keeps_the_colors_of_each_image_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    shuffled_pixels = importlib.import_module("image_data").shuffled_pixels
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 7, 3), dtype="uint8")
    shuffled = shuffled_pixels(images, seed=1)
    assert shuffled.dtype == images.dtype and not np.array_equal(shuffled, images)
    for one, other in zip(images, shuffled, strict=True):
        assert sorted(map(tuple, one.reshape(-1, 3))) == sorted(map(tuple, other.reshape(-1, 3)))
    places = [shuffled_pixels(np.arange(42).reshape(1, 6, 7, 1), seed) for seed in (1, 2)]
    assert not np.array_equal(*places)


def test_further_changes_are_json(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    read = importlib.import_module("recipe_changes").parsed
    assert read('{"projector": [8, 8], "encoder_options": {"width": 4}}') == {
        "projector": (8, 8),
        "encoder_options": {"width": 4},
    }
    for text in ("{width: 4}", "[1]"):
        with pytest.raises(ValueError, match=r"--changes must be .*Received: .*Example: '\{\"encoder_options"):
            read(text)


def start(folder, output, *flags):
    command = [sys.executable, "-c", SMALL, str(SCRIPT), f"--data_dir={folder}", f"--output_dir={output}", "--epochs=2"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--seeds=1", *flags], env=environment, **pipes)


@pytest.mark.full
def test_a_run_resumes_after_sigterm(folder, tmp_path):
    output = tmp_path / "table"
    process = start(folder, output)
    while not list(output.glob("*/seed0/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1 and "Stopped by SIGTERM. Repeat the command to resume" in errors
    assert not list(output.glob("*/seed0/results.json"))
    out, errors = (process := start(folder, output)).communicate(timeout=200)
    assert process.returncode == 0, errors
    assert out.count("Epoch 1/2") == 1 and out.count("Epoch 2/2") == 2
    scores = json.loads((output / "table.json").read_text())
    assert [len(runs) for runs in scores.values()] == [1, 1]


@pytest.mark.full
def test_a_table_resumes_after_a_kill(folder, tmp_path):
    output = tmp_path / "table"
    process = start(folder, output)
    while not list(output.glob("*/seed0/results.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    first = next(output.glob("*/seed0/results.json"))
    written = first.stat().st_mtime
    out, errors = (process := start(folder, output)).communicate(timeout=200)
    assert process.returncode == 0, errors
    assert first.stat().st_mtime == written and "baseline, seed 0 ..." not in out
    assert "| baseline | 1 |" in out and "| only invariance | 1 |" in out and "| 57.3 |" in out
    scores = json.loads((output / "table.json").read_text())
    assert all(0 <= run["linear_top1"] <= 1 for runs in scores.values() for run in runs)
    assert min(np.asarray(Image.open(output / "table.png")).shape[:2]) > 100
    _, errors = (process := start(folder, output, "--epochs=3")).communicate(timeout=200)
    assert process.returncode == 1 and "must have the same settings. Received: other epochs" in errors
    _, errors = (process := start(folder, tmp_path / "whole")).communicate(timeout=200)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "whole" / "table.json").read_text()) == scores
