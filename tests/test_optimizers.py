import keras
import numpy as np
import pytest

from keras_barlow import optimizers
from tests import oracles


@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 2, 5), (7,)])
def test_lars_agrees_step_by_step_with_numpy(shape):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(5, *shape))
    gradients[3] = 0.0
    rate = keras.optimizers.schedules.CosineDecay(0.0, 4, warmup_target=0.5, warmup_steps=2)
    optimizer = optimizers.LARS(rate, weight_decay=0.01, vector_learning_rate=0.03)
    weight = keras.Variable(start, dtype="float32")
    # The oracle has a constant rate, so apply its momentum with the rate of each step.
    velocity, expected = 0.0, start
    for step, gradient in enumerate(gradients):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        unit = oracles.lars(expected, [gradient], 1.0, 1.0, momentum=0.0, decay=0.01)[0] - expected
        velocity = 0.9 * velocity - unit
        expected = expected - (float(rate(step)) if len(shape) > 1 else 0.03) * velocity
        np.testing.assert_allclose(weight, expected, rtol=2e-6, atol=1e-7)


def test_lars_agrees_with_numpy_at_a_constant_rate():
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(6, 2)), rng.normal(size=(10, 6, 2))
    optimizer = optimizers.LARS(0.2, trust_coefficient=0.02)
    weight = keras.Variable(start, dtype="float32")
    for gradient, expected in zip(gradients, oracles.lars(start, gradients, 0.2, None, trust=0.02), strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        np.testing.assert_allclose(weight, expected, rtol=2e-6)


def test_clipped_lars_never_takes_a_larger_step_than_sgd():
    """As in solo-learn: the trust ratio over the learning rate, at most 1."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=(6, 2))
    for scale in (1e-3, 10.0):
        gradient = scale * rng.normal(size=(6, 2))
        weight = keras.Variable(start, dtype="float32")
        optimizer = optimizers.LARS(0.3, momentum=0.0, trust_coefficient=0.02, weight_decay=0.0, clip=True)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        ratio = 0.02 * np.linalg.norm(start) / np.linalg.norm(gradient)
        expected = start - 0.3 * min(ratio / 0.3, 1.0) * gradient
        np.testing.assert_allclose(weight, expected, rtol=2e-6)
        assert (ratio / 0.3 > 1) == (scale == 1e-3)


def test_sgd_has_its_decay_in_the_gradient():
    """The update of torch.optim.SGD. Importing it beside TensorFlow crashes: it loads Triton."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(5, 4, 3))
    optimizer, weight = optimizers.SGD(0.1, momentum=0.8, weight_decay=0.05), keras.Variable(start, dtype="float32")
    expected, buffer = start, 0.0
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        buffer = 0.8 * buffer + gradient + 0.05 * expected
        expected = expected - 0.1 * buffer
        np.testing.assert_allclose(weight, expected, rtol=2e-5, atol=1e-6)


def test_sgd_can_keep_the_rate_of_some_variables_and_exempt_some_from_the_decay():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5])
    weights = [keras.Variable(np.ones(2), dtype="float32", name=name) for name in ("own", "constant", "undecayed")]
    optimizer = optimizers.SGD(schedule, momentum=0.0, weight_decay=0.1)
    optimizer.exclude_from_schedule([weights[1]], 0.25)
    optimizer.exclude_from_weight_decay([weights[2]])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(2)] * 3, weights)
    own = 1 - 1.0 * 1.1
    np.testing.assert_allclose(weights[0], own - 0.5 * (1 + 0.1 * own), rtol=1e-6)
    constant = 1 - 0.25 * 1.1
    np.testing.assert_allclose(weights[1], constant - 0.25 * (1 + 0.1 * constant), rtol=1e-6)
    np.testing.assert_allclose(weights[2], 1 - 1.0 - 0.5, rtol=1e-6)
    again = optimizers.SGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config() and list(again.constant_rates.values()) == [0.25]


@pytest.mark.parametrize("momentum", [1.0, -0.1])
def test_bad_arguments_of_sgd(momentum):
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\)"):
        optimizers.SGD(momentum=momentum)


def test_a_weight_of_zeros_still_moves():
    weight = keras.Variable(np.zeros((2, 2)), dtype="float32")
    optimizers.LARS(1.0).apply([keras.ops.ones((2, 2))], [weight])
    np.testing.assert_allclose(weight, -1.0)


def test_vector_learning_rate_defaults_to_the_learning_rate_and_may_be_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5])
    for rate, expected in ((None, -2.0 - 1.8), (schedule, -1.0 - 0.5)):
        weight = keras.Variable(np.zeros(3), dtype="float32")
        optimizer = optimizers.LARS(2.0, vector_learning_rate=rate, momentum=0.0 if rate else 0.9)
        for gradient in (1.0, 0.0 if rate is None else 1.0):
            optimizer.apply([keras.ops.full((3,), gradient)], [weight])
        np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_config_round_trip_with_schedules():
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=0.4, warmup_steps=10)
    optimizer = optimizers.LARS(schedule, 0.8, 0.02, 1e-4, vector_learning_rate=schedule, clipnorm=1.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"trust_coefficient": 0}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Received"):
        optimizers.LARS(**arguments)


def test_excluded_variables_are_not_decayed():
    variables = [keras.Variable(np.full((3, 3), 2.0, "float32"), name=name) for name in ("position", "kernel")]
    optimizer = optimizers.LARS(0.1, weight_decay=0.1, trust_coefficient=1.0, momentum=0.0)
    optimizer.exclude_from_weight_decay(var_names=["pos"])
    optimizer.build(variables)
    for _ in range(20):
        optimizer.apply([np.zeros((3, 3), "float32")] * 2, variables)
    assert np.asarray(variables[0])[0, 0] == 2.0 and np.asarray(variables[1])[0, 0] < 1.0


@pytest.mark.parametrize("rate", [0.0048, keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.0048, 0.0])])
def test_setting_the_learning_rate_scales_the_vector_rate(rate):
    """Callbacks such as LearningRateScheduler and ReduceLROnPlateau set the attribute."""
    moved = []
    for factor in (1.0, 0.5, 0.0):
        weight = keras.Variable(np.zeros(3), dtype="float32")
        optimizer = optimizers.LARS(0.2, vector_learning_rate=rate, momentum=0.0)
        optimizer.learning_rate = 0.2 * factor
        optimizer.apply([keras.ops.ones(3)], [weight])
        moved.append(float(weight[0]))
    np.testing.assert_allclose(moved, [-0.0048, -0.0024, 0.0], rtol=1e-6)


def test_the_config_after_a_change_of_the_learning_rate_holds_both_rates_as_they_are():
    optimizer = optimizers.LARS(0.2, vector_learning_rate=0.0048)
    optimizer.learning_rate = 0.1
    config = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)).get_config()
    np.testing.assert_allclose([config["learning_rate"], config["vector_learning_rate"]], [0.1, 0.0024], rtol=1e-6)
