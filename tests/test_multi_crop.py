"""Methods of any number of views: exact steps on replicas and in micro-batches, checks, files, recipes."""

import importlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_barlow as kb
from keras_barlow.pretraining import batch_sizes, batch_views
from tests import shared
from tests.test_exact_step import dataset, images

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SIZES = (8, 8, 5, 5, 5)


@keras.saving.register_keras_serializable(package="tests")
class Centers(kb.losses.Loss):
    """Every view of an image must find the center of its first two views among all images of the batch."""

    def terms(self, *z):
        centers = ops.transpose(z[0] + z[1]) / 2
        logits = [ops.matmul(one, centers) for one in z]
        return {"loss": sum(ops.mean(ops.logsumexp(one, axis=1) - ops.diagonal(one)) for one in logits) / len(z)}


@keras.saving.register_keras_serializable(package="tests")
class Method(kb.pretraining.JointEmbedding):
    """Embeds any number of views."""

    default_loss = Centers
    max_views = None

    def __init__(self, encoder, projector, views, loss=None, **kwargs):
        super().__init__(encoder, projector, views, loss, **kwargs)

    def embeddings(self, views, training):
        return tuple(self.project(view, training=training) for view in views)


def crops(sizes=SIZES):
    """Crops and flips; the other transforms take long to compile."""
    return kb.views.multi_crop(sizes[0], small_sizes=sizes[2:], seed=4, without=("jitter", "grayscale", "blur"))


def resized():
    """Views of the sizes of `crops` in which only flips are random."""
    small = [[layers.Resizing(size, size), kb.augmentations.RandomFlip()] for size in SIZES[2:]]
    return kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomFlip()], seed=4, further=small)


def resnet(side=None):
    return kb.encoders.resnet((1,), input_shape=(side, side, 3), stem="small", width=4)


def convolution(*normalization):
    images = [keras.Input((None, None, 3)), layers.Rescaling(1 / 64, offset=-1), layers.Conv2D(6, 3)]
    return keras.Sequential([*images, *normalization, layers.ReLU(), layers.GlobalAveragePooling2D()])


def batch_norm():
    return convolution(kb.layers.BatchNormalization(synchronized=True))


def build(encoder=resnet, views=None, method=Method, **arguments):
    keras.utils.set_random_seed(1)
    model = method(encoder(), layers.Dense(8), crops() if views is None else views, **arguments)
    model.compile(keras.optimizers.SGD(0.125))
    return model


@pytest.fixture
def float64():
    """Networks and loss in float64; the fixture of all tests resets it. Views stay float32."""
    keras.config.set_dtype_policy("float64")


def one_tape(create, views, steps):
    """The plain step of an independent implementation, on one device and the whole batch."""
    keras.utils.set_random_seed(1)
    encoder, projector = create(), layers.Dense(8)
    projector.build(encoder.output_shape)
    variables = [*encoder.trainable_variables, *projector.trainable_variables]
    for step in range(steps):
        with tf.GradientTape() as tape:
            z = [projector(encoder(view, training=True)) for view in views()(images(), step=step)]
            centers = (z[0] + z[1]) / 2
            losses = []
            for one in z:
                logits = tf.matmul(one, centers, transpose_b=True)
                losses.append(tf.reduce_mean(tf.reduce_logsumexp(logits, 1) - tf.linalg.diag_part(logits)))
            loss = tf.add_n(losses) / len(losses)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.125 * gradient)
    return [weight.numpy() for part in (encoder, projector) for weight in part.weights]


@pytest.mark.parametrize(
    "create, views, replicas, accumulation_steps",
    shared.few(
        [(convolution, crops, *parts) for parts in [(1, 1), (1, 4), (4, 1), (4, 2)]]
        + [(convolution, resized, 4, 2), (batch_norm, resized, 4, 1), (batch_norm, crops, 4, 1)],
        (convolution, resized, 4, 2),
    ),
)
def test_the_step_is_the_plain_step_on_the_whole_batch(create, views, replicas, accumulation_steps, strategy, float64):
    with strategy.scope() if replicas > 1 else tf.distribute.get_strategy().scope():
        model = build(create, views(), accumulation_steps=accumulation_steps)
    model.fit(dataset(images()), epochs=2, verbose=0)
    for weight, expected in zip(model.weights, one_tape(create, views, 2), strict=True):
        assert weight.dtype == "float64"
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-10, atol=1e-10, err_msg=weight.path)


