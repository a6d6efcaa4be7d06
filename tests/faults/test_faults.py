"""Runs that are killed, starved of disk space and damaged, and lose nothing.

A short form runs with all other tests; `pytest -m full tests/faults` is the long one.
"""

import errno
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from keras_barlow import checkpoint
from tests import shared
from tests.faults import runs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The result of an undisturbed run in one process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, _, errors = runs.finish(runs.start(folder / "checkpoints", folder / "result.npz"))
    assert status == 0, errors
    return folder / "result.npz"


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The result of a shorter run."""
    folder = tmp_path_factory.mktemp("short")
    status, _, errors = runs.finish(runs.start(folder / "checkpoints", folder / "result.npz", epochs=6))
    assert status == 0, errors
    return folder / "result.npz"


@pytest.mark.parametrize("kills", shared.few([1, 2, 20], 1))
def test_kills_at_any_moment_lose_nothing(request, tmp_path, kills):
    epochs, whole = (6, "short") if kills == 1 else (25, "uninterrupted")
    whole = request.getfixturevalue(whole)
    rng = random.Random(kills)
    folder, result = tmp_path / "checkpoints", tmp_path / "result.npz"
    in_a_write, steps = 0, []
    for number in range(kills):
        process = runs.start(folder, result, epochs=epochs)
        if number % 10 == 9:
            # Kill it while it starts, loads or traces.
            time.sleep(rng.uniform(0.5, 6.0))
        elif number % 2:
            runs.wait_for_steps(folder, process, rng.uniform(0.0, 0.3))
        else:
            runs.wait_for_steps(folder, process, rng.uniform(0.0, 0.3))
            runs.wait_for_a_write(folder, process)
        status, _, errors = runs.kill(process)
        assert status == -signal.SIGKILL and not result.exists(), errors
        in_a_write += any(folder.glob("*.unfinished"))
        steps.append(runs.newest(folder))
        # Files under their final names are complete.
        for path in checkpoint.list_checkpoints(folder):
            checkpoint.read(path.read_bytes())
    status, _, errors = runs.finish(runs.start(folder, result, epochs=epochs))
    assert status == 0, errors
    print(f"{kills} kills, {in_a_write} of them in the middle of a write, after the steps {steps}")
    assert in_a_write >= kills // 4 and len(set(steps)) > kills // 2
    runs.same_to_the_bit(result, whole)


@pytest.mark.full
@pytest.mark.parametrize("place", ["first byte", "array", "name", "checksum", "random", "cut"])
def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(uninterrupted, tmp_path, place):
    folder, result = tmp_path / "checkpoints", tmp_path / "result.npz"
    process = runs.start(folder, result)
    runs.wait_for_steps(folder, process, 0.3)
    runs.kill(process)
    before, path = checkpoint.list_checkpoints(folder)[-2:]
    content = bytearray(path.read_bytes())
    if place == "cut":
        del content[random.Random(0).randrange(len(content)) :]
    else:
        index = {
            "first byte": 0,
            "array": len(content) // 2,
            "name": content.index(b"optimizer/"),
            "checksum": len(content) - 1,
            "random": random.Random(1).randrange(len(content)),
        }[place]
        content[index] ^= 1 << random.Random(2).randrange(8)
    path.write_bytes(content)
    assert checkpoint.latest(folder)[0] == before
    status, _, errors = runs.finish(runs.start(folder, result))
    assert status == 0, errors
    runs.same_to_the_bit(result, uninterrupted)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB, enough for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.full
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(uninterrupted, small_disk, tmp_path):
    folder, result = small_disk / "checkpoints", tmp_path / "result.npz"
    process = runs.start(folder, result)
    runs.wait_for_steps(folder, process)
    try:
        with open(small_disk / "photos", "wb", buffering=0) as other:
            while True:
                other.write(bytes(2**12))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    status, _, errors = runs.finish(process)
    assert status == 1 and "No space left on device" in errors and "The last good one is" in errors
    checkpoint.read(checkpoint.list_checkpoints(folder)[-1].read_bytes())
    (small_disk / "photos").unlink()
    status, _, errors = runs.finish(runs.start(folder, result))
    assert status == 0, errors
    runs.same_to_the_bit(result, uninterrupted)


@pytest.mark.full
def test_a_disk_that_becomes_read_only_leaves_the_last_checkpoint(small_disk, tmp_path):
    folder, result = small_disk / "checkpoints", tmp_path / "result.npz"
    process = runs.start(folder, result)
    runs.wait_for_steps(folder, process)
    # A file that is open for writing keeps the file system writable for a moment.
    remount = ["mount", "-o", "remount,ro", small_disk]
    runs.wait_until(lambda: subprocess.run(remount, capture_output=True).returncode == 0, process)
    status, _, errors = runs.finish(process)
    assert status == 1 and "Read-only file system" in errors and "The last good one is" in errors
    checkpoint.read(checkpoint.list_checkpoints(folder)[-1].read_bytes())
    status, _, errors = runs.finish(runs.start(folder, result))
    assert status == 1 and "Read-only file system" in errors


@pytest.mark.full
def test_sigterm_while_compiling_saves_and_goes_on(uninterrupted, tmp_path):
    folder, result = tmp_path / "checkpoints", tmp_path / "result.npz"
    process = runs.start(folder, result)
    assert process.stdout.readline() == "fit\n"
    # Wait for the signal handler: on a busy machine, it is installed some time after `fit` has started.
    runs.wait_until_caught(process, signal.SIGTERM)
    assert runs.newest(folder) == 0
    status, _, errors = runs.kill(process, signal.SIGTERM)
    assert status == 0 and runs.newest(folder) == 1 and not result.exists(), errors
    status, _, errors = runs.finish(runs.start(folder, result))
    assert status == 0, errors
    runs.same_to_the_bit(result, uninterrupted)


@pytest.mark.full
def test_either_worker_may_be_killed(tmp_path):
    rng = random.Random(0)
    whole = tmp_path / "whole.npz"
    status, _, errors = runs.finish(runs.start(tmp_path / "whole", whole, workers=2))
    assert status == 0, errors
    folder, result = tmp_path / "checkpoints", tmp_path / "result.npz"
    for worker in (0, 1, 0, 1):
        process = runs.start(folder, result, workers=2)
        runs.wait_for_steps(folder, process, rng.uniform(0.0, 1.0))
        killed = time.monotonic()
        os.kill(runs.workers_of(process)[worker], signal.SIGKILL)
        status, _, errors = runs.finish(process)
        seconds = time.monotonic() - killed
        print(f"worker {worker} killed after step {runs.newest(folder)}; all had ended {seconds:.1f} s later")
        assert seconds < 60
        assert status == 128 + signal.SIGKILL and f"launch: worker {worker}" in errors and "SIGKILL" in errors
    status, _, errors = runs.finish(runs.start(folder, result, workers=2))
    assert status == 0, errors
    with np.load(whole) as one, np.load(result) as two:
        for name in one.files:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_machine_ends_the_other(tmp_path, lost):
    folder, result = tmp_path / "checkpoints", tmp_path / "result.npz"
    processes, addresses = runs.start_workers(folder, result)
    runs.wait_for_steps(folder, processes[0], 0.5)
    processes[lost].kill()
    killed = time.monotonic()
    status, _, errors = runs.finish(processes[1 - lost])
    seconds = time.monotonic() - killed
    print(f"worker {lost} killed; the other ended {seconds:.1f} s later with status {status}")
    runs.finish(processes[lost])
    assert seconds < 60 and status not in (0, None)
    assert f"worker {lost} ({addresses[lost]})" in errors, errors
