"""Scenes, and the encoder as the backbone of KerasHub's RetinaNet."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from keras_barlow import data, evaluation

# Two classes that differ in color.
TILES = np.stack([np.broadcast_to(np.uint8(color), (8, 8, 3)) for color in [(255, 0, 0), (0, 255, 0)]])


def encoder():
    return kb.encoders.resnet((1, 1, 1), input_shape=(16, 16, 3), stem="small", width=4)


def test_every_box_contains_its_image_and_none_overlap():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype="uint8")
    scenes = data.scenes(images, np.arange(6), count=20, size=48, sides=(8, 16), objects=3)
    numbers = (scenes.labels >= 0).sum(axis=1)
    assert set(numbers) == {1, 2, 3} and set(scenes.labels[scenes.labels >= 0]) == set(range(6))
    assert (scenes.boxes[scenes.labels < 0] == -1).all()
    covered = np.zeros((20, 48, 48), int)
    for scene, place in np.argwhere(scenes.labels >= 0):
        left, top, right, bottom = scenes.boxes[scene, place].astype(int)
        assert 8 <= right - left == bottom - top <= 16
        picture = Image.fromarray(images[scenes.labels[scene, place]])
        expected = np.asarray(picture.resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(scenes.images[scene, top:bottom, left:right], expected)
        covered[scene, top:bottom, left:right] += 1
    assert covered.max() == 1
    # The background has one color.
    assert all(
        len(np.unique(image[cover == 0], axis=0)) == 1 for image, cover in zip(scenes.images, covered, strict=True)
    )
    again = data.scenes(images, np.arange(6), count=20, size=48, sides=(8, 16), objects=3)
    other = data.scenes(images, np.arange(6), count=20, size=48, sides=(8, 16), objects=3, seed=1)
    np.testing.assert_array_equal(scenes.images, again.images)
    assert not np.array_equal(scenes.boxes, other.boxes)


def test_bad_scenes():
    for sides in [(0, 4), (9, 8), (8, 33)]:
        with pytest.raises(ValueError, match="from 1 to the side of the scene"):
            data.scenes(TILES, [0, 1], count=1, size=32, sides=sides)
    with pytest.raises(ValueError, match="objects=0 of 2 images"):
        data.scenes(TILES, [0, 1], count=1, size=32, sides=(8, 8), objects=0)


def test_the_pyramid_has_the_maps_of_the_encoder():
    own = encoder()
    for weight in own.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1, weight.shape))
    before = own.get_weights()
    pyramid = evaluation.feature_pyramid(own, 32)
    assert {level: one.shape[1:] for level, one in pyramid.pyramid_outputs.items()} == {
        "P0": (32, 32, 4),
        "P1": (16, 16, 8),
        "P2": (8, 8, 16),
    }
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    got = keras.Model(pyramid.input, list(pyramid.pyramid_outputs.values()))(images, training=True)
    # Compare with an encoder built for the larger images.
    whole = kb.encoders.resnet((1, 1, 1), input_shape=(32, 32, 3), stem="small", width=4)
    whole.set_weights(before)
    expected = keras.Model(whole.input, kb.encoders.stage_outputs(whole)[1:])(images, training=False)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    for one, other in zip(own.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    detector = evaluation.retina_net(kb.encoders.resnet50((64, 64, 3), width=4), classes=2, image_size=128)
    assert (detector.backbone.min_level, detector.backbone.max_level) == (3, 7)
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="layers are named by stage"):
        evaluation.feature_pyramid(plain, 32)


def test_box_precision_by_hand():
    truth = np.array([[[0, 0, 10, 10], [20, 20, 30, 30]], [[20, 20, 30, 30], [-1, -1, -1, -1]]], "float32")
    classes = np.array([[0, 0], [1, -1]])
    # Class 0 has one correct and one false prediction for two boxes; class 1 has one prediction with IoU 0.7.
    boxes = np.array([[[0, 0, 10, 10], [50, 50, 60, 60]], [[20, 20, 27, 30], [0, 0, 0, 0]]], "float32")
    found = evaluation.box_precision(boxes, [[0, 0], [1, -1]], [[0.9, 0.8], [0.7, 0]], truth, classes)
    # Precision 1 at recalls 0, 0.01, ..., 0.5, which are 51 of 101.
    np.testing.assert_allclose(found["ap50"], (51 / 101 + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["ap75"], 51 / 101 / 2, rtol=1e-6)
    # Class 1 reaches the IoU thresholds 0.5, 0.55, 0.6, 0.65 and, up to rounding, 0.7 of ten.
    assert abs(found["ap"] - (51 / 101 + 0.5) / 2) < 0.051
    nothing = evaluation.box_precision(boxes, [[-1, -1], [-1, -1]], [[0, 0], [0, 0]], truth, classes)
    assert nothing == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}


@pytest.mark.full
def test_a_detector_learns_and_leaves_the_encoder():
    own = encoder()
    before = own.get_weights()
    train, test = (data.scenes(TILES, [0, 1], count, 32, sides=(14, 20), objects=1, seed=count) for count in (48, 12))
    found = evaluation.detection_probe(own, train, test, classes=2, epochs=20, batch_size=8)
    assert found["ap50"] > 0.4
    for one, other in zip(own.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_input_before_any_training():
    scenes = data.scenes(TILES, [0, 1], count=4, size=32, sides=(8, 16))
    with pytest.raises(ValueError, match=r"below classes=1.*Received: 1 as the highest label of `train`"):
        evaluation.detection_probe(encoder(), scenes, scenes, classes=1)
    with pytest.raises(ValueError, match=r"Received: `test` with images \(3, 32, 32, 3\), boxes \(4, 4, 4\)"):
        evaluation.detection_probe(encoder(), scenes, scenes._replace(images=scenes.images[:3]), classes=2)


BOXES = np.array([[[0, 0, 10, 10], [20, 20, 30, 30]], [[5, 5, 9, 9], [-1, -1, -1, -1]]], "float32")
CLASSES = np.array([[0, 1], [1, -1]])
CONFIDENCE = np.array([[0.9, 0.8], [0.7, 0.0]])


def with_value(array, place, value):
    array = np.array(array, "float64")
    array[place] = value
    return array


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"boxes": with_value(BOXES, (1, 0, 2), np.nan)},
            "NaN or infinite sides of 1 predicted boxes, first in image 1",
        ),
        ({"boxes": with_value(BOXES, (0, 0), np.inf)}, "infinite sides of 1 predicted boxes, first in image 0"),
        ({"true_boxes": with_value(BOXES, (0, 1, 0), np.nan)}, "infinite sides of 1 true boxes"),
        (
            {"true_boxes": with_value(BOXES, (0, 1), (20, 20, 10, 10))},
            r"Received: \[20.0, 20.0, 10.0, 10.0\] in image 0",
        ),
        ({"confidence": with_value(CONFIDENCE, (0, 1), np.nan)}, "Confidences must be finite.*for 1 boxes"),
        ({"confidence": CONFIDENCE[:, :1]}, r"must have a confidence. Received: \(2, 1\)"),
        ({"labels": CLASSES[:, :1]}, r"predicted boxes \(2, 2, 4\) and predicted labels \(2, 1\)"),
        ({"labels": CLASSES + 0.5}, "whole class numbers"),
        ({"true_labels": with_value(CLASSES, (0, 0), np.nan)}, "Received: NaN in `true labels"),
        ({"true_labels": np.full((2, 2), -1)}, "There must be at least one true object"),
        ({"true_boxes": BOXES[:1], "true_labels": CLASSES[:1]}, "2 images with predicted boxes and 1 with true boxes"),
    ],
)
def test_invalid_boxes_are_refused(changes, message):
    arguments = {"boxes": BOXES, "labels": CLASSES, "confidence": CONFIDENCE}
    arguments |= {"true_boxes": BOXES, "true_labels": CLASSES}
    assert evaluation.box_precision(**arguments)["ap"] > 0.999
    with pytest.raises(ValueError, match=message):
        evaluation.box_precision(**{**arguments, **changes})


def test_padding_may_hold_any_value():
    hidden = with_value(BOXES, (1, 1), np.nan)
    figures = evaluation.box_precision(hidden, CLASSES, with_value(CONFIDENCE, (1, 1), np.nan), hidden, CLASSES)
    assert figures == evaluation.box_precision(BOXES, CLASSES, CONFIDENCE, BOXES, CLASSES)
