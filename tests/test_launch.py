"""The launcher with real processes, which run a short script instead of training."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import json, os, signal, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
addresses = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
print("addresses", len(set(addresses)), "flags", sys.argv[1:], flush=True)
act = sys.argv[1]
if act == "fail" and index == 1:
    sys.exit(3)
if act == "die" and index == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if act == "stop":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), os._exit(0)))
if act != "end":
    time.sleep(600)
"""


# The file and not the module, which would import TensorFlow each time.
LAUNCHER = ["-P", str(pathlib.Path(__file__).parents[1] / "keras_barlow" / "launch.py")]


@pytest.fixture
def start(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(*flags, launcher=LAUNCHER):
        command = [sys.executable, *launcher, "--workers=3", script, *flags]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_all_workers_run_with_their_addresses_and_flags(start):
    process = start("end", "--epochs=2", launcher=["-m", "keras_barlow.launch"])
    output, errors = process.communicate(timeout=120)
    line = "addresses 3 flags ['end', '--epochs=2']"
    assert process.returncode == 0 and output.strip() == line
    assert f"[worker 1] {line}" in errors and f"[worker 2] {line}" in errors


@pytest.mark.parametrize(
    "act, status, message",
    [("fail", 3, "ended with exit status 3"), ("die", 128 + signal.SIGKILL, "was killed by SIGKILL")],
)
def test_one_that_fails_ends_the_others_and_is_named(start, act, status, message):
    process = start(act)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert "launch: worker 1 (localhost:" in errors and message in errors


def test_sigterm_is_passed_on_and_the_workers_end_by_themselves(start):
    process = start("stop")
    lines = [process.stdout.readline()]
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "saved" in "".join(lines) + output and "[worker 1] saved" in errors and "[worker 2] saved" in errors


def test_bad_arguments(tmp_path):
    for flags, message in (
        (["--workers=0", __file__], "at least 1"),
        (["--workers=2", "nowhere.py"], "must be a file"),
    ):
        done = subprocess.run(
            [sys.executable, *LAUNCHER, *flags],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert done.returncode == 2 and message in done.stderr
