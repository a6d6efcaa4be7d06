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
from keras_barlow.pretraining import momentum
from tests import method_training as training
from tests import one_tape, shared

ROOT = pathlib.Path(__file__).parent.parent
_PLAIN = {}


def assert_same(got, name):
    if name not in _PLAIN:
        _PLAIN[name] = training.plain(name)
    assert got.keys() == _PLAIN[name].keys()
    for key, expected in _PLAIN[name].items():
        np.testing.assert_allclose(got[key], expected, rtol=1e-10, atol=1e-10, err_msg=f"{name} {key}")


# Those with a momentum copy and a schedule, a queue, prototypes, and mixed images; the others are simpler.
STATEFUL = ("BYOL", "MoCo", "SwAV", "BarlowTwins")
GRID = [(name, replicas, parts) for name in training.METHODS for replicas in (1, 4) for parts in (1, 2, 4)]


# One method with each kind of state on replicas and micro-batches, and a stop-gradient on one device.
CHOSEN = [*((name, 4, 2) for name in STATEFUL), ("SimSiam", 1, 1)]


@pytest.mark.parametrize("name, replicas, accumulation_steps", shared.few(GRID, *CHOSEN))
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


@pytest.mark.parametrize("name", shared.few(training.METHODS, "MoCo"))
def test_training_moves_everything_that_the_method_keeps(name, float64):
    """The comparison with one tape would not notice a part that stands still in both."""
    before = one_tape.State(training.build(name)).result()
    after = training.trained(name)
    still = [key for key in before if np.abs(after[key] - before[key]).max() < 1e-6]
    # These losses do not depend on a shift of all embeddings, so no bias has a gradient.
    assert still == (["encoder 1", "projector 1"] if name in ("VICReg", "BarlowTwins") else [])


@pytest.mark.parametrize("name", shared.few(training.METHODS, "MoCo", "SwAV"))
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


@pytest.mark.parametrize("name", shared.few(training.METHODS, "MoCo", "SwAV"))
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


def small(name, **arguments):
    """A model that draws its views from images of 8 x 8 pixels."""
    views = arguments.pop("views", kb.views.Views([kb.augmentations.RandomFlip(0.5)], [], seed=0))
    return training.build(name, views=views, **arguments)


IMAGES = training.views(0).astype("uint8")[:24]

