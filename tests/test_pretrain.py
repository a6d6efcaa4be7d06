"""Runs examples/pretrain.py and examples/show_views.py as a user does."""

import ast
import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

import keras_barlow as kb
from tests import shared

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "pretrain.py"
PICTURES = ["views", "loss", "cross_correlation", "nearest_neighbors", "feature_map"]


def pretrain(*flags):
    return subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True)


def check_pictures(output):
    for name in PICTURES:
        picture = np.asarray(Image.open(output / f"{name}.png").convert("L"), "float32")
        assert picture.std() > 5 and min(picture.shape) > 200


def test_a_run_writes_everything_it_promises(script, folder, tmp_path, capsys):
    output = tmp_path / "run"
    archive = shutil.make_archive(tmp_path / "images", "zip", folder)
    flags = [f"--data_dir={archive}", "--epochs=2", "--batch_size=16", f"--output_dir={output}", "--seed=1", "--resume"]
    with flagsaver.flagsaver():
        script.FLAGS(["pretrain.py", *flags, "--max_seconds=1"])
        script.main(None)
    printed = capsys.readouterr().out
    assert f"There is nothing to resume in {output}: this run begins." in printed
    saved = output / "checkpoints" / kb.checkpoint.name_of(1)
    assert f"Stopped by the limit of 1 seconds and saved {saved}. To resume, repeat the command" in printed
    assert not (output / "results.json").exists()

    done = pretrain(*flags)
    assert done.returncode == 0, done.stderr
    assert "nothing to resume" not in done.stdout and "Evaluating raw pixels" not in done.stdout
    # Log lines of TensorFlow while it writes a SavedModel, one of them 1,041 characters long.
    for noise in ("input name(s)", "Sharding callback", "Assets written", "Writing fingerprint"):
        assert noise not in done.stderr
    assert "Barlow Twins" in done.stdout and "untrained" in done.stdout
    results = json.loads((output / "results.json").read_text())
    scores = {"knn_top1", "linear_top1", "few_label_top1"}
    assert set(results) == scores | {"untrained", "pixels", "epochs", "images_seen", "seconds"}
    assert set(results["untrained"]) == set(results["pixels"]) == scores
    assert (results["epochs"], results["images_seen"]) == (2, 64)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "invariance", "redundancy"} <= set(lines[0])
    check_pictures(output)
    assert list((output / "tensorboard").rglob("events.*"))
    assert (output / "encoder" / "saved_model.pb").exists()
    model = keras.models.load_model(output / "model.keras")
    assert model.predict(np.zeros((2, 32, 32, 3), "uint8"), verbose=0).shape == (2, model.encoder.output_shape[1])

    with flagsaver.flagsaver():
        script.FLAGS(["pretrain.py", *flags])
        script.main(None)
    assert f"The run in {output} is finished." in capsys.readouterr().out
    with flagsaver.flagsaver(), pytest.raises(SystemExit, match="must be empty, so that no other run is overwritten"):
        script.FLAGS(["pretrain.py", f"--data_dir={folder}", f"--output_dir={output}"])
        script.main(None)


@pytest.fixture(scope="session")
def script():
    """The example as a module. A process per test would only start TensorFlow again."""
    return shared.example("pretrain")


@pytest.mark.parametrize("name", kb.methods.__all__)
def test_recipes_of_all_methods_use_the_same_images(script, name):
    with flagsaver.flagsaver():
        script.FLAGS(["pretrain.py", f"--method={name}", "--recipe=cifar10_small"])
        recipe = script.chosen_recipe(script.FLAGS.method)
    assert recipe.method == name
    assert script.image_data.dataset_name(recipe) == "cifar10_small"
    assert script.image_data.settings_for(recipe).train_per_class == 2000


@pytest.mark.full
def test_crops_from_files_without_labels(script, folder, tmp_path, monkeypatch, capsys, caplog):
    output = tmp_path / "run"
    # As in the recipe for ImageNet, including the precision: NumPy's files have no bfloat16.
    recipe = kb.recipes.DIGITS.changed(precision="mixed_bfloat16")
    monkeypatch.setattr(kb.recipes, "get", lambda name, method=None: recipe)
    settings = script.image_data.ImageSettings(stored_size=36, crops_from_files=True)
    monkeypatch.setitem(script.image_data.SETTINGS, "digits", settings)
    (folder / "test" / "3" / "broken.png").write_bytes(b"text")
    flags = ["--nolabels", "--skip_corrupt", "--epochs=1", "--batch_size=16", f"--output_dir={output}"]
    with flagsaver.flagsaver():
        script.FLAGS(["pretrain.py", f"--data_dir={folder / 'test'}", *flags])
        script.main(None)
    (folder / "test" / "3" / "broken.png").unlink()
    assert "without labels nothing is evaluated" in capsys.readouterr().out
    assert "1 of 41 files cannot be read" in caplog.text and "3/broken.png" in caplog.text
    assert set(json.loads((output / "results.json").read_text())) == {"epochs", "images_seen", "seconds"}
    check_pictures(output)
    assert (output / "encoder" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    "bad, message",
    [
        (["--recipe=digit"], "Known recipes: digits"),
        (["--method=simpler"], "value should be one of <barlowtwins"),
        (["--recipe=cifar10_small"], "--data_dir"),
        (["--train_per_class=5"], r"have no effect. Received: --train_per_class. Remove them, or add --data_dir"),
        (["--nolabels", "--skip_corrupt"], "have no effect. Received: --labels, --skip_corrupt"),
        (["--batch_size=1"], "batch_size"),
        (["--data_dir=nowhere"], "no such folder"),
        (["--dataset=mnist", "--data_dir=nowhere"], "tfds build mnist"),
        (["--strategy=multi_worker"], "needs to know the workers"),
        (["--output_dir=/proc/run"], "must be writable"),
    ],
)
def test_bad_flags_fail_before_any_work(script, bad, message, tmp_path):
    with flagsaver.flagsaver(), pytest.raises((SystemExit, flags.IllegalFlagValueError), match=message):
        script.FLAGS(["pretrain.py", f"--output_dir={tmp_path / 'run'}", *bad])
        script.main(None)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_several_labels_an_image_are_refused_with_the_remedy(script, tmp_path):
    images = np.zeros((30, 32, 32, 3), "uint8")
    np.savez(tmp_path / "several.npz", images=images, labels=np.eye(3, dtype=int)[np.arange(30) % 3])
    with flagsaver.flagsaver(), pytest.raises(SystemExit, match="--nolabels"):
        script.FLAGS(["pretrain.py", f"--output_dir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'several.npz'}"])
        script.main(None)


@pytest.mark.full
def test_an_error_is_a_line_and_not_a_traceback(tmp_path):
    done = pretrain("--recipe=digit", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "error: Unknown recipe. Received: 'digit'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_views_are_shown(folder, tmp_path):
    picture = tmp_path / "views.png"
    flags = ["--policy=simclr", "--without=jitter", "--image_size=24", "--count=3", f"--output={picture}"]
    command = [sys.executable, SCRIPT.with_name("show_views.py"), f"--data_dir={folder}", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert min(np.asarray(Image.open(picture)).shape[:2]) > 200


@pytest.mark.parametrize("path", sorted(SCRIPT.parent.glob("*.py")), ids=lambda path: path.stem)
def test_functions_of_the_examples_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
