import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import shared


def small(recipe, **changes):
    return dataclasses.replace(recipe, width=2, projector=(8, 8), image_size=16, encoder="resnet8", **changes)


def test_every_recipe_builds():
    for name in kb.recipes.names():
        models = [small(kb.recipes.get(name), batch_size=4).build(num_images=8, seed=3) for _ in range(2)]
        assert models[0].optimizer is not None and models[0].views.seed == models[1].views.seed
        for one, other in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", shared.few(kb.recipes.names(), "imagenet_resnet50"))
def test_every_recipe_builds_and_takes_a_step(name):
    recipe = small(kb.recipes.get(name), batch_size=4)
    model = recipe.build(num_images=8, seed=0)
    images = np.zeros((8, 20, 20, 3), "uint8") + np.arange(8, dtype="uint8")[:, None, None, None]
    if recipe.crops_from_files:
        crops = tf.data.Dataset.from_tensor_slices(images[:, :16, :16]).batch(4)
        images = tf.data.Dataset.zip(crops, crops).map(lambda *pair: (pair,))
    model.fit(images, batch_size=None if recipe.crops_from_files else 4, verbose=0)
    assert keras.config.dtype_policy().name == "float32"


def test_the_paper():
    recipe = kb.recipes.get("imagenet_resnet50")
    model = dataclasses.replace(recipe, width=2, projector=(8, 8)).build(num_images=1_281_167, seed=0)
    optimizer = model.optimizer
    steps = 1_281_167 // 2048
    assert isinstance(optimizer, kb.optimizers.LARS)
    assert (optimizer.momentum, optimizer.trust_coefficient, optimizer.weight_decay) == (0.9, 0.001, 1e-6)
    for schedule, peak in ((optimizer._learning_rate, 1.6), (optimizer.vector_learning_rate, 0.0024)):
        for step, share in (
            (0, 0.0),
            (5 * steps, 0.5),
            (10 * steps, 1.0),
            (505 * steps, 0.5005),
            (1000 * steps, 0.001),
        ):
            np.testing.assert_allclose(schedule(step), peak * share, rtol=1e-4, atol=1e-9)
    assert recipe.projector == (8192, 8192, 8192) and recipe.redundancy_weight == 0.0051
    assert not np.any(model.encoder.get_layer("stage4_block3_normalization3").gamma)
    assert [layer.probability for layer in recipe.views().layers_b] == [1.0, 0.5, 0.8, 0.2, 0.1, 0.2]
    # The first of them runs on the host, on the whole photo.
    assert [layer.probability for layer in model.views.layers_b] == [0.5, 0.8, 0.2, 0.1, 0.2]


@pytest.mark.full
def test_a_seed_makes_a_run_reproducible():
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    weights = []
    for _ in range(2):
        model = small(kb.recipes.get("digits"), batch_size=4).build(8, seed=3)
        model.fit(kb.data.ArrayImages(images).batches(4, seed=3), epochs=2, verbose=0)
        weights.append([weight.numpy() for weight in model.weights])
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


def test_bad_input():
    with pytest.raises(ValueError, match=r"'digit'.*Known recipes: digits, cifar10_small, cifar10_resnet18"):
        kb.recipes.get("digit")
    with pytest.raises(ValueError, match=r"at least one batch of 64 images.*num_images=63"):
        kb.recipes.get("digits").build(63)
    with pytest.raises(dataclasses.FrozenInstanceError):
        kb.recipes.DIGITS.epochs = 3