# What is refused: by the constructor, or by `fit` before the first step.
REFUSED = {
    "no predictor": (
        lambda: small("BYOL", predictor=None),
        r"needs a predictor.*Pass predictor=Projector\(\(hidden, 8",
    ),
    "a wide predictor": (lambda: small("SimSiam", predictor=keras.layers.Dense(9)), r"keep the width.*8.*in and 9 out"),
    "momentum of BYOL": (lambda: small("BYOL", momentum=1.0), r"`momentum` must be in \[0, 1\).*Received"),
    "momentum of MoCo": (lambda: small("MoCo", momentum=-0.1), r"`momentum` must be in \[0, 1\).*Received"),
    "total steps": (lambda: small("BYOL", total_steps=0), "`total_steps` must be an integer of at least 1"),
    "half a step": (lambda: small("BYOL", total_steps=1.5), "`total_steps` must be an integer of at least 1"),
    "queue size": (lambda: small("MoCo", queue_size=0), "`queue_size` must be an integer of at least 2"),
    "a queue smaller than the batch": (
        lambda: small("MoCo", queue_size=8).fit(IMAGES, batch_size=12, verbose=0),
        r"at least 2 images and at most 8, because `queue_size` keys.*Received: .*batch of 12. Use a smaller batch",
    ),
    "a queue smaller than Batches": (
        lambda: small("MoCo", queue_size=8).fit(kb.data.ArrayImages(IMAGES).batches(12), verbose=0),
        "at least 2 images and at most 8",
    ),
    "mixup and a predictor": (
        lambda: small("BarlowTwins", predictor=keras.layers.Dense(8)),
        r"`mixup` cannot be combined with predictor, stop_gradient, moving_average. Received: predictor=",
    ),
    "mixup without standardization": (
        lambda: small("BarlowTwins", loss=kb.losses.BarlowTwinsLoss(normalization="none")),
        r'needs a BarlowTwinsLoss with normalization="batch".*Use loss=BarlowTwinsLoss\(\)',
    ),
    "the weight of mixup": (lambda: small("BarlowTwins", mixup=0.0), "`mixup_weight` must be positive"),
    "many crops": (
        lambda: small("SimCLR", views=kb.views.multi_crop(8, small_sizes=(4,))),
        "SimCLR compares at most 2 views of each image. Received: 3 views",
    ),
    "prototypes": (lambda: small("SwAV", num_prototypes=1), "`num_prototypes` must be an integer of at least 2"),
    "frozen steps": (lambda: small("SwAV", frozen_steps=-1), "`frozen_steps` must be an integer of at least 0"),
    "more prototypes than images": (
        lambda: small("SwAV", num_prototypes=16).fit(IMAGES, batch_size=12, verbose=0),
        r"at least 16 images, because every prototype gets a share.*Received: .*batch of 12. Use a larger batch",
    ),
    "more prototypes than the last batch": (
        lambda: small("SwAV", num_prototypes=8).fit(IMAGES, batch_size=20, verbose=0),
        "at least 8 images.*batch of 4",
    ),
    "more prototypes than validation images": (
        lambda: small("SwAV", num_prototypes=8).fit(IMAGES, batch_size=24, validation_data=(IMAGES[:6],), verbose=0),
        "at least 8 images.*batch of 6",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_training(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_of_unknown_size_is_checked_in_the_step():
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(20)
    with pytest.raises(Exception, match=r"at least 8 images, because every prototype gets a share"):
        small("SwAV", num_prototypes=8).fit(images, verbose=0)


def test_the_remedies_of_a_refused_batch_work():
    small("SwAV", num_prototypes=8).fit(IMAGES, batch_size=12, verbose=0)
    small("MoCo", queue_size=12).fit(IMAGES, batch_size=12, verbose=0)
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(20, drop_remainder=True)
    small("SwAV", num_prototypes=8).fit(images, verbose=0)


def test_micro_batches_and_replicas_mix_the_views_of_the_next_image(strategy, float64):
    """The next image may belong to another micro-batch or replica; its view B has its own random numbers."""
    images = tf.data.Dataset.from_tensor_slices(training.views(0).astype("uint8")).batch(training.BATCH)
    results = []
    for scope, parts in ((tf.distribute.get_strategy(), 3), (strategy, 2)):
        flips = [kb.augmentations.RandomFlip(0.5)], [kb.augmentations.RandomFlip(0.5)]
        with scope.scope():
            model = training.build("BarlowTwins", views=kb.views.Views(*flips, seed=0), accumulation_steps=parts)
        history = model.fit(images, epochs=2, verbose=0).history
        assert set(history) == {"loss", "invariance", "redundancy", "mixup"}
        results.append([*(weight.numpy() for weight in model.weights), *history.values()])
    for one, expected in zip(*results, strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-10, atol=1e-10)


def test_byol_s_momentum_rises_to_one():
    values = [float(momentum.rising(0.9, step, 10)) for step in (0, 5, 10, 11)]
    np.testing.assert_allclose(values, [0.9, 0.95, 1.0, 1.0], rtol=1e-12)
    assert momentum.rising(0.9, 5, None) == 0.9


@pytest.mark.full
@pytest.mark.parametrize("name", ["BYOL", "SimSiam", "SwAV"])
def test_small_crops_enter_the_step(name):
    """The loss of the embeddings of all crops, which no two-view method compares."""
    keras.utils.set_random_seed(0)
    encoder = kb.encoders.resnet((1,), input_shape=(None, None, 3), stem="small", width=4)
    arguments = {"SwAV": {"num_prototypes": 4}}.get(name, {"predictor": kb.Projector((8, 8))})
    views = kb.views.multi_crop(8, small_sizes=(4, 6), seed=0)
    model = getattr(kb, name)(encoder, kb.Projector((8,)), views=views, **arguments)
    model.compile(keras.optimizers.SGD(0.0))
    images = IMAGES[:8]
    history = model.fit(images, batch_size=8, shuffle=False, verbose=0).history
    embeddings = model.embeddings(views(images, step=0), training=True)
    assert len(embeddings) == (4 if name == "SwAV" else 6)
    np.testing.assert_allclose(history["loss"][0], float(model.loss(*embeddings)), rtol=1e-3)
