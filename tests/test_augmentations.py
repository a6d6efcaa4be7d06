import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from keras_barlow import augmentations as aug
from keras_barlow.augmentations import color
from keras_barlow.augmentations.fusion import to_images, to_planes
from tests import shared

SIZE = 40
TRANSFORMS = {
    "crop": lambda: aug.RandomResizedCrop(24, 28, seed=1),
    "flip": lambda: aug.RandomFlip(0.5, seed=1),
    "jitter": lambda: aug.RandomColorJitter(0.4, 0.4, 0.2, 0.1, 0.8, seed=1),
    "grayscale": lambda: aug.RandomGrayscale(0.5, seed=1),
    "blur": lambda: aug.RandomGaussianBlur((0.1, 2.0), 0.5, seed=1),
    "solarization": lambda: aug.RandomSolarization(128, 0.5, seed=1),
}


def photos(count=6, height=SIZE, width=SIZE, seed=0):
    """Smooth random images with edges, over the whole range of values and colors."""
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype="uint8")) for _ in range(count)]
    images = np.stack([np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in small])
    images[:, height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, (count, 1, 1, 3))
    return images


def constant(count, **values):
    """The same transformation for every image."""
    return {name: keras.ops.convert_to_tensor([value] * count) for name, value in values.items()}


def pil_error(images, transformed, reference):
    expected = np.stack([np.asarray(reference(Image.fromarray(image)).convert("RGB"), "float64") for image in images])
    return np.abs(np.asarray(transformed) - expected).mean()


@pytest.mark.parametrize("name", TRANSFORMS)
class TestContract:
    """The contract of every transform."""

    def test_output_is_float32_in_range_and_the_same_for_uint8_and_float(self, name):
        images = photos()
        expected = TRANSFORMS[name]()(images)
        for dtype in ("uint8", "float32", "float64"):
            outputs = TRANSFORMS[name]()(images.astype(dtype))
            assert outputs.dtype == tf.float32
            assert outputs.shape == TRANSFORMS[name]().compute_output_shape(images.shape)
            assert np.min(outputs) >= 0 and np.max(outputs) <= 255.01
            np.testing.assert_array_equal(outputs, expected)

    def test_a_transformation_is_the_same_eager_traced_and_compiled(self, name):
        layer, images = TRANSFORMS[name](), tf.constant(photos())

        def transform(images):
            transformation = layer.get_random_transformation(images, seed=tf.constant([3, 4], tf.int64))
            return layer.transform_images(images, transformation)

        eager = transform(images)
        np.testing.assert_allclose(tf.function(transform)(images), eager, atol=2e-3)
        np.testing.assert_allclose(tf.function(transform, jit_compile=True)(images), eager, atol=2e-3)

    def test_every_image_and_every_call_draws_new_numbers(self, name):
        layer = TRANSFORMS[name]()
        images = np.repeat(photos(1), 6, axis=0)
        first, second = np.asarray(layer(images)), np.asarray(layer(images))
        assert np.abs(first - first[:1]).max() > 1
        assert np.abs(first - second).max() > 1
        np.testing.assert_array_equal(TRANSFORMS[name]()(images), first)

    def test_every_image_is_transformed_with_its_own_row(self, name):
        layer, images = TRANSFORMS[name](), np.repeat(photos(1), 6, axis=0)
        layer.probability = 1.0
        transformation = layer.get_random_transformation(images, seed=8)
        outputs = np.asarray(layer.transform_images(images, transformation))
        for row in range(6):
            one = {key: values[row : row + 1] for key, values in transformation.items()}
            np.testing.assert_allclose(layer.transform_images(images[:1], one)[0], outputs[row], atol=2e-3)
        if name not in ("flip", "grayscale", "solarization"):
            differences = [np.abs(outputs[i] - outputs[j]).max() for i in range(6) for j in range(i)]
            assert min(differences) > 0.1

    def test_tf_data_batched_and_unbatched(self, name):
        layer, images = TRANSFORMS[name](), photos()
        dataset = tf.data.Dataset.from_tensor_slices(images)
        shape = layer.compute_output_shape(images.shape)
        assert next(iter(dataset.batch(6).map(layer))).shape == shape
        assert next(iter(dataset.map(layer))).shape == shape[1:]

    def test_inference_only_changes_the_size(self, name):
        layer, images = TRANSFORMS[name](), photos()
        outputs = layer(images, training=False)
        if name == "crop":
            error = pil_error(images, outputs, lambda image: image.resize((28, 24), Image.Resampling.BICUBIC))
            assert error < 0.5
        else:
            np.testing.assert_array_equal(outputs, images)

    def test_the_output_is_float32_under_a_mixed_policy(self, name):
        keras.config.set_dtype_policy("mixed_bfloat16")
        outputs = TRANSFORMS[name]()(photos().astype("float32"))
        keras.config.set_dtype_policy("float32")
        np.testing.assert_array_equal(outputs, TRANSFORMS[name]()(photos()))

    def test_config_round_trip(self, name):
        layer = TRANSFORMS[name]()
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert again.get_config() == layer.get_config()
        np.testing.assert_array_equal(again(photos()), layer(photos()))

    def test_in_a_functional_model_and_through_a_keras_file(self, name, tmp_path):
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), TRANSFORMS[name]()])
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        images = photos().astype("float32")
        np.testing.assert_allclose(again(images, training=True), model(images, training=True), atol=2e-3)
        np.testing.assert_allclose(again.predict(images, verbose=0), model(images, training=False), atol=2e-3)

    def test_wrong_rank_is_rejected(self, name):
        with pytest.raises(ValueError, match=r"Images must have the shape.*Received"):
            TRANSFORMS[name]()(np.zeros((4, 4), "uint8"))


