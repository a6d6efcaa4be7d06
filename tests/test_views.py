import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import augmentations, randomness, views
from tests import shared
from tests.test_augmentations import photos


def policy(seed=3):
    return views.barlow_twins(image_size=24, seed=seed)


def crops(seed=3):
    return views.multi_crop(24, small_sizes=(12, (8, 10)), seed=seed)


def test_the_paper_in_numbers():
    layers_a, layers_b = policy().layers_a, policy().layers_b
    names = ["RandomResizedCrop", "RandomFlip", "RandomColorJitter", "RandomGrayscale", "RandomGaussianBlur"]
    assert [type(layer).__name__ for layer in layers_a] == names
    assert [type(layer).__name__ for layer in layers_b] == [*names, "RandomSolarization"]
    for layers, blur in ((layers_a, 1.0), (layers_b, 0.1)):
        crop, flip, jitter, gray, gaussian = layers[:5]
        assert (crop.scale, crop.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
        assert (flip.probability, jitter.probability, gray.probability) == (0.5, 0.8, 0.2)
        assert (jitter.brightness, jitter.contrast, jitter.saturation) == ((0.6, 1.4), (0.6, 1.4), (0.8, 1.2))
        assert jitter.hue == (-0.1, 0.1)
        assert (gaussian.sigma, gaussian.probability) == ((0.1, 2.0), blur)
    assert (layers_b[5].threshold, layers_b[5].probability) == (128, 0.2)


def test_views_depend_only_on_seed_step_and_view():
    images = np.repeat(photos(1), 8, axis=0)
    view_a, view_b = policy()(images, step=4)
    again_a, again_b = policy()(images, step=4)
    np.testing.assert_array_equal(view_a, again_a)
    np.testing.assert_array_equal(view_b, again_b)
    others = [view_b, policy()(images, step=5)[0], policy(seed=4)(images, step=4)[0]]
    for other in others:
        assert np.abs(np.asarray(view_a) - other).mean(axis=(1, 2, 3)).min() > 0.5


def test_without_a_step_each_call_draws_new_views():
    layer, images = policy(), photos()
    first, second = layer(images)[0], layer(images)[0]
    assert np.abs(np.asarray(first) - second).max() > 1


@pytest.mark.parametrize("create", shared.few([policy, crops], policy))
def test_eager_traced_compiled_and_tf_data_agree(create):
    layer, images = create(), tf.constant(photos())
    eager = layer(images, step=7)
    step = tf.constant(7, tf.int64)
    dataset = tf.data.Dataset.from_tensors(images).enumerate(7).map(lambda step, images: layer(images, step=step))
    for other in (
        tf.function(lambda x: layer(x, step=step))(images),
        tf.function(lambda x: layer(x, step=step), jit_compile=True)(images),
        next(iter(dataset)),
    ):
        for got, expected in zip(other, eager, strict=True):
            # Solarization is discontinuous at its threshold, so rounding may change a pixel by a large amount.
            assert np.mean(np.abs(np.asarray(got) - expected) > 0.01) < 1e-3


def test_one_image_and_inference():
    images = photos()
    assert [view.shape for view in policy()(images[0])] == [(24, 24, 3)] * 2
    view_a, view_b = policy()(images, training=False)
    np.testing.assert_array_equal(view_a, view_b)
    assert policy().compute_output_shape(images.shape) == ((6, 24, 24, 3),) * 2
    sizes = [(24, 24), (24, 24), (12, 12), (8, 10)]
    assert [view.shape for view in crops()(images[0], step=0)] == [(*size, 3) for size in sizes]
    assert crops().compute_output_shape(images.shape) == tuple((6, *size, 3) for size in sizes)
    for view, one in zip(crops()(images, step=0), crops()(images[:1], step=0), strict=True):
        # XLA compiles one kernel per batch size, and they round differently.
        np.testing.assert_allclose(view[:1], one, atol=1e-3)
    resized = crops()(images, training=False)
    np.testing.assert_array_equal(resized[0], view_a)
    assert [view.shape for view in resized] == [(6, *size, 3) for size in sizes]


def test_foreign_layers_are_called_directly():
    foreign = keras.layers.RandomContrast(0.5, value_range=(0, 255), seed=1)
    layer = views.Views([foreign], [augmentations.RandomFlip(1.0)], seed=0)
    images = photos()
    view_a, view_b = layer(images)
    assert np.abs(np.asarray(view_a) - images).max() > 1
    np.testing.assert_array_equal(view_b, images[:, :, ::-1])
    assert not layer.supports_jit and policy().supports_jit


def test_a_pair_of_crops_becomes_view_a_and_view_b():
    layer = views.barlow_twins(24, without=("crop", "jitter", "grayscale", "blur", "solarization"), seed=0)
    pair = photos(8, 24, 24), photos(8, 24, 24, seed=1)
    for view, crop in zip(layer(pair, step=0), pair, strict=True):
        mirrored = np.asarray(view)[:, 0, 0] == crop[:, 0, -1]
        assert 0 < mirrored.all(axis=-1).sum() < 8
        for image, original in zip(np.asarray(view), crop, strict=True):
            assert (image == original).all() or (image == original[:, ::-1]).all()
    assert layer(tuple(crop[0] for crop in pair), step=0)[1].shape == (24, 24, 3)
    with pytest.raises(ValueError, match="a pair of such crops"):
        layer((*pair, pair[0]))
    flip = augmentations.RandomFlip()
    three = views.Views([flip], [flip], seed=0, further=[[flip]])
    assert layer.takes_crops and not three.takes_crops
    with pytest.raises(ValueError, match=r"exactly two views\. Received: a pair of crops for 3 views\. Pass one"):
        three(pair)


def test_further_views_leave_the_first_two_as_they_are():
    """Bit-identical to two views without further ones, and to the table of random numbers."""
    two, images = policy(), photos()
    four = views.Views(two.layers_a, two.layers_b, seed=3, further=[two.layers_a, two.layers_a])
    assert (two.count, four.count) == (2, 4)
    tables = four.draw(6, step=5)
    for index, (table, layers) in enumerate(
        zip(tables, [two.layers_a, two.layers_b] + [two.layers_a] * 2, strict=True)
    ):
        columns = sum(layer.numbers_per_image for layer in layers)
        np.testing.assert_array_equal(table, randomness.uniform_table(randomness.view_key(3, 5, index), 6, columns))
    drawn = four(images, step=5)
    for view, expected in zip(drawn, two(images, step=5), strict=False):
        np.testing.assert_array_equal(view, expected)
    for other in (drawn[0], drawn[1], drawn[3]):
        assert np.abs(np.asarray(drawn[2]) - other).mean(axis=(1, 2, 3)).min() > 0.5


def test_multi_crop_has_the_settings_of_the_paper():
    layer = views.multi_crop(224, seed=0)
    scales = [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    sizes = [224] * 2 + [96] * 6
    every = [layer.layers_a, layer.layers_b, *layer.further]
    for layers, table, size, scale in zip(every, layer.draw(20_000, step=1), sizes, scales, strict=True):
        crop, flip, jitter, gray, blur = layers
        assert (crop.height, crop.width, crop.scale, crop.ratio) == (size, size, scale, (3 / 4, 4 / 3))
        np.testing.assert_allclose([jitter.brightness, jitter.contrast, jitter.saturation], [(0.2, 1.8)] * 3)
        assert jitter.hue == (-0.2, 0.2)
        assert [one.probability for one in (flip, jitter, gray, blur)] == [0.5, 0.8, 0.2, 0.5]
        boxes = crop.transformation_from(table[:, : crop.numbers_per_image], (20_000, 1000, 1000, 3))
        area = np.asarray(boxes["height"] * boxes["width"]) / 1e6
        np.testing.assert_allclose([area.min(), area.max()], scale, rtol=0.02)
    assert layer.count == 8 and len({id(one) for one in layer.transforms}) == 40
    assert views.multi_crop(24, small_sizes=()).count == 2
    strong = views.multi_crop(24, [12], solarization=0.3, jitter=(0.4, 0.4, 0.2, 0.1), flip=0, without="grayscale")
    assert [type(one).__name__[6:] for one in strong.further[0]] == [
        *("ResizedCrop", "ColorJitter", "GaussianBlur", "Solarization")
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"small_sizes": 6}, r"`small_sizes` must be a tuple or list.*Received: small_sizes=6\."),
        ({"small_sizes": "96"}, r"`small_sizes` must be a tuple or list.*Received: small_sizes='96'\."),
        ({"small_sizes": None}, r"`small_sizes` must be a tuple or list.*\(96,\) \* 6"),
        ({"small_sizes": (12, 0)}, r"size of a view must be a positive integer.*Received: 0\. Use"),
        ({"small_sizes": ["96"]}, r"size of a view must be a positive integer.*Received: '96'"),
        ({"small_sizes": [12.5]}, r"size of a view must be a positive integer.*Received: 12\.5"),
        ({"small_sizes": [(8, 8, 3)]}, r"pair \(height, width\) of them\. Received: \(8, 8, 3\)"),
        ({"image_size": -1}, r"size of a view must be a positive integer.*Received: -1"),
        ({"small_scale": (0.0, 0.1)}, r"`scale` must be a pair"),
        ({"blur": (0.0, 0.0)}, r"`probability` must be in \[0, 1\]\. Received: probability=\(0\.0, 0\.0\)"),
        (
            {"without": "crop"},
            r"Small views need the crop.*Received: without='crop' with 6 small views\. Keep",
        ),
    ],
)
def test_bad_crops_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        views.multi_crop(**{"image_size": 24, **arguments})
    # The remedy.
    assert not views.multi_crop(24, small_sizes=(), without="crop").layers_a[0].get_config().get("height")