def test_micro_batches_and_replicas_draw_the_crops_of_the_whole_batch(strategy):
    """The random numbers are bit-identical. XLA compiles one kernel per batch size, and they round differently."""
    views, encoder, batch = crops(), resnet(), tf.constant(images())
    limits = batch_sizes.RowLimits()
    whole = batch_views.draw(batch, views, encoder, 3, limits)
    assert [view.shape[1] for view in whole] == list(SIZES)
    parts = [part([]) for part in batch_views.micro_batches(batch, views, encoder, 3, limits, 2, networks=[])]
    assert [len(part[0]) for part in parts] == [8, 8]
    for view, *rows in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(tf.concat(rows, axis=0), view, atol=1e-3)

    @tf.function
    def draw(batch):
        return strategy.run(lambda x: (views.draw(ops.shape(x)[0], step=3), views(x, step=3)), args=(batch,))

    tables, drawn = draw(next(iter(strategy.experimental_distribute_dataset(dataset(images())))))
    for rows, table in zip(tables, views.draw(len(batch), step=3), strict=True):
        np.testing.assert_array_equal(tf.concat(strategy.experimental_local_results(rows), axis=0), table)
    for rows, view in zip(drawn, whole, strict=True):
        np.testing.assert_allclose(tf.concat(strategy.experimental_local_results(rows), axis=0), view, atol=1e-3)