@pytest.mark.parametrize("name", shared.few(TRANSFORMS, "crop", "flip"))
def test_replicas_draw_the_same_as_one_device(name, strategy):
    images = np.repeat(photos(1), 8, axis=0)
    with strategy.scope():
        layer = TRANSFORMS[name]()
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(images).unbatch().batch(8))
    parts = tf.function(lambda batch: strategy.run(lambda part: layer(part), args=(batch,)))(next(iter(dataset)))
    parts = strategy.experimental_local_results(parts)
    np.testing.assert_allclose(np.concatenate(parts), TRANSFORMS[name]()(images), atol=2e-3)
    assert len({np.round(part, 1).tobytes() for part in map(np.asarray, parts)}) > 1


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "crop"])
def test_probability_zero_and_one(name):
    images = photos()
    layer = TRANSFORMS[name]()
    layer.probability = 0.0
    np.testing.assert_array_equal(layer(images), images)
    layer.probability = 1.0
    assert (np.abs(np.asarray(layer(images)) - images).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "crop"])
def test_images_are_selected_with_the_given_probability(name):
    layer = TRANSFORMS[name]()
    chosen = np.asarray(layer.get_random_transformation(tf.zeros((20_000, 1, 1, 3)), seed=6)["chosen"], "float64")
    assert abs(chosen.mean() - layer.probability) < 4 * np.sqrt(layer.probability * (1 - layer.probability) / 20_000)
    # The selections of neighboring images are independent.
    assert abs(np.corrcoef(chosen[1:], chosen[:-1])[0, 1]) < 0.03


@pytest.mark.parametrize("few", [True, False])
def test_rare_blur_skips_work_without_changing_results(few):
    layer, images = aug.RandomGaussianBlur((1.0, 2.0), probability=0.1), photos(64)
    transformation = layer.get_random_transformation(images, seed=1)
    # If more images are selected than fit into the subset, the whole batch is processed.
    chosen = tf.range(64) % (13 if few else 2) == 0
    transformation = {**transformation, "chosen": chosen}
    outputs = layer.transform_images(images, transformation)
    layer.probability = 1.0
    np.testing.assert_array_equal(outputs, layer.transform_images(images, transformation))
    np.testing.assert_array_equal(np.asarray(outputs)[~chosen.numpy()], images[~chosen.numpy()])
    assert (np.abs(np.asarray(outputs) - images).max(axis=(1, 2, 3)) > 1).sum() == chosen.numpy().sum()


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (3, 5, 20, 31), (10, 0, 30, 7), (0, 17, 9, 23)])
@pytest.mark.parametrize("size", [(24, 28), (64, 48)])
def test_resized_crop_against_pil(box, size):
    images = photos()
    top, left, height, width = box
    transformation = constant(6, top=float(top), left=float(left), height=float(height), width=float(width))
    outputs = aug.RandomResizedCrop(*size).transform_images(images, transformation)
    error = pil_error(
        images,
        outputs,
        lambda image: image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC),
    )
    assert error < 0.8


