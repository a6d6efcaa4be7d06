"""The tables of ablations, and the example that runs them."""

import dataclasses
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
# Two rows of a small recipe.
SMALL = """
import dataclasses, runpy, sys
import keras_barlow as kb
kb.recipes.ablations._TABLES["loss"] = kb.recipes.ablations.table("loss")[:2]
changes = {"width": 4, "projector": (16, 16), "batch_size": 16, "encoder": "resnet8", "knn_k": 5}
small = dataclasses.replace(kb.recipes.DIGITS, **changes)
kb.recipes.get = lambda name: small
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", shared.few(kb.recipes.ablations.names(), "loss", "asymmetry", "batch_size"))
def test_every_row_builds(name):
    small = {"width": 2, "image_size": 8, "encoder": "resnet8", "batch_size": 4}
    rows = kb.recipes.ablations.table(name)
    assert len({row.name for row in rows}) == len(rows) > 1
    for row in rows:
        recipe = dataclasses.replace(kb.recipes.CIFAR10_SMALL, **{**small, "projector": (8, 8)}, precision="float32")
        changes = {key: value for key, value in row.changes.items() if key != "batch_size"}
        model = dataclasses.replace(recipe, **changes).build(num_images=8, seed=0)
        assert model.loss.get_config()["redundancy_weight"] == row.changes.get("redundancy_weight", 0.005)
        assert (model.predictor is not None) is row.changes.get("predictor", False)


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"Unknown table. Received: 'optimizer'. Known tables: loss, asymmetry"):
        kb.recipes.ablations.table("optimizer")


def test_shuffling_keeps_the_colours_of_each_image_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 7, 3), dtype="uint8")
    shuffled = kb.recipes.ablations.shuffled_pixels(images, seed=1)
    assert shuffled.dtype == images.dtype and not np.array_equal(shuffled, images)
    for one, other in zip(images, shuffled, strict=True):
        assert sorted(map(tuple, one.reshape(-1, 3))) == sorted(map(tuple, other.reshape(-1, 3)))
    places = [kb.recipes.ablations.shuffled_pixels(np.arange(42).reshape(1, 6, 7, 1), seed) for seed in (1, 2)]
    assert not np.array_equal(*places)


def start(folder, output, *flags):
    command = [sys.executable, "-c", SMALL, str(SCRIPT), f"--data_dir={folder}", f"--output_dir={output}", "--epochs=2"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--seeds=1", *flags], env=environment, **pipes)


@pytest.mark.full
def test_sigterm_leaves_a_run_unfinished_and_it_goes_on(folder, tmp_path):
    output = tmp_path / "table"
    process = start(folder, output)
    while not list(output.glob("*/seed0/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1 and "Stopped by SIGTERM. The same command goes on" in errors
    assert not list(output.glob("*/seed0/results.json"))
    out, errors = (process := start(folder, output)).communicate(timeout=200)
    assert process.returncode == 0, errors
    assert out.count("Epoch 1/2") == 1 and out.count("Epoch 2/2") == 2
    scores = json.loads((output / "table.json").read_text())
    assert [len(runs) for runs in scores.values()] == [1, 1]


@pytest.mark.full
def test_a_table_goes_on_after_a_kill(folder, tmp_path):
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
