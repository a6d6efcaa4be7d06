"""Encoders of every kind of Keras model: they train and are exported, or are rejected with a remedy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_barlow as kb
from tests import shared

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
FLOATS = IMAGES.astype("float32")


class Subclassed(keras.Model):
    """Convolution and pooling; `of` selects the form of inputs and outputs."""

    def __init__(self, of="features", **options):
        super().__init__(**options)
        self.of = of
        self.convolution = layers.Conv2D(8, 3)
        self.pooling = layers.GlobalAveragePooling2D()

    def call(self, images):
        extra = 0.0
        if self.of == "dictionary in":
            images = images["image"]
        elif self.of == "list in":
            images, other = images
            extra = ops.sum(other)
        maps = self.convolution(ops.cast(images, "float32") / 255)
        features = self.pooling(maps) + extra
        return {"dictionary": {"maps": maps, "vector": features}, "pair": (maps, features)}.get(self.of, features)


def called(model, inputs=FLOATS):
    model(inputs)
    return model


def functional(outputs=lambda maps, features: features, inputs=lambda images: images, shape=(16, 16, 3)):
    images = keras.Input(shape, name="images")
    maps = layers.Conv2D(8, 3)(layers.Rescaling(1 / 255)(images))
    return keras.Model(inputs(images), outputs(maps, layers.GlobalAveragePooling2D()(maps)))


def two_inputs():
    images, other = keras.Input((16, 16, 3)), keras.Input((8,))
    return keras.Model([other, images], layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(images)) + other)


def vectors():
    pixels = keras.Input((784,))
    return keras.Model(pixels, layers.Dense(8)(pixels))


def sequential(*first):
    return keras.Sequential([*first, layers.Rescaling(1 / 255), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D()])


ACCEPTED = {
    "subclassed, called": lambda: called(Subclassed()),
    "Sequential with an Input": lambda: sequential(keras.Input((16, 16, 3))),
    "Sequential, called": lambda: called(sequential(), FLOATS[:2]),
    "one output in a list": lambda: functional(lambda maps, features: [features]),
    "one input in a list": lambda: functional(inputs=lambda images: [images]),
    "backbone with standardization": lambda: kb.encoders.with_standardization(called(Subclassed())),
    "free sizes": lambda: kb.encoders.resnet((1,), input_shape=(None, None, 3), stem="imagenet", width=8),
}
# For each model, the "Received" of the error. The code in the remedy turns the model into an encoder.
REJECTED = {
    "subclassed, not called": (Subclassed, "built=False"),
    "Sequential, not called": (sequential, "built=False"),
    "layer": (layers.GlobalAveragePooling2D, "GlobalAveragePooling2D name="),
    "subclassed with a pair": (lambda: called(Subclassed("pair")), r"0 \(None, 14, 14, 8\), 1 \(None, 8\)"),
    "subclassed with a dictionary": (
        lambda: called(Subclassed("dictionary")),
        r"'maps' \(None, 14, 14, 8\), 'vector' \(None, 8\)",
    ),
    "two outputs": (lambda: functional(lambda maps, features: [maps, features]), r"1 \(None, 8\)"),
    "dictionary": (lambda: functional(lambda maps, features: {"a": features, "b": [maps]}), r"'a' \(None, 8\), 'b'"),
    "dictionary of one": (lambda: functional(lambda maps, features: {"a": features}), r"'a' \(None, 8\)"),
    "map": (lambda: functional(lambda maps, features: maps), r"\(None, 14, 14, 8\)"),
    "tokens": (lambda: functional(lambda maps, _: layers.Reshape((-1, 8))(maps)), r"\(None, 196, 8\)"),
    "dictionary in": (lambda: functional(inputs=lambda images: {"images": images}), r"'images' \(None, 16, 16, 3\)"),
    "subclassed, dictionary in": (lambda: called(Subclassed("dictionary in"), {"image": FLOATS}), "'image'"),
    "subclassed, list in": (lambda: called(Subclassed("list in"), [FLOATS, FLOATS[:, 0, 0]]), r"\(8, 3\)"),
    "two inputs": (two_inputs, r"0 \(None, 8\), 1 \(None, 16, 16, 3\)"),
    "vectors": (vectors, r"\(None, 784\)"),
}


def flips():
    return kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=0)


def trained(encoder, views="flips", **arguments):
    views = flips() if views == "flips" else views
    model = kb.BarlowTwins(encoder, kb.Projector((8, 8)), views, **arguments)
    model.compile("adam")
    history = model.fit(IMAGES, batch_size=4, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    return model


@pytest.mark.parametrize(
    "kind",
    shared.few(
        ACCEPTED,
        *["subclassed, called", "Sequential, called", "one output in a list", "one input in a list", "free sizes"],
    ),
)
def test_an_encoder_of_any_kind_trains_and_is_exported(kind, tmp_path):
    encoder = ACCEPTED[kind]()
    model = trained(encoder)
    expected = model.predict(IMAGES, verbose=0)
    assert expected.shape == (8, 8) and model.compute_output_shape((None, 16, 16, 3)) == (None, 8)
    assert model.project(IMAGES).shape == (8, 8)
    # The encoder shares its weights with the original model.
    images = [FLOATS] if kind == "one input in a list" else FLOATS
    np.testing.assert_allclose(encoder(images), expected, rtol=1e-4, atol=1e-5)
    features = kb.load_encoder(kb.export.save_encoder(encoder, tmp_path)).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", REJECTED)
def test_other_models_are_rejected_with_a_remedy_that_works(kind, tmp_path):
    make, received = REJECTED[kind]
    # Keras also checks input names, with warnings.
    encoder = make()
    with pytest.raises(ValueError, match=received) as error:
        kb.BarlowTwins(encoder, kb.Projector((8,)))
    with pytest.raises(ValueError, match=received):
        kb.export.save_encoder(encoder, tmp_path / "export")
    assert not list(tmp_path.iterdir())
    code = "images = " + str(error.value).split("images = ")[1]
    names = {"keras": keras, "encoder": encoder, "other": ops.zeros((1, 8))}
    exec(code, names)
    size = names["images"].shape[1:]
    encoder = names["encoder"]
    model = kb.BarlowTwins(encoder, kb.Projector((8,)))
    assert model.predict(np.ones((2, *size), "uint8"), verbose=0).shape == (2, encoder.output_shape[1])


def test_an_unknown_number_of_features_is_rejected():
    images = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"known number of features.*\(None, None, None, 3\)"):
        kb.BarlowTwins(keras.Model(images, layers.Flatten()(images)), kb.Projector((8,)))


def test_a_subclassed_model_is_saved_and_loaded_again(tmp_path):
    model = trained(called(Subclassed()))
    model.save(tmp_path / "model.keras")
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        encoder = kb.load_encoder(tmp_path / "model.keras")
    np.testing.assert_array_equal(encoder.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    with pytest.raises(ValueError, match="import the module that registers its custom layers"):
        kb.load_encoder(tmp_path / "model.keras")


@pytest.mark.parametrize("argument", ["projector", "predictor"])
def test_projectors_and_predictors_may_be_subclassed(argument):
    class Linear(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(8)

        def call(self, features):
            return self.dense(features)

    parts = {"projector": kb.Projector((8,)), argument: Linear()}
    encoder = functional()
    model = kb.BarlowTwins(encoder, views=flips(), **parts)
    model.compile("adam")
    before = np.array(parts[argument].dense.kernel)
    model.fit(IMAGES, batch_size=4, verbose=0)
    assert (np.array(parts[argument].dense.kernel) != before).any()
    for wrong, received in ((layers.Reshape((2, 4)), r"\(None, 2, 4\)"), ("dense", "'dense'")):
        with pytest.raises(ValueError, match=f"`{argument}` must .*{received}"):
            kb.BarlowTwins(encoder, **{**parts, argument: wrong})


class Mirrored(layers.Layer):
    def call(self, images):
        images = ops.cast(images, "float32")
        return images, images[:, :, ::-1]


class Stepped(Mirrored):
    def call(self, images, step, training=False):
        assert training and step.dtype == "int64"
        return super().call(images)


class Everything(Mirrored):
    def call(self, images, **options):
        assert options["step"] is not None
        return super().call(images)


class Single(Mirrored):
    def call(self, images):
        return super().call(images)[0]


def test_custom_views():
    expected = None
    for views in (Mirrored(), Stepped(), Everything()):
        keras.utils.set_random_seed(0)
        weights = trained(functional(), views).get_weights()
        expected = weights if expected is None else expected
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        with pytest.raises(ValueError, match=r"accumulation_steps > 1, `views` must be"):
            trained(functional(), views, accumulation_steps=2)
    with pytest.raises(ValueError, match=r"pair \(view_a, view_b\).*Received: .*Single"):
        trained(functional(), Single())


@pytest.mark.parametrize("fitted", [False, True])
def test_keras_export_before_and_after_fit(fitted, tmp_path):
    model = kb.BarlowTwins(functional(), kb.Projector((8,)), flips())
    if fitted:
        model.compile("adam")
        model.fit(IMAGES, batch_size=4, verbose=0)
        model.predict(IMAGES, verbose=0)
        model(IMAGES)
    model.export(tmp_path / "keras", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "keras"))
    np.testing.assert_allclose(loaded.serve(FLOATS), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "policy, accumulation_steps",
    shared.few(
        [(policy, steps) for policy in ("bfloat16", "float16", "mixed_bfloat16") for steps in (1, 2)],
        *[("bfloat16", 2), ("float16", 1)],
    ),
)
def test_pure_policies_train(policy, accumulation_steps, tmp_path):
    keras.config.set_dtype_policy(policy)
    compute = keras.config.dtype_policy().compute_dtype
    values = np.random.default_rng(0).normal(3, 2, (64, 2, 2, 4))
    for shape in ((64, 2, 2, 4), (256, 4)):
        ours, keras_layer = kb.layers.BatchNormalization(momentum=0.5), layers.BatchNormalization(momentum=0.5)
        for layer in (ours, keras_layer):
            assert layer(values.reshape(shape), training=True).dtype == compute
            assert layer(values.reshape(shape)).dtype == compute
        for name in ("moving_mean", "moving_variance"):
            one, other = (ops.cast(getattr(layer, name), "float32") for layer in (ours, keras_layer))
            assert getattr(ours, name).dtype == getattr(keras_layer, name).dtype
            np.testing.assert_allclose(one, other, rtol=0.02)
    encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    model = trained(encoder, accumulation_steps=accumulation_steps)
    assert all(np.isfinite(weight.astype("float32")).all() for weight in model.get_weights())
    features = model.predict(IMAGES, verbose=0)
    assert features.dtype == "float32" and np.isfinite(features).all()
    path = kb.export.save_encoder(model, tmp_path / "export")
    np.testing.assert_allclose(kb.load_encoder(path).predict(IMAGES, verbose=0), features, rtol=0.05, atol=0.05)


def test_channels_first_is_rejected_before_building():
    encoder = functional()
    try:
        keras.config.set_image_data_format("channels_first")
        for make in (
            lambda: kb.encoders.resnet18((32, 32, 3)),
            lambda: kb.encoders.with_standardization(encoder),
            lambda: kb.BarlowTwins(encoder, kb.Projector((8,))),
            lambda: kb.views.barlow_twins(16),
            lambda: kb.export.save_encoder(encoder, "nowhere"),
        ):
            with pytest.raises(ValueError, match=r'channels last.*set_image_data_format\("channels_last"\)'):
                make()
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_every_number_of_channels_has_a_mean_or_asks_for_one(channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, channels), dtype="uint8")
    backbone = keras.Sequential([keras.Input((16, 16, channels)), layers.Conv2D(4, 3)])

    def resnet(**arguments):
        return kb.encoders.resnet((1,), input_shape=(16, 16, channels), stem="small", width=4, **arguments)

    def wrapped(**arguments):
        return kb.encoders.with_standardization(backbone, **arguments)

    for make in (resnet, wrapped):
        if channels in (1, 3):
            layer = make().get_layer("standardize")
            assert len(layer.mean) == channels
            assert layer.mean == pytest.approx(kb.encoders.IMAGENET_MEAN if channels == 3 else (0.449,), abs=1e-3)
        else:
            with pytest.raises(ValueError, match=f"Received: {channels} channels .*mean=0.5, deviation=0.25"):
                make()
        assert make(mean=0.5, deviation=0.25).predict(images, verbose=0).shape == (2, 4)
        assert make(mean=(0.5,) * channels, deviation=0.25).predict(images, verbose=0).shape == (2, 4)
        with pytest.raises(ValueError, match=f"`mean` must be one number.* Received: 5 for {channels} channels"):
            make(mean=(0.5,) * 5, deviation=0.25)
    with pytest.raises(ValueError, match="Received: 5 for"):
        kb.layers.Standardize((0.5,) * 5, 0.25)(images)


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan")])
def test_a_deviation_must_be_positive(deviation):
    with pytest.raises(ValueError, match="must be positive"):
        kb.layers.Standardize(0.5, deviation)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, None), (None, 16, 16, 3)])
def test_invalid_input_shapes_are_rejected(shape):
    with pytest.raises(ValueError, match=r"`input_shape` must be \(height, width, channels\)"):
        kb.encoders.resnet((1,), input_shape=shape)


def test_widths_may_be_numpy_integers_and_must_be_integers():
    assert kb.Projector(np.array([4, 2]).tolist()).widths == (4, 2)
    assert kb.Projector((np.int64(4),)).widths == (4,) and kb.Projector(4).widths == (4,)
    for widths in ((True,), (4, "8"), "8", None):
        with pytest.raises(ValueError, match="`widths` must be positive integers"):
            kb.Projector(widths)