def test_crop_boxes_follow_the_reference_distribution():
    layer = aug.RandomResizedCrop(8, 8, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    boxes = layer.get_random_transformation(tf.zeros((20_000, 200, 300, 0)), seed=5)
    top, left, height, width = (np.asarray(boxes[name]) for name in ("top", "left", "height", "width"))
    for start, length, size in ((top, height, 200), (left, width, 300)):
        assert (start >= 0).all() and (start + length <= size).all() and (length >= 1).all()
        np.testing.assert_array_equal(start, np.round(start))
    area, ratio = height * width / 60_000, width / height
    assert 0.075 < area.min() < 0.1 and ratio.min() > 0.74 and ratio.max() < 1.35
    expected = reference_boxes(20_000, 200, 300)
    for got, want in ((area, expected[0]), (np.log(ratio), expected[1])):
        np.testing.assert_allclose(
            np.quantile(got, [0.1, 0.3, 0.5, 0.7, 0.9]), np.quantile(want, [0.1, 0.3, 0.5, 0.7, 0.9]), atol=0.015
        )
    free = height < 199
    np.testing.assert_allclose((top[free] / (200 - height[free])).mean(), 0.5, atol=0.01)


def reference_boxes(count, image_height, image_width):
    """torchvision's sampling loop in plain Python."""
    rng, boxes = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(10):
            area = image_height * image_width * rng.uniform(0.08, 1.0)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < width <= image_width and 0 < height <= image_height:
                break
        else:
            height, width = image_height, round(image_height * 4 / 3)
        boxes.append((height * width / (image_height * image_width), np.log(width / height)))
    return np.array(boxes).T


def test_crop_falls_back_to_the_largest_central_crop():
    layer = aug.RandomResizedCrop(8, 8, scale=(1.0, 1.0))
    boxes = layer.get_random_transformation(tf.zeros((4, 10, 100, 3)), seed=0)
    assert {name: float(values[0]) for name, values in boxes.items()} == {
        "top": 0,
        "left": 43,
        "height": 10,
        "width": 13,
    }


ORDER = {"brightness": 0, "contrast": 1, "saturation": 2}
ENHANCERS = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


def jittered(images, factors=(1.0, 1.0, 1.0), hue=0.0, order=(0, 1, 2), hue_position=3):
    count = len(images)
    transformation = constant(
        count, factors=list(factors), hue=hue, order=list(order), hue_position=hue_position, chosen=True
    )
    return aug.RandomColorJitter(probability=1.0).transform_images(images, transformation)


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("factor", [0.6, 0.9, 1.4])
def test_each_color_operation_against_pil(name, factor):
    factors = [factor if index == ORDER[name] else 1.0 for index in range(3)]
    images = photos()
    assert pil_error(images, jittered(images, factors), lambda image: ENHANCERS[name](image).enhance(factor)) < 0.9


def pil_hue(image, turns):
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, "int16") + int(turns * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype("uint8")), saturation, value)).convert("RGB")


