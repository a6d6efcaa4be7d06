"""Starts, watches and stops runs of `training.py`."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np

from keras_barlow import checkpoint

SCRIPT = pathlib.Path(__file__).with_name("training.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}
SECONDS = 240


def start(folder, result, workers=1, epochs=25, **arguments):
    """Starts the run, with a pipe for its error messages."""
    launched = [] if workers == 1 else ["-m", "keras_barlow.launch", f"--workers={workers}"]
    command = [sys.executable, *launched, str(SCRIPT), str(folder), str(result)]
    return subprocess.Popen(
        command,
        env={**ENVIRONMENT, "EPOCHS": str(epochs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **arguments,
    )


def start_workers(folder, result):
    """Starts the run on two workers without the launcher, as on two machines."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("localhost", 0))
        two.bind(("localhost", 0))
        addresses = [f"localhost:{opened.getsockname()[1]}" for opened in (one, two)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps(config)}
        command = [sys.executable, str(SCRIPT), str(folder), str(result)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return processes, addresses


def finish(process):
    """Waits for the end of the run and returns its exit status, output and error messages."""
    output, errors = process.communicate(timeout=SECONDS)
    return process.returncode, output, errors


def kill(process, signal_number=signal.SIGKILL):
    """Kills a run."""
    process.send_signal(signal_number)
    return finish(process)


def wait_until(condition, process):
    """Polls every millisecond until the condition holds or the run has ended."""
    deadline = time.monotonic() + SECONDS
    while not condition() and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the run does not come so far")
        time.sleep(1e-3)


def wait_for_steps(folder, process, seconds=0.0):
    """Waits until the run has saved a step, and then for a while longer."""
    before = newest(folder)
    wait_until(lambda: newest(folder) != before, process)
    time.sleep(seconds)


def wait_for_a_write(folder, process):
    """Waits until a checkpoint is being written."""
    wait_until(lambda: any(folder.glob("*.unfinished")), process)


def newest(folder):
    """Returns the number of the last saved step, 0 if there is none."""
    paths = checkpoint.list_checkpoints(folder)
    return int(paths[-1].stem.removeprefix("step-")) if paths else 0


def same_to_the_bit(first, second):
    """Compares the results of two runs."""
    with np.load(first) as one, np.load(second) as two:
        assert one.files == two.files
        for name in one.files:
            assert one[name].tobytes() == two[name].tobytes(), name


def wait_until_caught(process, number):
    """Waits until the process has a handler for a signal."""
    status = pathlib.Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.02)


def workers_of(process):
    """Returns the process IDs of a launcher's workers in order (Linux)."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(map(int, children))
