import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import layers as our_layers


def forward_and_gradient(layer, inputs, weights):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
        value = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
    variables = [variable.value for variable in layer.trainable_variables]
    return outputs, tape.gradient(value, [inputs, *variables])


@pytest.mark.parametrize("shape", [(16, 6), (8, 5, 5, 6), (4, 3, 6)])
@pytest.mark.parametrize("arguments", [{}, {"center": False, "scale": False}, {"synchronized": True}])
def test_the_fused_kernel_gives_the_numbers_of_keras(shape, arguments):
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(3, 5, shape).astype("float32"))
    weights = rng.normal(size=shape).astype("float32")
    layers = [
        our_layers.BatchNormalization(**arguments),
        keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **arguments),
    ]
    fused, reference = (forward_and_gradient(layer, inputs, weights) for layer in layers)
    for got, expected in zip(tf.nest.flatten(fused), tf.nest.flatten(reference), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for got, expected in zip(layers[0].variables, layers[1].variables, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(layers[0](inputs), layers[1](inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_is_used_in_training_and_inference(training):
    layer = our_layers.BatchNormalization()
    layer.build((None, 4, 4, 3))
    function = tf.function(lambda x: layer(x, training=training)).get_concrete_function(tf.TensorSpec((8, 4, 4, 3)))
    kernels = [op for op in function.graph.get_operations() if op.type == "FusedBatchNormV3"]
    assert [kernel.get_attr("is_training") for kernel in kernels] == [training]


def test_frozen_layer_runs_in_inference_mode():
    layer = our_layers.BatchNormalization()
    layer.trainable = False
    inputs = np.random.default_rng(0).normal(3, 5, (16, 4)).astype("float32")
    np.testing.assert_allclose(layer(inputs, training=True), inputs, rtol=1e-4)


def test_synchronized_moments_are_those_of_the_global_batch(strategy):
    inputs = np.random.default_rng(0).normal(3, 5, (7, 4)).astype("float32")
    with strategy.scope():
        layer = our_layers.BatchNormalization(synchronized=True)
        layer.build((None, 4))
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices(inputs).batch(7))
    batch = next(iter(dataset))
    outputs = tf.function(lambda: strategy.run(lambda x: layer(x, training=True), args=(batch,)))()
    expected = (inputs - inputs.mean(0)) / np.sqrt(inputs.var(0) + 1e-5)
    np.testing.assert_allclose(tf.concat(outputs.values, 0), expected, atol=1e-4)


def test_standardize_keeps_float32_precision_under_a_mixed_policy():
    layer = our_layers.Standardize((0.5, 0.4), (0.25, 0.2), dtype="mixed_bfloat16")
    images = np.array([[[[254.6, 0.0]]]], "float32")
    expected = (images / 255 - [0.5, 0.4]) / [0.25, 0.2]
    outputs = layer(images)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_array_equal(outputs, tf.cast(tf.constant(expected, tf.float32), tf.bfloat16))


def test_standardize_refuses_a_deviation_of_zero():
    with pytest.raises(ValueError, match="`deviation` must be positive"):
        our_layers.Standardize(0.5, 0.0)


class TestOverReplicas:
    """Compares four replicas with Keras' layer on the global batch: outputs, gradients and moving statistics."""

    @pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("mixed_bfloat16", 0.05)])
    @pytest.mark.parametrize("shape", [(10, 5), (10, 4, 3, 5), (5, 4, 4, 5)])
    @pytest.mark.parametrize("arguments", [{}, {"center": False, "scale": False}])
    def test_the_numbers_are_those_of_the_global_batch(self, strategy, shape, dtype, tolerance, arguments):
        """10 rows are 3, 3, 3 and 1; 5 rows leave one replica empty. Rows differ systematically."""
        rng = np.random.default_rng(0)
        level = np.linspace(-20, 40, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        inputs = (level + rng.normal(3, 5, shape)).astype("float32")
        weights = rng.normal(size=shape).astype("float32")
        reference = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **arguments)
        outputs, (d_inputs, *d_variables) = forward_and_gradient(reference, tf.constant(inputs), weights)

        with strategy.scope():
            layer = our_layers.BatchNormalization(synchronized=True, dtype=dtype, **arguments)
            layer.build((None, *shape[1:]))
        data = tf.data.Dataset.from_tensors((inputs, weights)).unbatch().batch(shape[0])
        batch = next(iter(strategy.experimental_distribute_dataset(data)))
        step = tf.function(lambda: strategy.run(lambda x, w: forward_and_gradient(layer, x, w), args=batch))
        got, (d_got, *d_got_variables) = tf.nest.map_structure(strategy.experimental_local_results, step())

        def check(value, expected):
            np.testing.assert_allclose(value, expected, atol=tolerance * np.abs(expected).max())

        check(np.concatenate([tf.cast(part, tf.float32) for part in got]), outputs)
        check(np.concatenate([tf.cast(part, tf.float32) for part in d_got]), d_inputs)
        for parts, expected in zip(d_got_variables, d_variables, strict=True):
            check(sum(parts), expected)
        for statistic in ("moving_mean", "moving_variance"):
            check(getattr(layer, statistic), getattr(reference, statistic))

    def test_one_sum_forward_and_one_backward(self, strategy):
        with strategy.scope():
            layer = our_layers.BatchNormalization(synchronized=True)
            layer.build((None, 4, 4, 5))

        @tf.function
        def step():
            x = tf.ones((2, 4, 4, 5))
            return strategy.run(lambda: forward_and_gradient(layer, x, x)[1])

        types = [op.type for op in step.get_concrete_function().graph.get_operations()]
        assert sum("CollectiveReduce" in name for name in types) == 2 * 4


def test_under_xla():
    layer = our_layers.BatchNormalization()
    layer.build((None, 4, 4, 3))
    x = tf.constant(np.random.default_rng(0).normal(3, 5, (8, 4, 4, 3)).astype("float32"))
    plain, compiled = (tf.function(lambda x: layer(x, training=True), jit_compile=jit)(x) for jit in (False, True))
    np.testing.assert_allclose(plain, compiled, rtol=1e-4, atol=1e-4)


def backbone():
    keras.utils.set_random_seed(0)
    inner = [
        keras.Input((4, 4, 6)),
        keras.layers.Conv2D(6, 3, padding="same"),
        keras.layers.BatchNormalization(momentum=0.8),
    ]
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization(name="first")(keras.layers.Conv2D(6, 1)(inputs))
    x = keras.Sequential(inner, name="nested")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


class TestSynchronizeBatchNorm:
    def test_there_and_back_without_touching_a_weight(self, tmp_path):
        model, plain = backbone(), backbone()
        images = np.random.default_rng(0).normal(2, 3, (8, 4, 4, 3)).astype("float32")
        config = model.get_config()
        assert our_layers.synchronize_batch_norm(model) is model
        changed = [model.get_layer("first"), model.get_layer("nested").layers[1]]
        assert all(type(layer) is our_layers.BatchNormalization and layer.synchronized for layer in changed)
        assert changed[1].momentum == 0.8
        for training in (True, False):
            np.testing.assert_allclose(model(images, training=training), plain(images, training=training), atol=1e-5)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert type(again.get_layer("first")) is our_layers.BatchNormalization
        our_layers.synchronize_batch_norm(model, synchronized=False)
        assert all(type(layer) is keras.layers.BatchNormalization for layer in changed)
        assert model.get_config() == config
        for weight, other in zip(model.weights, plain.weights, strict=True):
            np.testing.assert_allclose(weight, other, atol=1e-6)

    def test_a_model_of_keras_applications(self):
        model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
        before = model.get_weights()
        our_layers.synchronize_batch_norm(model)
        count = sum(isinstance(layer, our_layers.BatchNormalization) for layer in model.layers)
        assert count == 52
        assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))

    def test_a_model_without_batch_normalization(self):
        with pytest.raises(ValueError, match=r"must have batch normalization layers\. Received: model='plain'"):
            our_layers.synchronize_batch_norm(keras.Sequential([keras.layers.Dense(1)], name="plain"))