@pytest.mark.parametrize("turns", [-0.1, 0.04, 0.1, 0.5])
def test_hue_against_pil(turns):
    images = photos()
    # PIL quantizes the hue; a multiple of its step keeps its rounding out of the comparison.
    planes = color.shift_hue(to_planes(tf.cast(images, tf.float32)), tf.fill((6,), int(turns * 255) / 256))
    assert pil_error(images, to_images(planes), lambda image: pil_hue(image, turns)) < 1.0


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_jitter_applies_the_four_operations_in_the_drawn_order(order, place):
    factors, images = (1.4, 0.6, 1.2), photos()
    steps = [(list(ORDER)[index], factors[index]) for index in order]
    steps.insert(place, ("hue", 0.1))

    def reference(image):
        for name, strength in steps:
            image = pil_hue(image, strength) if name == "hue" else ENHANCERS[name](image).enhance(strength)
        return image

    assert pil_error(images, jittered(images, factors, 25 / 256, order, place), reference) < 2.5


def test_jitter_draws_all_24_orders_equally_often_and_factors_within_bounds():
    layer = aug.RandomColorJitter(0.4, (0.5, 0.8), 0.2, 0.1, probability=0.8)
    drawn = layer.get_random_transformation(tf.zeros((24_000, 1, 1, 3)), seed=2)
    orders = np.concatenate([drawn["order"], np.asarray(drawn["hue_position"])[:, None]], axis=1)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 850
    factors = np.asarray(drawn["factors"])
    for index, (low, high) in enumerate(((0.6, 1.4), (0.5, 0.8), (0.8, 1.2))):
        assert low <= factors[:, index].min() < low + 0.01 and high - 0.01 < factors[:, index].max() <= high
    assert abs(np.mean(drawn["chosen"]) - 0.8) < 0.01
    assert abs(np.corrcoef(np.column_stack([factors, drawn["hue"]]).T)[np.triu_indices(4, 1)]).max() < 0.03


def test_grayscale_against_pil():
    images = photos()
    outputs = aug.RandomGrayscale(1.0)(images)
    assert pil_error(images, outputs, lambda image: image.convert("L")) < 0.6


def test_solarization_is_pil_to_the_bit():
    images = photos()
    assert pil_error(images, aug.RandomSolarization(128, 1.0)(images), lambda image: ImageOps.solarize(image, 128)) == 0


@pytest.mark.parametrize("sigma, bound", [(0.5, 0.75), (1.0, 0.7), (2.0, 0.5)])
def test_blur_against_pil(sigma, bound):
    # PIL approximates the Gaussian with three box filters, which is accurate only for smooth images.
    images = photos(height=64, width=48)
    outputs = aug.RandomGaussianBlur((sigma, sigma), 1.0)(images)
    assert pil_error(images, outputs, lambda image: image.filter(ImageFilter.GaussianBlur(sigma))) < bound


def test_blur_is_the_exact_gaussian():
    image = np.zeros((1, 33, 33, 1), "float32")
    image[0, 16, 16] = 255.0
    outputs = np.asarray(aug.RandomGaussianBlur((1.5, 1.5), 1.0)(image))[0, :, :, 0]
    taps = np.exp(-0.5 * (np.arange(-16, 17) / 1.5) ** 2)
    taps /= taps.sum()
    np.testing.assert_allclose(outputs, 255 * np.outer(taps, taps), atol=0.01)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: aug.RandomFlip(1.5), "`probability` must be in"),
        (lambda: aug.RandomColorJitter(brightness=(-1, 1)), "`brightness` must be"),
        (lambda: aug.RandomColorJitter(hue=0.7), "`hue` must be"),
        (lambda: aug.RandomGaussianBlur((2.0, 0.1)), "`sigma` must be"),
        (lambda: aug.RandomResizedCrop(8, 8, scale=(0.5, 2.0)), "`scale` is a fraction"),
        (lambda: aug.RandomResizedCrop(8, 8, ratio=(0.0, 2.0)), "`ratio` must be"),
        (lambda: aug.RandomGrayscale(1.0)(np.zeros((2, 4, 4, 1))), "need RGB images"),
        (lambda: aug.RandomColorJitter(probability=1.0)(np.zeros((2, 4, 4, 4))), "need RGB images"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_crop_needs_a_static_size():
    layer = aug.RandomResizedCrop(8, 8)
    with pytest.raises(ValueError, match="known height and width"):
        tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((2, None, None, 3))], autograph=False)(
            tf.zeros((2, 4, 4, 3))
        )
