"""Predictor, stop-gradient and moving average, compared with one tape over the formula."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import replica_training as training
from tests import shared

RATE, MOMENTUM = 0.01, 0.9
ASYMMETRIES = {
    "predictor": {"predictor": (6, 10)},
    "stop-gradient": {"stop_gradient": True},
    "both": {"predictor": (6, 10), "stop_gradient": True},
    "moving average": {"predictor": (6, 10), "moving_average": MOMENTUM},
}


def build(arguments, **others):
    keras.utils.set_random_seed(3)
    arguments = dict(arguments)
    if "predictor" in arguments:
        arguments["predictor"] = kb.Projector(arguments["predictor"], use_batch_norm=False)
    encoder, projector = training.networks("group_norm")
    loss = kb.losses.BarlowTwinsLoss(training.WEIGHT)
    model = kb.BarlowTwins(encoder, projector, loss=loss, **arguments, **others)
    model.compile(keras.optimizers.SGD(RATE))
    return model


def plain_step(model, arguments, copies):
    """Updates a model by one step of the formula with autodiff, and returns the loss."""
    view_a, view_b = training.pairs()
    with tf.GradientTape() as tape:
        z_a, z_b = model.project(view_a, training=True), model.project(view_b, training=True)
        penalty = model.encoder.losses[0]
        if "moving_average" in arguments:
            z_b = copies[1](copies[0](view_b))
        if "predictor" in arguments:
            z_a = model.predictor(z_a)
        if "stop_gradient" in arguments:
            z_b = tf.stop_gradient(z_b)
        a, b = ((x - tf.reduce_mean(x, 0)) / tf.sqrt(tf.math.reduce_variance(x, 0) + 1e-5) for x in (z_a, z_b))
        c = tf.matmul(a, b, transpose_a=True) / len(a)
        off = tf.square(c) * (1 - tf.eye(len(c)))
        loss = tf.reduce_sum((1 - tf.linalg.diag_part(c)) ** 2) + training.WEIGHT * tf.reduce_sum(off)
        total = loss + penalty
    weights = model.trainable_weights
    gradients = tape.gradient(total, [weight.value for weight in weights], unconnected_gradients="zero")
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.assign_sub(RATE * gradient)
    if "moving_average" in arguments:
        for copy, network in zip(copies, (model.encoder, model.projector), strict=True):
            copy.set_weights(
                [
                    MOMENTUM * t + (1 - MOMENTUM) * w
                    for t, w in zip(copy.get_weights(), network.get_weights(), strict=True)
                ]
            )
    return float(total)


@pytest.mark.parametrize(
    "name, how",
    shared.few(
        [(name, how) for name in ASYMMETRIES for how in ("one device", "four replicas", "micro-batches")],
        *[("predictor", "one device"), ("stop-gradient", "micro-batches"), ("both", "four replicas")],
        *[("moving average", "four replicas"), ("moving average", "micro-batches")],
    ),
)
def test_steps_match_the_formula(strategy, name, how):
    arguments = ASYMMETRIES[name]
    expected = build({key: value for key, value in arguments.items() if key != "moving_average"})
    start = expected.get_weights()
    copies = training.networks("group_norm")
    copies[0].set_weights(expected.encoder.get_weights())
    copies[1].set_weights(expected.projector.get_weights())
    with strategy.scope() if how == "four replicas" else contextlib.nullcontext():
        model = build(arguments, accumulation_steps=4 if how == "micro-batches" else 1)
    assert len(model.trainable_weights) == len(expected.trainable_weights)
    data = tf.data.Dataset.from_tensors((training.pairs(),)).unbatch().batch(16, drop_remainder=True)
    losses = model.fit(data, epochs=3, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, [plain_step(expected, arguments, copies) for _ in range(3)], rtol=1e-4)
    parts = [(model.encoder, expected.encoder), (model.projector, expected.projector)]
    if "moving_average" in arguments:
        parts += list(zip(model.target, copies, strict=True))
    for got, wanted in parts:
        for one, other in zip(got.get_weights(), wanted.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    moved = zip(start, expected.get_weights(), strict=True)
    assert max(np.abs(before - after).max() for before, after in moved) > 1e-3


def test_a_saved_model_keeps_its_asymmetries(tmp_path):
    model = build({"predictor": (6, 10), "moving_average": MOMENTUM, "stop_gradient": True})
    data = tf.data.Dataset.from_tensors((training.pairs(),)).unbatch().batch(16)
    model.fit(data, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (again.moving_average, again.stop_gradient) == (MOMENTUM, True)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.evaluate(data, verbose=0) == again.evaluate(data, verbose=0)
    assert len(again.trainable_weights) == len(model.trainable_weights)
    old = build({}).get_config()
    for name in ("predictor", "stop_gradient", "moving_average"):
        del old[name]
    assert kb.BarlowTwins.from_config(old).predictor is None


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"must keep the width.*10 features in and 7 out"):
        build({"predictor": (6, 7)})
    with pytest.raises(ValueError, match=r"`moving_average` must be in \[0, 1\)"):
        build({"moving_average": 1.0})
