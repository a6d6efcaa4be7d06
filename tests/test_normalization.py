import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import normalization


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
        normalization.BatchNormalization(**arguments),
        keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **arguments),
    ]
    fused, reference = (forward_and_gradient(layer, inputs, weights) for layer in layers)
    for got, expected in zip(tf.nest.flatten(fused), tf.nest.flatten(reference), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for got, expected in zip(layers[0].variables, layers[1].variables, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(layers[0](inputs), layers[1](inputs), rtol=1e-5, atol=1e-6)


def test_the_fused_kernel_is_used_in_training_and_only_there():
    layer = normalization.BatchNormalization()
    layer.build((None, 4, 4, 3))
    for training, expected in ((True, True), (False, False)):
        graph = tf.function(lambda x, training=training: layer(x, training=training)).get_concrete_function(
            tf.TensorSpec((8, 4, 4, 3))
        )
        assert ("FusedBatchNormV3" in {op.type for op in graph.graph.get_operations()}) is expected


def test_frozen_layer_runs_in_inference_mode():
    layer = normalization.BatchNormalization()
    layer.trainable = False
    inputs = np.random.default_rng(0).normal(3, 5, (16, 4)).astype("float32")
    np.testing.assert_allclose(layer(inputs, training=True), inputs, rtol=1e-4)


def test_synchronised_moments_are_those_of_the_global_batch(strategy):
    inputs = np.random.default_rng(0).normal(3, 5, (7, 4)).astype("float32")
    with strategy.scope():
        layer = normalization.BatchNormalization(synchronized=True)
        layer.build((None, 4))
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices(inputs).batch(7))
    batch = next(iter(dataset))
    outputs = tf.function(lambda: strategy.run(lambda x: layer(x, training=True), args=(batch,)))()
    expected = (inputs - inputs.mean(0)) / np.sqrt(inputs.var(0) + 1e-5)
    np.testing.assert_allclose(tf.concat(outputs.values, 0), expected, atol=1e-4)


def test_standardize_keeps_float32_precision_under_a_mixed_policy():
    layer = normalization.Standardize((0.5, 0.4), (0.25, 0.2), dtype="mixed_bfloat16")
    images = np.array([[[[254.6, 0.0]]]], "float32")
    expected = (images / 255 - [0.5, 0.4]) / [0.25, 0.2]
    outputs = layer(images)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_array_equal(outputs, tf.cast(tf.constant(expected, tf.float32), tf.bfloat16))


def test_standardize_refuses_a_deviation_of_zero():
    with pytest.raises(ValueError, match="`deviation` must be positive"):
        normalization.Standardize(0.5, 0.0)
