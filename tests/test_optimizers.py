import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import optimizers
from tests import oracles

FORMS = {False: oracles.lars, True: oracles.clipped_lars}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 2, 5), (7,)])
def test_lars_agrees_step_by_step_with_both_reference_forms(form, shape):
    rng = np.random.default_rng(0)
    # Large and small gradients, so that some ratios are clipped, and none at all.
    start = rng.normal(size=shape)
    gradients = rng.normal(size=(7, *shape)) * np.array([0.01, 1, 30, 1, 0.001, 0, 1]).reshape(-1, *[1] * len(shape))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 6, warmup_target=0.5, warmup_steps=2)
    settings = {"trust_coefficient": 0.1, "weight_decay": 0.01}
    optimizer = optimizers.LARS(schedule, vector_learning_rate=0.03, trust_clip=form, **settings)
    weight = keras.Variable(start, dtype="float32")
    rates = [float(schedule(step)) for step in range(7)]
    history = FORMS[form](start, gradients, rates, [0.03] * 7, trust=0.1, decay=0.01)
    for gradient, expected in zip(gradients, history, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        np.testing.assert_allclose(weight, expected, rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("form", FORMS)
def test_lars_at_a_constant_rate(form):
    rng = np.random.default_rng(1)
    start, gradients = rng.normal(size=(6, 2)), rng.normal(size=(10, 6, 2))
    optimizer = optimizers.LARS(0.2, trust_coefficient=0.02, trust_clip=form)
    weight = keras.Variable(start, dtype="float32")
    history = FORMS[form](start, gradients, [0.2] * 10, [None] * 10, trust=0.02)
    for gradient, expected in zip(gradients, history, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        np.testing.assert_allclose(weight, expected, rtol=2e-6, atol=1e-7)


def test_clipped_lars_never_takes_a_larger_step_than_sgd():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(6, 2))
    for scale in (1e-3, 10.0):
        gradient = scale * rng.normal(size=(6, 2))
        weight = keras.Variable(start, dtype="float32")
        optimizer = optimizers.LARS(0.3, momentum=0.0, trust_coefficient=0.02, weight_decay=0.0, trust_clip=True)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        ratio = 0.02 * np.linalg.norm(start) / np.linalg.norm(gradient)
        expected = start - 0.3 * min(ratio / 0.3, 1.0) * gradient
        np.testing.assert_allclose(weight, expected, rtol=2e-6)
        assert (ratio / 0.3 > 1) == (scale == 1e-3)


def test_lars_treats_excluded_variables_like_vectors():
    start, gradient = np.full((3, 3), 2.0, "float32"), np.full((3, 3), 0.5, "float32")
    variables = [keras.Variable(start, name=name) for name in ("position_embedding", "kernel")]
    optimizer = optimizers.LARS(0.1, 0.0, 1.0, 0.1, vector_learning_rate=0.3, exclude=["position"])
    optimizer.apply([gradient, gradient], variables)
    np.testing.assert_allclose(variables[0], start - 0.3 * gradient, rtol=1e-6)
    np.testing.assert_allclose(variables[1], oracles.lars(start, [gradient], [0.1], [0], 0.0, 1.0, 0.1)[0], rtol=1e-6)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.exclude == ("position",) and again.get_config() == optimizer.get_config()


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


@pytest.mark.parametrize(
    "arguments", [{"momentum": 1.0}, {"momentum": -0.1}, {"trust_coefficient": 0}, {"exclude": "bias"}]
)
def test_bad_arguments(arguments):
    with pytest.raises((ValueError, TypeError), match="Received"):
        optimizers.LARS(**arguments)


def test_a_learning_rate_of_zero_leaves_no_vector_rate_to_follow_it():
    with pytest.raises(ValueError, match=r"must not be 0\. Received: learning_rate=0, vector_learning_rate=0\.1"):
        optimizers.LARS(0.0, vector_learning_rate=0.1)


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


@pytest.mark.parametrize("rate", [0.2, keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.2, 0.1])])
def test_callbacks_can_set_the_vector_rate_of_a_compiled_step(rate):
    weight = keras.Variable(np.zeros(3), dtype="float32")
    optimizer = optimizers.LARS(rate, vector_learning_rate=0.01, momentum=0.0)
    optimizer.build([weight])
    step = tf.function(lambda: optimizer.apply([tf.ones(3)]))
    step()
    optimizer.vector_learning_rate = 0.5
    step()
    np.testing.assert_allclose(weight, -0.51, rtol=1e-6)
    np.testing.assert_allclose(optimizer.vector_learning_rate, 0.5, rtol=1e-6)


def test_a_vector_rate_that_cannot_change_refuses_to_be_set():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5])
    for rate, received in ((None, "None"), (schedule, "a schedule")):
        optimizer = optimizers.LARS(0.2, vector_learning_rate=rate)
        with pytest.raises(TypeError, match=f"created with a float. Received: .*=0.1, and {received} at creation"):
            optimizer.vector_learning_rate = 0.1


def test_both_rates_return_from_a_file_at_any_stage(tmp_path):
    """Also where the learning rate has reached 0, at the end of a schedule by a callback."""
    for stage in (0.1, 0.0):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizers.LARS(0.2, vector_learning_rate=0.0048), "mse")
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
        model.optimizer.learning_rate = stage
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras").optimizer
        again.learning_rate = 0.2
        np.testing.assert_allclose(again.vector_learning_rate, 0.0048, rtol=1e-6)


def test_a_file_without_the_vector_rate_of_version_01_loads():
    weight = keras.Variable(np.ones(3), dtype="float32")
    optimizer = optimizers.LARS(0.2, vector_learning_rate=0.01)
    optimizer.apply([keras.ops.ones(3)], [weight])
    stored = {}
    optimizer.save_own_variables(stored)
    position = [variable is optimizer.vector_rate for variable in optimizer.variables].index(True)
    del stored[str(position)]
    other = optimizers.LARS(0.2, vector_learning_rate=0.03)
    other.build([weight])
    other.load_own_variables({str(number): value for number, value in enumerate(stored.values())})
    np.testing.assert_array_equal(other.momentums[0], optimizer.momentums[0])
    np.testing.assert_allclose(other.vector_learning_rate, 0.03, rtol=1e-6)


def test_the_config_after_a_change_of_the_learning_rate_holds_both_rates_as_they_are():
    optimizer = optimizers.LARS(0.2, vector_learning_rate=0.0048)
    optimizer.learning_rate = 0.1
    config = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)).get_config()
    np.testing.assert_allclose([config["learning_rate"], config["vector_learning_rate"]], [0.1, 0.0024], rtol=1e-6)
