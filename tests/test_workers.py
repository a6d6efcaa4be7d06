"""Two real worker processes: the run of one process, exactly resumed after one of them is killed."""

import os
import pathlib
import subprocess
import sys

import numpy as np

SCRIPT = pathlib.Path(__file__).with_name("worker_training.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}


def run(*arguments, workers=2):
    launched = [] if workers == 1 else ["-m", "keras_barlow.launch", f"--workers={workers}"]
    command = [sys.executable, *launched, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def test_two_workers_train_as_one_and_go_on_after_a_kill(tmp_path):
    single, whole, again = (tmp_path / f"{name}.npz" for name in ("single", "whole", "again"))
    done = run(single, tmp_path / "a", workers=1)
    assert done.returncode == 0, done.stderr
    done = run(whole, tmp_path / "b")
    assert done.returncode == 0, done.stderr
    done = run(again, tmp_path / "c", 6)
    assert done.returncode == 128 + 9 and "worker 1" in done.stderr and "SIGKILL" in done.stderr
    assert not again.exists() and list((tmp_path / "c" / "0").glob("step-*.npz"))
    assert not list((tmp_path / "c").glob("1/step-*"))
    done = run(again, tmp_path / "c")
    assert done.returncode == 0, done.stderr
    with np.load(single) as one, np.load(whole) as two, np.load(again) as resumed:
        assert two["refused"] and not one["refused"]
        for name in one.files:
            if name != "refused":
                np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
                np.testing.assert_allclose(resumed[name], two[name], rtol=1e-6, atol=1e-6, err_msg=name)
