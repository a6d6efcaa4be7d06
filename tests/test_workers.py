"""Two real worker processes reproduce the run of one process, also when resumed after a worker was killed."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import shared, worker_training

SCRIPT = pathlib.Path(__file__).with_name("worker_training.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}


def run(*arguments, workers=2):
    # The file and not the module, which would import TensorFlow once more.
    launcher = ["-P", str(SCRIPT.parents[1] / "keras_barlow" / "launch.py"), f"--workers={workers}"]
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


@pytest.mark.parametrize("killed", shared.few([False, True], False))
def test_two_workers_train_as_one_and_go_on_after_a_kill(tmp_path, killed):
    single, whole, again = (tmp_path / f"{name}.npz" for name in ("single", "whole", "again"))
    worker_training.main(single, tmp_path / "a")
    done = run(whole, tmp_path / "b")
    assert done.returncode == 0, done.stderr
    with np.load(single) as one, np.load(whole) as two:
        assert two["refused"] and not one["refused"]
        for name in set(one.files) - {"refused"}:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    if not killed:
        return
    done = run(again, tmp_path / "c", 6)
    assert done.returncode == 128 + 9 and "worker 1" in done.stderr and "SIGKILL" in done.stderr
    assert not again.exists() and list((tmp_path / "c" / "0").glob("step-*.npz"))
    assert not list((tmp_path / "c").glob("1/step-*"))
    done = run(again, tmp_path / "c")
    assert done.returncode == 0, done.stderr
    with np.load(whole) as two, np.load(again) as resumed:
        for name in set(two.files) - {"refused"}:
            np.testing.assert_allclose(resumed[name], two[name], rtol=1e-6, atol=1e-6, err_msg=name)


# In float32, TensorFlow sums the 65,536 pixels of a batch normalization one by one. The uniform areas of a digit are
# all rounded the same way, so statistics are accurate to 1e-4 and gradients to 2e-2 (compared with float64), on one
# device and on several, and the network amplifies this error. So float64 shows that the runs are equal, and float32
# uses a small learning rate.
@pytest.mark.full
@pytest.mark.parametrize("precision, rate, of_the_change", [("float64", 1e-5, 1e-6), ("float32", 1e-7, 0.1)])
def test_an_epoch_of_digits_is_one_run_on_any_devices(tmp_path, precision, rate, of_the_change):
    script = SCRIPT.with_name("digits_epoch.py")
    results = {}
    for name, replicas, workers in (("one", 1, 1), ("2 replicas", 2, 1), ("4 replicas", 4, 1), ("2 workers", 1, 2)):
        launched = [] if workers == 1 else ["-m", "keras_barlow.launch", f"--workers={workers}"]
        command = [sys.executable, *launched, str(script), str(replicas), precision, str(rate), str(tmp_path / "o.npz")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "o.npz") as arrays:
            results[name] = dict(arrays)
        assert results[name]["replicas"] == replicas * workers
    one = results.pop("one")
    count = sum(name.startswith("weight") for name in one)
    for name, other in results.items():
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=5e-5, err_msg=name)
        relative = []
        for number in range(count):
            weight, start = one[f"weight{number}"], one[f"start{number}"]
            difference = other[f"weight{number}"] - weight
            np.testing.assert_allclose(difference, 0, atol=1e-5, err_msg=name)
            relative.append(np.linalg.norm(difference) / np.linalg.norm(weight - start))
        print(f"{precision}, {name}: {max(relative):.1e} of the change")
        assert max(relative) < of_the_change, name
