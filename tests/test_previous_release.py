"""What the previous release has written loads with equal numbers, and its import paths work with a warning."""

import importlib
import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_barlow as kb
from tests.previous_release import write

FOLDER = pathlib.Path(__file__).parent / "previous_release"


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["plain", "asymmetric"])
def test_models(expected, name):
    model = keras.saving.load_model(FOLDER / f"{name}.keras")
    images = expected["images"]
    np.testing.assert_allclose(model.predict(images, verbose=0), expected[name], rtol=1e-4, atol=1e-5)
    embeddings = keras.ops.convert_to_numpy(model.project(images.astype("float32")))
    np.testing.assert_allclose(embeddings, expected[f"{name}_embeddings"], rtol=1e-4, atol=1e-4)
    loss = model.evaluate(images, batch_size=write.BATCH_SIZE, verbose=0, return_dict=True)["loss"]
    # bfloat16 products of the asymmetric one.
    np.testing.assert_allclose(loss, expected[f"{name}_loss"], rtol=1e-2 if name == "asymmetric" else 1e-4)
    assert int(model.batch_count.numpy()) == 2
    if name == "plain":
        model.fit(images, batch_size=write.BATCH_SIZE, epochs=1, verbose=0)


@pytest.mark.full
def test_the_asymmetric_model_trains_on(expected):
    model = keras.saving.load_model(FOLDER / "asymmetric.keras")
    model.fit(expected["images"], batch_size=write.BATCH_SIZE, epochs=1, verbose=0)


def test_a_backbone_with_our_layers(expected):
    encoder = keras.saving.load_model(FOLDER / "backbone.keras")
    np.testing.assert_allclose(
        encoder.predict(expected["images"], verbose=0), expected["backbone"], rtol=1e-4, atol=1e-5
    )


def test_an_export(expected):
    encoder = kb.load_encoder(FOLDER / "encoder")
    features = encoder.predict(expected["images"], verbose=0)
    np.testing.assert_allclose(features, expected["encoder"], rtol=1e-4, atol=1e-5)


def test_a_gallery():
    gallery = kb.retrieval.load(FOLDER / "gallery.npz")
    assert list(gallery.names) == [f"{number}.png" for number in range(4)] and gallery.features.shape == (4, 4)


def test_a_checkpoint_resumes_as_the_uninterrupted_run(expected, tmp_path):
    shutil.copytree(FOLDER / "checkpoints", tmp_path / "checkpoints")
    weights = write.resumable(tmp_path / "checkpoints", epochs=4).get_weights()
    names = sorted(name for name in expected if name.startswith("resumed_"))
    for name, weight in zip(names, weights, strict=True):
        np.testing.assert_allclose(weight, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("old", kb.moved.MOVED)
def test_old_import_paths_warn_and_work(old):
    with pytest.warns(DeprecationWarning, match="is now keras_barlow"):
        module = importlib.reload(importlib.import_module(f"keras_barlow.{old}"))
    assert module.__all__ and all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_are_those_of_the_new_modules():
    assert importlib.import_module("keras_barlow.barlow_twins").BarlowTwins is kb.BarlowTwins
    assert kb.normalization.synchronize_batch_norm is kb.layers.synchronize_batch_norm
    assert kb.ops.cross_correlation is kb.losses.cross_correlation
    assert kb.gallery.search is kb.retrieval.search
    assert kb.callbacks.for_this_worker is kb.pretraining.worker_callbacks.for_this_worker
    assert kb.evaluation.heads.fine_tune is kb.evaluation.fine_tune
    assert kb.ablations.table is kb.recipes.ablations.table
    assert kb.ops.standardize is kb.losses.standardize
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kb.nothing  # noqa: B018


def test_every_module_of_the_previous_release_is_still_there_or_listed():
    modules = (FOLDER / "modules.txt").read_text().split()
    missing = [name for name in modules if importlib.util.find_spec(f"keras_barlow.{name}") is None]
    assert not missing
