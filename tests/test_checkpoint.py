"""Checkpoints: atomic files, and runs that resume exactly."""

import contextlib
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow import checkpoint
from tests import oracles, shared

STEPS = 4


def images():
    rng = np.random.default_rng(0)
    return kb.data.ArrayImages(rng.integers(0, 256, (4 * STEPS, 10, 10, 3), dtype="uint8"))


def small_model(optimizer="adam", policy="float32", seed=3, **arguments):
    """A model as if it had just been made. Equal ones are one and the same, but for those of another seed."""
    if seed != 3 or not isinstance(optimizer, str):
        return new_model(optimizer, policy, seed, **arguments)
    key = ("checkpoint", optimizer, policy, *arguments.items())
    return shared.model(key, lambda: new_model(optimizer, policy, seed, **arguments))


def new_model(optimizer, policy, seed, convolutions=True, **arguments):
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4, synchronized=True)
    if not convolutions:
        # Four replicas are traced four times.
        chain = [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 128, -1), keras.layers.Flatten()]
        encoder = keras.Sequential([*chain, keras.layers.Dense(4)])
    projector = kb.Projector((8, 8), synchronized=True)
    layers = kb.augmentations
    crop = layers.RandomResizedCrop(8, 8)
    views = kb.views.Views([crop, layers.RandomFlip()], [crop, layers.RandomSolarization()], seed=seed)
    model = kb.BarlowTwins(encoder, projector, views, **arguments)
    keras.config.set_dtype_policy("float32")
    model.compile(optimizer)
    return model


class Stop(keras.callbacks.Callback):
    """Calls a function at the end of one step."""

    def __init__(self, step, act):
        super().__init__()
        self.step = step
        self.act = act
        self.seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            self.act()


def crash():
    raise InterruptedError("crashed")


def state(model):
    return checkpoint.state_of(model)


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        # Threads sum the logged loss in no fixed order. Gradients do not depend on it.
        rtol = 1e-6 if name.startswith("metrics/") else 0
        np.testing.assert_allclose(first[name], second[name], rtol=rtol, atol=0, err_msg=name)


@pytest.mark.parametrize(
    "optimizer, policy, step",
    shared.few(
        [
            ("adam", "float32", 1),
            ("adam", "float32", STEPS),
            ("adam", "float32", STEPS + 2),
            ("sgd", "mixed_float16", 3),
        ],
        *[("adam", "float32", STEPS), ("adam", "float32", STEPS + 2), ("sgd", "mixed_float16", 3)],
    ),
)
def test_a_crashed_run_resumes_bit_for_bit(tmp_path, optimizer, policy, step):
    batches = images().batches(4, seed=1)
    whole = small_model(optimizer, policy)
    expected = whole.fit(batches, epochs=3, verbose=0).history["loss"]
    whole = state(whole)
    with pytest.raises(InterruptedError):
        checkpoints = kb.callbacks.Checkpoints(tmp_path, every=1)
        small_model(optimizer, policy).fit(batches, epochs=3, verbose=0, callbacks=[Stop(step + 1, crash), checkpoints])
    # Another seed: everything, including the seed of the views, must come from the checkpoint.
    again = small_model(optimizer, policy, seed=5)
    log = kb.callbacks.MetricsLog(tmp_path / "metrics.jsonl")
    losses = again.fit(
        batches, epochs=3, verbose=0, callbacks=[log, kb.callbacks.Checkpoints(tmp_path, every=1)]
    ).history["loss"]
    same(whole, state(again))
    np.testing.assert_allclose(losses, expected[-len(losses) :], rtol=1e-6)