@pytest.mark.parametrize("further", [[augmentations.RandomFlip()], "flip", [["flip"]], augmentations.RandomFlip()])
def test_further_views_must_be_lists_of_layers(further):
    with pytest.raises(ValueError, match=r"`further` must be a sequence of lists of Keras layers.*Received: further="):
        views.Views([], [], further=further)


def test_random_numbers_are_independent_between_transforms_views_and_steps():
    layer = views.barlow_twins(24, blur=(0.5, 0.5), solarization=(0.5, 0.5), grayscale=0.5, jitter_probability=0.5)
    choices = []
    for step in range(2):
        for layers, table in zip((layer.layers_a, layer.layers_b), layer.draw(20_000, step), strict=True):
            start = 0
            for transform in layers:
                numbers = table[:, start : start + transform.numbers_per_image]
                start += transform.numbers_per_image
                drawn = transform.transformation_from(numbers, (20_000, 32, 32, 3))
                choices.append(np.asarray(drawn["chosen"] if "chosen" in drawn else drawn["height"], "float64"))
    assert len(choices) == 24
    assert abs(np.corrcoef(choices)[np.triu_indices(24, 1)]).max() < 0.04


def test_simclr_cifar_and_multi_channel():
    for layers in (views.simclr(24).layers_a, views.simclr(24).layers_b):
        assert [type(layer).__name__ for layer in layers][2:] == [
            "RandomColorJitter",
            "RandomGrayscale",
            "RandomGaussianBlur",
        ]
        np.testing.assert_allclose([layers[2].brightness, layers[2].saturation], [(0.2, 1.8)] * 2)
        assert (layers[2].hue, layers[4].probability) == ((-0.2, 0.2), 0.5)
    assert not any(isinstance(layer, augmentations.RandomGaussianBlur) for layer in views.cifar().transforms)
    bands = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 7), dtype="uint8")
    view_a, view_b = views.multi_channel(16, seed=0)(bands)
    assert view_a.shape == view_b.shape == (4, 16, 16, 7)
    with pytest.raises(ValueError, match=r"need RGB images, with 3 channels\. Received: 7"):
        policy()(bands)


