"""Tests of examples/compare.py, and of the figures that it quotes."""

import json
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

import keras_barlow as kb
from tests import shared

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
# Runs pretrain.py with a small recipe, without the export and the pictures. Runs of seed 7 fail while there is a file
# called `broken` beside this script.
SMALL = f"""
import pathlib, runpy, sys
if "--seed=7" in sys.argv and pathlib.Path(__file__).with_name("broken").exists():
    sys.exit("error: the disk is full")
sys.path.insert(0, {str(EXAMPLES)!r})
sys.path.insert(0, {str(EXAMPLES.parent)!r})
import keras_barlow as kb
small = kb.recipes.DIGITS.changed(encoder_options={{"width": 4}}, projector=(16, 16), batch_size=16)
kb.recipes.get = lambda name, method=None: small
kb.export.save_encoder = lambda *arguments, **options: None
import run_report
run_report.draw = lambda *arguments: None
sys.argv[0] = {str(EXAMPLES / "pretrain.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Runs compare.py, as a process that can be stopped.
COMPARE = f"""
import pathlib, sys
sys.path.insert(0, {str(EXAMPLES)!r})
sys.path.insert(0, {str(EXAMPLES.parent)!r})
import compare
compare.SCRIPT = sys.argv.pop(1)
compare.app.run(compare.main)
"""


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The example as a module, whose runs use the small recipe."""
    module = shared.example("compare")
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.setattr(module, "SCRIPT", tmp_path / "small.py")
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield module
    for number, handler in handlers:
        signal.signal(number, handler)


def run(script, *flags):
    with flagsaver.flagsaver():
        script.FLAGS(["compare.py", *flags])
        script.main(None)


@pytest.mark.full
def test_two_seeds_one_of_which_fails_at_first(script, folder, tmp_path, capsys):
    output = tmp_path / "compare"
    flags = [f"--data_dir={folder}", "--epochs=1", f"--output_dir={output}", "--methods=BarlowTwins", "--seeds=0,7"]
    (tmp_path / "broken").touch()
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        run(script, *flags)
    assert "barlowtwins, seed 7 failed: error: the disk is full" in capsys.readouterr().out
    assert "| Barlow Twins | 2, 1 failed |" in (output / "table.md").read_text()
    first = (output / "barlowtwins" / "seed0" / "results.json").stat().st_mtime_ns

    (tmp_path / "broken").unlink()
    run(script, *flags)
    printed = capsys.readouterr().out
    assert "seed 0 ..." not in printed and "seed 7 ..." in printed
    assert "| untrained | 2 |" in printed and "| Barlow Twins | 2 |" in printed
    results = json.loads((output / "results.json").read_text())["barlowtwins"]
    assert results["0"]["epochs"] == results["7"]["epochs"] == 1
    assert all(result["seconds"] > 0 and 0 <= result["knn_top1"] <= 1 for result in results.values())
    assert min(np.asarray(Image.open(output / "methods.png")).shape[:2]) > 200

    run(script, *flags)
    assert "..." not in capsys.readouterr().out.split("#")[0]
    assert (output / "barlowtwins" / "seed0" / "results.json").stat().st_mtime_ns == first
    with pytest.raises(SystemExit, match=r"must have the same settings. Received: other flags .*, epochs of barlow"):
        run(script, *flags, "--epochs=2")


@pytest.mark.parametrize(
    "bad, message",
    [
        (["--methods=barlowtwins,simpler"], "Unknown method. Received: 'simpler'. Known methods: barlowtwins"),
        (["--methods=barlowtwins,BarlowTwins"], "Received: 'barlowtwins' twice"),
        (["--methods="], "--methods must not be empty"),
        (["--seeds=0,1,00"], "Received: 0 twice"),
        (["--seeds="], "--seeds must not be empty"),
        (["--seeds=0,one"], "must be integers from 0. Received: 'one'"),
        (["--seed=1"], "Received: --seed=1. Use --seeds"),
        (["--nolabels"], "Received: --nolabels. Leave it out"),
        (["--recipe=cifar10_small"], "needs images"),
        (["--recipe=digit"], "Known recipes: digits"),
    ],
)
def test_bad_flags_fail_before_any_run(script, bad, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(script, f"--output_dir={tmp_path / 'compare'}", *bad)
    assert not (tmp_path / "compare").exists()


def test_a_folder_of_something_else_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="must be empty or hold a comparison"):
        run(script, f"--output_dir={tmp_path}")


def test_the_table_states_which_methods_are_in_another_order_than_published(tmp_path):
    report = shared.example("compare_report")
    names = ("BarlowTwins", "SimCLR", "BYOL", "Mine")
    recipes = {name.lower(): types.SimpleNamespace(method=name, name="digits", epochs=25) for name in names}
    accuracies = {"barlowtwins": (0.90, 0.92), "simclr": (0.91, 0.95), "byol": (0.80, 0.82), "mine": (0.99, 0.99)}
    results = {
        method: {
            str(seed): {"knn_top1": value, "linear_top1": value, "few_label_top1": value - 0.1, "seconds": 100 + seed}
            for seed, value in enumerate(values)
        }
        for method, values in accuracies.items()
    }
    results["simclr"]["2"] = {"failed": "error: the loss is NaN"}
    report.write(tmp_path, results, recipes)
    table = (tmp_path / "table.md").read_text()
    assert "| Barlow Twins | 2 | 91.0 (90.0 to 92.0) | 91.0 (90.0 to 92.0) | 81.0 (80.0 to 82.0) | 100 |" in table
    assert "| 73.2 (1000 epochs) | 84.2 | 92.1 |" in table
    assert "| SimCLR | 3, 1 failed | 93.0 (91.0 to 95.0) |" in table
    assert "| Mine | 2 | 99.0 (99.0 to 99.0) |" in table and table.count("| - | - | - |\n") == 2
    linear = (
        "- Published, ImageNet, linear: BYOL > Barlow Twins > SimCLR\n  - Here, linear: SimCLR > Barlow Twins > BYOL\n"
    )
    assert linear in table
    assert "  - Reversed, by more than the range of the seeds: Barlow Twins over BYOL, SimCLR over BYOL\n" in table
    assert "  - Reversed, within the range of the seeds: SimCLR over Barlow Twins\n" in table
    assert min(np.asarray(Image.open(tmp_path / "methods.png")).shape[:2]) > 200


def test_every_method_has_published_figures():
    for name in kb.methods.__all__:
        assert 60 < kb.recipes.published.figures(name).imagenet_linear < 80


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_comparison_resumes(folder, tmp_path, number):
    output = tmp_path / "compare"
    (tmp_path / "small.py").write_text(SMALL)
    flags = [f"--data_dir={folder}", "--epochs=20", f"--output_dir={output}", "--seeds=0", "--methods=barlowtwins"]
    command = [sys.executable, "-c", COMPARE, str(tmp_path / "small.py"), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)
    while not (output / "barlowtwins" / "seed0" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    log = (output / "barlowtwins" / "seed0.log").read_text()
    assert log.count("Epoch 1/20") == log.count("Epoch 20/20") == 1
    if number == signal.SIGKILL:
        # The run outlives the command. The repeated command waits for it, or finds it finished.
        assert "seed 0 ..." not in done.stdout
    else:
        assert f"Stopped by {number.name}. To resume, repeat the command." in errors
        assert "Stopped by SIGTERM and saved" in log
        assert "seconds" not in json.loads((output / "results.json").read_text())["barlowtwins"]["0"]