@pytest.mark.parametrize("first, then", shared.few([(1, 4), (4, 1)], (1, 4)))
def test_a_run_resumes_with_another_number_of_replicas(tmp_path, strategy, first, then):
    batches = images().batches(4, seed=1)

    def model(replicas):
        with strategy.scope() if replicas == 4 else contextlib.nullcontext():
            # A small rate, because batches of 4 amplify rounding errors quickly on any device.
            return small_model(keras.optimizers.SGD(1e-5, momentum=0.9), convolutions=False)

    whole = model(1)
    start = state(whole)
    whole.fit(batches, epochs=2, verbose=0)
    with pytest.raises(InterruptedError):
        checkpoints = kb.callbacks.Checkpoints(tmp_path, every=1)
        model(first).fit(batches, epochs=2, verbose=0, callbacks=[Stop(3, crash), checkpoints])
    again = model(then)
    again.fit(batches, epochs=2, verbose=0, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    moved = 0
    for name, array in state(whole).items():
        np.testing.assert_allclose(state(again)[name], array, rtol=2e-4, atol=1e-5, err_msg=name)
        moved = max(moved, np.abs(array - start[name]).max())
    assert moved > 1e-3


@pytest.mark.parametrize("how", ["signal", "time"])
def test_an_interrupted_run_saves_and_returns(tmp_path, how):
    batches = images().batches(4, seed=1)
    whole = small_model()
    whole.fit(batches, epochs=2, verbose=0)
    whole = state(whole)
    act = {"signal": lambda: os.kill(os.getpid(), signal.SIGTERM), "time": lambda: None}[how]
    handler = signal.getsignal(signal.SIGTERM)
    checkpoints = kb.callbacks.Checkpoints(tmp_path, max_seconds=1e-3 if how == "time" else None)
    model = small_model()
    model.fit(batches, epochs=2, verbose=0, callbacks=[Stop(3, act), checkpoints])
    assert checkpoints.interrupted == {"signal": "SIGTERM", "time": "the limit of 0.001 seconds"}[how]
    step = {"signal": 3, "time": 1}[how]
    assert int(model.optimizer.iterations) == step and checkpoints.last.name == checkpoint.name_of(step)
    assert signal.getsignal(signal.SIGTERM) is handler
    checkpoints = kb.callbacks.Checkpoints(tmp_path)
    model.fit(batches, epochs=2, verbose=0, callbacks=[checkpoints])
    assert checkpoints.interrupted is None
    same(whole, state(model))


def test_damage_is_detected_and_the_previous_checkpoint_is_used(tmp_path, caplog):
    small_model().fit(images().batches(4), epochs=2, verbose=0, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    before, last = checkpoint.list_checkpoints(tmp_path)
    content = last.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 1, *rng.integers(0, len(content), 50)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.read(bytes(flipped))
    for length in (0, 1, 63, 64, len(content) // 2, len(content) - 1):
        with pytest.raises(checkpoint.DamagedCheckpoint):
            checkpoint.read(content[:length])
    last.write_bytes(bytes(flipped))
    assert checkpoint.latest(tmp_path)[0] == before
    assert f"{last.name}.damaged" in caplog.text
    before.write_bytes(b"")
    with pytest.raises(ValueError, match="all of them damaged"):
        checkpoint.latest(tmp_path)


def test_the_newest_are_kept_and_unfinished_files_are_deleted(tmp_path):
    (tmp_path / "step-000000000001.npz.unfinished").write_bytes(b"half")
    checkpoints = kb.callbacks.Checkpoints(tmp_path, every=1, keep=2)
    small_model().fit(images().batches(4), epochs=2, verbose=0, callbacks=[checkpoints])
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.name_of(7), checkpoint.name_of(8)]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    stop = Stop(3, lambda: monkeypatch.setattr(os, "fsync", full))
    with pytest.raises(OSError, match=r"step 3 could not be written \(No space left.*step-000000000002.npz"):
        small_model().fit(images().batches(4), verbose=0, callbacks=[stop, kb.callbacks.Checkpoints(tmp_path, every=1)])
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name_of(1), checkpoint.name_of(2)}
    assert checkpoint.latest(tmp_path)[0].name == checkpoint.name_of(2)


def test_another_model_or_other_data_are_rejected(tmp_path):
    fit = {"epochs": 1, "verbose": 0}
    small_model().fit(images().batches(4), **fit, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="belongs to one model and one optimizer"):
        small_model("sgd").fit(images().batches(4), **fit, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="must resume with the data"):
        small_model().fit(images().batches(8), **fit, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="order of its images"):
        small_model().fit(images().array, **fit, callbacks=[kb.callbacks.Checkpoints(tmp_path)])
    with pytest.raises(ValueError, match="must not contain checkpoints"):
        small_model().fit(images().batches(4), **fit, callbacks=[kb.callbacks.Checkpoints(tmp_path, resume=False)])
    with pytest.raises(ValueError, match="`keep` must be positive"):
        kb.callbacks.Checkpoints(tmp_path, keep=0)


def test_a_nonfinite_step_is_skipped_or_ends_the_run(tmp_path, strategy):
    if not oracles.xla_keeps_nan():
        pytest.skip("XLA of this TensorFlow clips NaN pixels to black in the views")
    rows = images().array.astype("float32")
    rows[5] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(4, drop_remainder=True)
    checkpoints = kb.callbacks.Checkpoints(tmp_path, every=1)
    with pytest.raises(FloatingPointError, match=r"at step 2.*last good checkpoint is .*step-000000000001"):
        small_model().fit(dataset, verbose=0, callbacks=[checkpoints])
    model = small_model(skip_nonfinite=True)
    history = model.fit(dataset, verbose=0).history
    assert history["skipped"] == [1.0] and np.isfinite(history["loss"]).all()
    assert int(model.optimizer.iterations) == STEPS - 1
    assert all(np.isfinite(array).all() for array in state(model).values())
    # With a NaN on one of four replicas, all of them skip.
    with strategy.scope():
        replicated = small_model(keras.optimizers.SGD(1e-5), convolutions=False, skip_nonfinite=True)
    single = small_model(keras.optimizers.SGD(1e-5), convolutions=False, skip_nonfinite=True)
    for other in (single, replicated):
        assert other.fit(dataset, verbose=0).history["skipped"] == [1.0]
    for name, array in state(single).items():
        np.testing.assert_allclose(state(replicated)[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    dataset = tf.data.Dataset.from_tensors(np.full_like(rows[:4], np.nan)).repeat(16)
    with pytest.raises(FloatingPointError, match="10 steps in a row were skipped"):
        small_model(skip_nonfinite=True).fit(dataset, verbose=0)
