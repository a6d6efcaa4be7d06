"""Every method takes the plain step of its paper on any number of replicas and micro-batches, and resumes exactly."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import method_training as training
from tests import one_tape, shared

ROOT = pathlib.Path(__file__).parent.parent
_PLAIN = {}


@pytest.fixture
def float64():
    """Runs the test in float64, where rounding cannot hide a wrong factor."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


def assert_same(got, name):
    if name not in _PLAIN:
        _PLAIN[name] = training.plain(name)
    assert got.keys() == _PLAIN[name].keys()
    for key, expected in _PLAIN[name].items():
        np.testing.assert_allclose(got[key], expected, rtol=1e-10, atol=1e-10, err_msg=f"{name} {key}")


GRID = [(name, replicas, parts) for name in training.METHODS for replicas in (1, 4) for parts in (1, 2, 4)]


@pytest.mark.parametrize(
    "name, replicas, accumulation_steps", shared.few(GRID, *[(name, 4, 2) for name in training.METHODS])
)
def test_four_steps_are_those_of_one_tape(name, replicas, accumulation_steps, strategy, float64):
    scope = strategy.scope() if replicas > 1 else tf.distribute.get_strategy().scope()
    with scope:
        got = training.trained(name, accumulation_steps=accumulation_steps)
    assert_same(got, name)


@pytest.mark.full
def test_four_steps_on_two_replicas_are_those_of_one_tape(tmp_path, float64):
    path = tmp_path / "two.npz"
    command = [sys.executable, "-m", "tests.method_training", "2", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    arrays = np.load(path)
    for name in training.METHODS:
        for parts in (1, 2, 4):
            prefix = f"{name}/{parts}/"
            assert_same({key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}, name)


@pytest.mark.parametrize("name", training.METHODS)
def test_training_moves_everything_that_the_method_keeps(name, float64):
    """The comparison with one tape would not notice a part that stands still in both."""
    before = one_tape.State(training.build(name)).result()
    after = training.trained(name)
    still = [key for key in before if np.abs(after[key] - before[key]).max() < 1e-6]
    # VICReg does not depend on a shift of all embeddings, so the bias of the projector has no gradient.
    assert still == (["projector 1"] if name == "VICReg" else [])


@pytest.mark.parametrize("name", training.METHODS)
def test_an_interrupted_run_resumes_to_the_bit(name, tmp_path):
    """Stops in the middle of the second epoch, in a checkpoint that another model of the same method loads."""
    views = kb.views.Views([kb.augmentations.RandomFlip(0.5)], [kb.augmentations.RandomFlip(0.5)], seed=0)
    images = kb.data.ArrayImages(training.views(0).astype("uint8"))

    def run(folder, **stop):
        model = training.build(name, views=views)
        checkpoints = kb.callbacks.Checkpoints(folder, every=1)
        callbacks = [checkpoints, StopAt(**stop)] if stop else [checkpoints]
        model.fit(images.batches(12, seed=0), epochs=3, verbose=0, callbacks=callbacks)
        return model

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", step=6)
    resumed = run(tmp_path / "parts")
    assert int(resumed.batch_count) == int(whole.batch_count) == 12
    for variable, other in zip(
        [*whole.variables, *whole.optimizer.variables],
        [*resumed.variables, *resumed.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(variable.numpy(), other.numpy(), err_msg=variable.path)


class StopAt(keras.callbacks.Callback):
    """Ends a run after a number of steps, as an exception would."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


@pytest.mark.parametrize("name", training.METHODS)
def test_a_saved_model_continues_with_the_same_numbers(name, tmp_path):
    model = training.build(name)
    model.fit(training.dataset(), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, again):
        one.fit(training.dataset(), epochs=1, verbose=0)
    got, expected = (one_tape.State(one).result() for one in (again, model))
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
    np.testing.assert_array_equal(
        again.predict(training.views(0), verbose=0), model.predict(training.views(0), verbose=0)
    )