@pytest.mark.parametrize("name", views.policies.TRANSFORMS)
def test_each_transform_can_be_omitted_by_name(name):
    whole = [type(layer) for layer in policy().layers_b]
    index = views.policies.TRANSFORMS.index(name)
    layers = views.barlow_twins(24, without=name).layers_b
    assert [type(layer) for layer in layers] == whole[:index] + whole[index + 1 :]


def test_an_unknown_name_is_rejected():
    with pytest.raises(ValueError, match=r"`without` takes names of transforms: crop, .*Received: 'color'"):
        views.barlow_twins(24, without=("color", "blur"))


@pytest.mark.parametrize("create", [policy, crops])
def test_config_round_trip(create):
    layer = create()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    for view, expected in zip(again(photos(), step=1), layer(photos(), step=1), strict=True):
        np.testing.assert_array_equal(view, expected)


def test_two_views_have_the_config_of_earlier_versions():
    config = policy().get_config()
    assert "further" not in config and len(crops().get_config()["further"]) == 2
    assert views.Views.from_config(config).count == 2


def test_policies_accept_every_option():
    """No option of `policy` clashes with a value that another policy sets."""
    assert views.cifar(blur=(1.0, 0.0)).layers_a[-1].probability == 1
    assert len(views.multi_channel(8, grayscale=0.5, jitter_probability=0.5).layers_b) == 5
    assert set(views.policies.POLICIES) < set(views.__all__)


def test_wrong_rank_is_rejected():
    with pytest.raises(ValueError, match=r"\(batch, height, width, channels\).*Received"):
        policy()(np.zeros((4, 4)))


@pytest.mark.parametrize("rows", [8, 10, 5])
def test_replicas_slice_their_rows_of_one_table(strategy, rows):
    key = randomness.view_key(1, 2, 0)
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.range(rows).batch(rows))

    @tf.function
    def draw(batch):
        return strategy.run(lambda x: randomness.uniform_table(key, tf.shape(x)[0], 3), args=(batch,))

    parts = strategy.experimental_local_results(draw(next(iter(dataset))))
    np.testing.assert_array_equal(tf.concat(parts, axis=0), randomness.uniform_table(key, rows, 3))


def test_the_table_is_uniform_and_its_first_rows_do_not_depend_on_its_size():
    def draw(rows, jit_compile=False):
        key = randomness.view_key(9, 10, 1)
        return tf.function(lambda: randomness.uniform_table(key, rows, 7), jit_compile=jit_compile)().numpy()

    table = draw(4000)
    np.testing.assert_array_equal(draw(4000, jit_compile=True), table)
    np.testing.assert_array_equal(draw(13), table[:13])
    assert table.min() >= 0 and table.max() < 1
    np.testing.assert_allclose(np.histogram(table, 10, (0, 1))[0] / table.size, 0.1, atol=0.006)
    assert abs(np.corrcoef(table.T)[np.triu_indices(7, 1)]).max() < 0.06
