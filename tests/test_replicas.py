"""A training run on 1, 2 and 4 replicas and in micro-batches, compared with a plain autodiff step."""

import functools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import layers
from tests import replica_training as training
from tests import shared


@functools.cache
def plain_weights(kind):
    """The oracle: one tape, the equation of the paper, and batch normalization and optimizer of Keras."""
    twin = training.model(kind, "auto", 1)
    if kind == "batch_norm":
        layers.synchronize_batch_norm(twin, synchronized=False)
        assert type(twin.encoder.get_layer("stem_normalization")) is keras.layers.BatchNormalization
    for _ in range(training.STEPS):
        with tf.GradientTape() as tape:
            z = [twin.project(view, training=True) for view in training.pairs()]
            penalty = sum(twin.losses)
            a, b = ((x - tf.reduce_mean(x, 0)) / tf.sqrt(tf.math.reduce_variance(x, 0) + 1e-5) for x in z)
            c = tf.matmul(a, b, transpose_a=True) / len(a)
            off = tf.square(c) * (1 - tf.eye(len(c)))
            loss = tf.reduce_sum((1 - tf.linalg.diag_part(c)) ** 2) + training.WEIGHT * tf.reduce_sum(off) + penalty
        variables = [weight.value for weight in twin.trainable_weights]
        twin.optimizer.apply(tape.gradient(loss, variables), twin.trainable_weights)
    return [weight.numpy() for weight in twin.weights]


def check(weights, run):
    expected, start = plain_weights(run[0]), training.model(*run).weights
    for got, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=str(run))
    assert max(np.abs(a - b).max() for a, b in zip(start, expected, strict=True)) > 1e-2


# Two micro-batches on one and on two replicas.
@pytest.mark.parametrize(
    "replicas, kind, form, accumulation_steps",
    shared.few(
        [(replicas, *run) for replicas in (1, 4) for run in training.RUNS if (replicas, run[2]) != (4, 2)],
        *[(1, "batch_norm", "batch", 1), (1, "group_norm", "feature", 4), (1, "group_norm", "batch", 2)],
        *[(4, "batch_norm", "feature", 1), (4, "group_norm", "batch", 1)],
    ),
)
def test_every_weight_is_that_of_the_global_batch(request, replicas, kind, form, accumulation_steps):
    run = (kind, form, accumulation_steps)
    strategy = request.getfixturevalue("strategy") if replicas == 4 else None
    check(training.trained_weights(*run, strategy), run)


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    """The results of two replicas, from another process, because this process already has a strategy."""
    path = tmp_path_factory.mktemp("replicas") / "two.npz"
    command = [sys.executable, "-m", "tests.replica_training", "2", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(path)


@pytest.mark.full
def test_every_weight_of_two_replicas_is_that_of_the_global_batch(two_replicas):
    for run in training.RUNS:
        name = "-".join(map(str, run))
        check([two_replicas[f"{name}-{index}"] for index in range(len(plain_weights(run[0])))], run)


@pytest.mark.full
def test_views_are_the_same_with_and_without_xla_on_one_and_two_replicas(two_replicas):
    expected = training.drawn_views(compiled=False)
    for view in expected:
        distinct = [np.abs(view[i] - view[j]).mean() for i in range(16) for j in range(i)]
        assert min(distinct) > 0.5
    for compiled in (False, True):
        single = training.drawn_views(compiled)
        double = [two_replicas[f"view-{name}-{compiled}"] for name in "ab"]
        for want, *got in zip(expected, single, double, strict=True):
            for views in got:
                # Solarization jumps at its threshold, where a rounding error may change one pixel by one step.
                assert np.mean(np.abs(views - want) > 2e-3) < 1e-3


@pytest.mark.full
def test_an_empty_replica_is_exact(tmp_path):
    """5 rows on 4 replicas, in a process without oneDNN, whose convolutions return a wrong shape for zero rows."""
    script = tmp_path / "empty.py"
    script.write_text(
        """
import numpy as np, tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(8)
devices = [tf.config.LogicalDeviceConfiguration()] * 4
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
from tests import replica_training as training
strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(4)])
data = tf.data.Dataset.from_tensors((training.pairs(5),)).unbatch().batch(5)
single = training.model("batch_norm", "auto", 1)
single.fit(data, epochs=3, verbose=0)
with strategy.scope():
    model = training.model("batch_norm", "auto", 1)
model.fit(data, epochs=3, verbose=0)
for got, expected in zip(model.weights, single.weights, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
"""
    )
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]


def test_uneven_rows_are_refused_where_batch_normalization_is_not_synchronized(strategy):
    with strategy.scope():
        model = training.model("batch_norm", "auto", 1)
        layers.synchronize_batch_norm(model, synchronized=False)
    data = tf.data.Dataset.from_tensors((training.pairs(10),)).unbatch().batch(10)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not synchronized needs the same number of images"):
        model.fit(data, verbose=0)