def test_a_model_with_an_encoder_of_free_size_trains_predicts_and_survives_its_files(tmp_path):
    brightness = layers.Normalization()
    brightness.adapt(images())
    views = crops()
    views = kb.views.Views(views.layers_a, views.layers_b, seed=0, further=[*views.further, [brightness]])
    model = build(views=views)
    history = model.fit(images(), batch_size=8, epochs=2, validation_data=images(seed=1), verbose=0).history
    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.views.count == 6
    # Weights of the layers of further views are part of the file.
    np.testing.assert_array_equal(again.views.further[3][0].adapt_mean, brightness.adapt_mean)
    for size in (8, 11):
        expected = model.predict(np.resize(images(), (4, size, size, 3)), verbose=0)
        np.testing.assert_array_equal(again.predict(np.resize(images(), (4, size, size, 3)), verbose=0), expected)
    kb.export.save_encoder(model, tmp_path / "encoder")
    loaded = kb.load_encoder(tmp_path / "encoder")
    features = loaded.predict(np.resize(images(), (4, 11, 11, 3)), verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_a_linear_probe_trains_on_crops_of_the_size_of_the_images():
    labeled = kb.data.ArrayImages(images(), np.arange(16) % 2)
    scores = kb.evaluation.linear_probe(resnet(), labeled, labeled, epochs=1, batch_size=8)
    assert 0 <= scores["top1"] <= 1


class Further(layers.Layer):
    """Views of another library."""

    def __init__(self, count=3, rows=None, size=8):
        super().__init__()
        self.number, self.rows, self.size = count, rows, size

    def call(self, images):
        images = ops.cast(images, "float32")
        return (images,) * (self.number - 1) + (images[: self.rows, : self.size],)


def barlow_twins(*arguments, **options):
    return kb.BarlowTwins(*arguments, **options)


def test_a_method_of_two_views_refuses_more_before_training():
    rule = r"BarlowTwins compares at most 2 views of each image\. Received: {} views\. Use two views, such as"
    with pytest.raises(ValueError, match=rule.format(5)):
        build(method=barlow_twins)
    with pytest.raises(ValueError, match=rule.format(3)):
        build(method=barlow_twins, views=Further()).fit(images(), batch_size=8, verbose=0)
    # The remedies.
    assert build(method=barlow_twins, views=kb.views.barlow_twins(8)).views.count == 2
    assert build(method=barlow_twins, views=kb.views.multi_crop(8, small_sizes=())).views.count == 2
    build(views=Further()).fit(images(), batch_size=8, verbose=0)


@pytest.mark.parametrize(
    "views, message",
    [
        (
            crops,
            r"encoder, \(8, 8, 3\)\. Received: views of shape \(5, 5, 3\)\. Build .* input_shape=\(None, None, 3\)",
        ),
        (lambda: crops((6, 6, 6)), r"views of shape \(6, 6, 3\)\. Set the size of the views.*image_size=8"),
        (lambda: Further(count=1), r"at least two views .*Received: 1 view\(s\) from <Further.*Return view_a, view_b"),
        (
            lambda: Further(rows=4),
            r"one row per image of the batch\. Received: views of shapes \(8, 8, 8, 3\), .*\(4, 8",
        ),
    ],
)
def test_views_that_the_encoder_cannot_take_are_refused(views, message):
    model = build(lambda: resnet(8), views())
    with pytest.raises(ValueError, match=message):
        model.fit(dataset(images()).unbatch().batch(8, drop_remainder=True), verbose=0)
    assert int(model.batch_count) == 0


def test_another_number_of_channels_names_the_shape_of_the_encoder():
    with pytest.raises(ValueError, match=r"Received: views of shape \(8, 8, 1\)\. Build the encoder .*\(8, 8, 1\)\."):
        build(views=Further()).fit(images()[..., :1], batch_size=8, verbose=0)


def test_crops_of_the_data_come_in_pairs(monkeypatch):
    flip = kb.augmentations.RandomFlip()
    model = build(views=kb.views.Views([flip], [flip], further=[[flip]]))
    with pytest.raises(ValueError, match=r"one batch of images\. Received: 2 tensors.*with two views without the crop"):
        model.fit(dataset(((images(), images()),)), verbose=0)
    monkeypatch.syspath_prepend(EXAMPLES)
    image_data = importlib.import_module("image_data")
    settings = image_data.ImageSettings(crops_from_files=True)
    with pytest.raises(ValueError, match=r"Crops from files come in pairs.*Received: 5 views\. Set crops_from"):
        image_data.training_batches(None, crops(), kb.recipes.DIGITS, settings, seed=0)


def test_a_recipe_chooses_a_policy_and_an_encoder_for_its_sizes(monkeypatch):
    monkeypatch.setattr(kb.methods, "Method", Method, raising=False)
    monkeypatch.setattr(kb.methods, "__all__", [*kb.methods.__all__, "Method"])
    small = {"name": "small", "image_size": 8, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "projector": (8,)}
    small |= {"encoder": "resnet8", "encoder_options": {"stem": "small", "width": 4}}
    options = {"small_sizes": (5, 6), "flip": 0.0, "jitter_probability": 0.0, "grayscale": 0.0, "blur": 0.0}
    recipe = kb.recipes.Recipe(**small, method="Method", views_policy="multi_crop", views_options=options)
    model = recipe.build(num_images=16, seed=0)
    assert model.encoder.input_shape == (None, None, None, 3) and model.views.count == 4
    model.fit(images(), batch_size=8, verbose=0)
    assert kb.recipes.Recipe(**small, views_policy="cifar").build(16).encoder.input_shape == (None, 8, 8, 3)
    assert kb.recipes.Recipe(**small, views_policy="simclr", views_options={"strength": 0.5}).views().count == 2
    with pytest.raises(
        ValueError, match=r"`views_policy` must be a policy of `views`\. Received: 'drawn'\. Use one of"
    ):
        recipe.changed(views_policy="drawn")
    with pytest.raises(ValueError, match=r"`views_options` must hold .*Received: 'small_sizes'\. .*strength"):
        recipe.changed(views_policy="simclr", views_options={"small_sizes": (5,)})
    # The options of another policy are dropped.
    assert recipe.changed(views_policy="simclr").views().count == 2
    with pytest.raises(ValueError, match=r"BarlowTwins compares at most 2 views of each image\. Received: 4 views"):
        recipe.changed(method="BarlowTwins").build(16)


def test_every_view_is_plotted(tmp_path):
    rows = []
    for views in (kb.views.barlow_twins(8, seed=0), crops()):
        figure = kb.plots.plot_views(views, images(3), tmp_path / "views.png")
        rows.append(keras.utils.img_to_array(keras.utils.load_img(figure)).shape[0])
    assert rows == [432, 864]
