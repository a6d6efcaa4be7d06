"""The JAX engine takes the same steps as TensorFlow. It needs separate processes, because a process has one engine."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import jax_views, shared
from tests import method_training as training

pytest.importorskip("jax", reason="jax is not installed")
ROOT = pathlib.Path(__file__).parent.parent


def on_jax(module, *arguments, **environment):
    """Runs a module of the tests on JAX, and returns the arrays that it has written."""
    command = [sys.executable, "-W", "error::UserWarning", "-m", f"tests.{module}", *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return np.load(next(argument for argument in arguments if str(argument).endswith(".npz")))


@pytest.mark.parametrize("name", shared.few(training.METHODS, "MoCo"))
def test_four_steps_are_those_of_one_tape(name, tmp_path, float64):
    """Batches of 28 and 25 images in 1, 2 and 4 micro-batches, as loops of the program and unrolled."""
    arrays = on_jax("method_training", 1, tmp_path / "steps.npz", name, JAX_ENABLE_X64="1")
    plain = training.plain(name)
    for parts in (1, 2, 4):
        for key, expected in plain.items():
            message = f"{parts} {key}"
            np.testing.assert_allclose(arrays[f"{name}/{parts}/{key}"], expected, 1e-10, 1e-10, err_msg=message)


def test_an_engine_that_does_not_exist_is_refused_at_import():
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", "import keras_barlow"], env=environment, capture_output=True, text=True
    )
    assert "Received: KERAS_BACKEND=numpy. Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax" in done.stderr


def test_views_and_program(tmp_path):
    arrays = on_jax("jax_views", tmp_path / "views.npz")
    for step in (-1, 5):
        for number, view in enumerate(jax_views.views(step)):
            # Of 255, so these are the last digits of float32.
            np.testing.assert_allclose(arrays[f"{step}/{number}"], view, atol=2e-3)
    program = str(arrays["program"])
    assert "callback" not in program and "f64" not in program and "while" in program
    assert arrays["count"] == 4 and np.isfinite(arrays["loss"]).all()
