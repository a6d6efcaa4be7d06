import keras
import numpy as np
import pytest

import keras_barlow as kb
from keras_barlow import encoders, layers


def test_parameters_are_those_of_the_published_networks():
    # torchvision: 11,689,512 and 25,557,032 with the classifiers' 513,000 and 2,049,000.
    for build, parameters in ((encoders.resnet18, 11_176_512), (encoders.resnet50, 23_508_032)):
        encoder = build(input_shape=(64, 64, 3))
        assert sum(np.prod(weight.shape) for weight in encoder.trainable_weights) == parameters


def test_resolution_of_the_stages():
    for stem, size, expected in (("small", 32, [32, 16, 8, 4]), ("imagenet", 224, [56, 28, 14, 7])):
        encoder = encoders.resnet18(input_shape=(size, size, 3), stem=stem, width=8)
        outputs = [encoder.get_layer(f"stage{stage}_block2_relu").output.shape for stage in (1, 2, 3, 4)]
        assert outputs == [(None, side, side, 8 * 2**stage) for stage, side in enumerate(expected)]


def test_a_strided_convolution_reads_the_same_pixels_as_torch():
    encoder = encoders.resnet((1, 1), input_shape=(8, 8, 3), stem="small", width=4)
    for name, kernel in (("stage2_block1_convolution1", 3), ("stage2_block1_shortcut_convolution", 1)):
        layer = encoder.get_layer(name)
        weights = np.random.default_rng(0).normal(size=(kernel, kernel, 4, 8)).astype("float32")
        layer.kernel.assign(weights)
        inputs = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype("float32")
        before = layer.input._keras_history.operation
        outputs = np.asarray(layer(before(inputs)))
        pad = kernel // 2
        padded = np.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        for row in range(4):
            for column in range(4):
                patch = padded[:, 2 * row : 2 * row + kernel, 2 * column : 2 * column + kernel]
                expected = np.einsum("nhwc,hwcd->nd", patch, weights)
                np.testing.assert_allclose(outputs[:, row, column], expected, rtol=1e-4, atol=1e-5)


def test_zero_init_residual_starts_every_block_as_its_shortcut():
    encoder = encoders.resnet18((32, 32, 3), stem="small", width=4, zero_init_residual=True)
    for stage in (1, 2, 3, 4):
        assert not np.any(encoder.get_layer(f"stage{stage}_block2_normalization2").gamma)
        assert np.all(encoder.get_layer(f"stage{stage}_block2_normalization1").gamma)


def test_mixed_policy_gives_float32_features_and_does_not_round_the_images():
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = encoders.resnet18((8, 8, 3), stem="small", width=4)
    assert encoder(np.zeros((2, 8, 8, 3), "float32")).dtype == "float32"
    # 254.6 and 255 are equal in bfloat16, so casting the input first would make them the same.
    backbone = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    images = np.array([254.6, 255.0], "float32").reshape(2, 1, 1, 1) * np.ones((1, 1, 1, 3), "float32")
    wrapped = encoders.with_standardization(backbone, mean=1.0, deviation=0.002)
    model = kb.BarlowTwins(wrapped, kb.Projector((4,)))
    for function in (wrapped, model, lambda x: model.predict(x, verbose=0)):
        np.testing.assert_allclose(function(images)[:, 0], [-0.4 / 0.51, 0.0], rtol=0.01)


@pytest.mark.parametrize("rank", [2, 4])
def test_with_standardization_wraps_any_backbone(rank):
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)]
    backbone = keras.Sequential(layers if rank == 4 else [*layers, keras.layers.GlobalAveragePooling2D()])
    encoder = encoders.with_standardization(backbone, mean=0.5, deviation=0.25)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype="uint8")
    expected = np.asarray(backbone((images / 255 - 0.5) / 0.25))
    expected = expected.mean(axis=(1, 2)) if rank == 4 else expected
    np.testing.assert_allclose(encoder(images), expected, rtol=1e-4, atol=1e-5)


def test_partial_batches_do_not_corrupt_memory():
    # With oneDNN, TensorFlow 2.21 crashes here on a 1 x 1 convolution of stride 2 (see `encoders.resnet`).
    encoder = encoders.resnet((1, 1), input_shape=(16, 16, 3), stem="small", width=8)
    model = keras.Sequential([encoder, keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.zeros((150, 16, 16, 3), "uint8"), np.zeros((150, 2)), batch_size=64, epochs=3, verbose=0)


@pytest.mark.parametrize("arguments", [{"block": "dense"}, {"stem": "large"}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"must be .* Received"):
        encoders.resnet((1,), **arguments)


def test_projector_layers_and_initialization():
    layer = layers.Projector((64, 32, 16))
    layer.build((None, 100))
    kernels = [weight for weight in layer.trainable_weights if len(weight.shape) == 2]
    assert [kernel.shape for kernel in kernels] == [(100, 64), (64, 32), (32, 16)]
    assert len(layer.trainable_weights) == 3 + 2 * 2
    for kernel in kernels:
        bound = kernel.shape[0] ** -0.5
        assert 0.9 * bound < np.abs(kernel).max() <= bound
    assert isinstance(layer._chain[1], layers.BatchNormalization)
    assert layer.compute_output_shape((None, 100)) == (None, 16)


def test_projector_without_batch_norm_and_with_bias():
    layer = layers.Projector((8, 4), use_bias=True, use_batch_norm=False)
    layer.build((None, 3))
    assert [weight.shape for weight in layer.weights] == [(3, 8), (8,), (8, 4), (4,)]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("widths", [(), (8, 0), (8.5,)])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="`widths` must be positive integers"):
        layers.Projector(widths)
