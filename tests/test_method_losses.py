"""The losses of the other methods: value and gradient against NumPy, against lightly, and on four replicas."""

import functools
import importlib
import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import losses
from tests import oracles, shared

ROWS, FEATURES = 10, 6
QUEUE = np.random.default_rng(9).normal(size=(7, FEATURES))
QUEUE /= np.linalg.norm(QUEUE, axis=1, keepdims=True)


def embeddings(count, rows=ROWS):
    """Float64 embeddings with features on both sides of VICReg's hinge, and two views that resemble each other."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(rows, FEATURES))
    return [(image + rng.normal(size=image.shape)) * np.linspace(0.3, 2, FEATURES) for _ in range(count)]


def cosines(count, rows=ROWS):
    """Scores of SwAV: numbers in [-1, 1]."""
    return [np.tanh(z) for z in embeddings(count, rows)]


def swav(*scores):
    """The oracle of SwAV with the codes of the unmoved scores, because codes get no gradient."""
    fixed = [oracles.sinkhorn(view) for view in cosines(len(scores), len(scores[0]))[:2]]
    return [oracles.swav_loss(*scores, codes=fixed)]


# For each loss: the loss, its arguments, the tensors besides them, and the terms by NumPy.
CASES = {
    "VICReg": (losses.VICRegLoss(), lambda rows: embeddings(2, rows), {}, oracles.vicreg_loss),
    # Alone, because a large term hides the gradient of a small one.
    "VICReg's variance": (
        losses.VICRegLoss(0.0, 1.0, 0.0),
        lambda rows: embeddings(2, rows),
        {},
        lambda *z: oracles.vicreg_loss(*z, 0.0, 1.0, 0.0),
    ),
    "VICReg's covariance": (
        losses.VICRegLoss(0.0, 0.0, 1.0),
        lambda rows: embeddings(2, rows),
        {},
        lambda *z: oracles.vicreg_loss(*z, 0.0, 0.0, 1.0),
    ),
    "SimCLR": (losses.SimCLRLoss(), lambda rows: embeddings(2, rows), {}, oracles.simclr_loss),
    "SimCLR at 0.1": (
        losses.SimCLRLoss(0.1),
        lambda rows: embeddings(2, rows),
        {},
        lambda *z: oracles.simclr_loss(*z, temperature=0.1),
    ),
    "MoCo": (
        losses.MoCoLoss(),
        lambda rows: embeddings(2, rows),
        {"queue": QUEUE},
        lambda *z: oracles.moco_loss(*z, QUEUE),
    ),
    "BYOL": (losses.BYOLLoss(), lambda rows: embeddings(4, rows), {}, lambda *z: [4 - 4 * oracles.swapped_cosine(*z)]),
    "BYOL on three views": (
        losses.BYOLLoss(),
        lambda rows: embeddings(5, rows),
        {},
        lambda *z: [4 - 4 * oracles.swapped_cosine(*z)],
    ),
    "SimSiam": (losses.SimSiamLoss(), lambda rows: embeddings(4, rows), {}, lambda *z: [-oracles.swapped_cosine(*z)]),
    "SwAV": (losses.SwAVLoss(), lambda rows: cosines(2, rows), {}, swav),
    "SwAV on four views": (losses.SwAVLoss(), lambda rows: cosines(4, rows), {}, swav),
}


def assert_close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    "case, rows",
    shared.few(
        [(case, rows) for case in CASES for rows in (4, ROWS)], *[(case, 4) for case in CASES], ("VICReg", ROWS)
    ),
)
def test_value_and_gradient_match_numpy(case, rows):
    """With 4 rows, fewer than features, VICReg's covariances come from the matrix of the rows."""
    loss, arguments, constants, oracle = CASES[case]
    z = arguments(rows)
    terms, *gradients = loss.value_and_gradient(*z, **constants)
    assert tuple(terms) == loss.log_names
    np.testing.assert_allclose(list(terms.values()), oracle(*z), rtol=1e-9)
    expected = oracles.numeric_gradient(lambda *z: oracle(*z)[0], z)
    for gradient, other in zip(gradients, expected, strict=True):
        assert_close(gradient, other)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_and_the_tape_give_the_gradient_in_float32(case):
    loss, arguments, constants, _ = CASES[case]
    z = arguments(ROWS)
    _, *exact = loss.value_and_gradient(*z, **constants)
    z = [tf.constant(part, "float32") for part in z]
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(*z, **constants)
    for gradient, expected in zip(tape.gradient(value, z), exact, strict=True):
        assert_close(gradient, expected, 2e-4)
    terms, gradient, *_ = loss.value_and_gradient(*(tf.cast(part, "bfloat16") for part in z), **constants)
    assert terms["loss"].dtype == gradient.dtype == "float32"


@pytest.mark.parametrize(
    "case, rows",
    shared.few(
        [(case, rows) for case in CASES for rows in (8, 10, 5)],
        *[(case, 5) for case in ("VICReg", "SimCLR", "MoCo", "BYOL", "SwAV")],
    ),
)
def test_replicas_get_the_value_of_the_global_batch_and_the_gradient_of_their_rows(strategy, case, rows):
    """10 rows are 3, 3, 3 and 1; 5 rows leave one replica empty."""
    loss, arguments, constants, _ = CASES[case]
    z = tuple(arguments(rows))
    expected, *gradients = loss.value_and_gradient(*z, **constants)
    data = tf.data.Dataset.from_tensors(z).unbatch().batch(rows)
    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    step = tf.function(lambda: strategy.run(loss.value_and_gradient, args=batch, kwargs=constants))
    terms, *parts = tf.nest.map_structure(strategy.experimental_local_results, step())
    for name in loss.log_names:
        np.testing.assert_allclose(terms[name], [expected[name]] * 4, rtol=1e-12)
    for gradient, part in zip(gradients, parts, strict=True):
        assert_close(np.concatenate(part), gradient, 1e-12)


@pytest.mark.parametrize("case", ["SimCLR", "MoCo", "BYOL", "SimSiam", "VICReg", "SwAV"])
def test_collapsed_embeddings_have_a_finite_loss_and_gradient(case):
    loss, arguments, constants, _ = CASES[case]
    for value in (0.0, 1.0):
        z = [np.full(part.shape, value, "float32") for part in arguments(ROWS)]
        terms, *gradients = loss.value_and_gradient(*z, **constants)
        assert all(np.isfinite(part).all() for part in (*terms.values(), *gradients))


def test_codes_fill_all_prototypes_equally():
    scores = np.random.default_rng(0).normal(size=(12, 4)) + np.array([5.0, 0.0, 0.0, 0.0])
    codes = losses.swav_loss.sinkhorn(scores, iterations=50)
    np.testing.assert_allclose(np.sum(codes, 1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.sum(codes, 0), 3, rtol=1e-6)
    np.testing.assert_allclose(losses.swav_loss.sinkhorn(scores / 0.05, 3), oracles.sinkhorn(scores), rtol=1e-4)


@functools.cache
def install_lightly():
    """Makes modules of lightly importable. Its packages import torchvision, which a loss does not need."""
    spec = importlib.util.find_spec("lightly")
    if spec is None or importlib.util.find_spec("torch") is None:
        return False
    root = pathlib.Path(spec.submodule_search_locations[0])
    for name in ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.utils"):
        sys.modules[name] = package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    sys.modules["lightly.models.utils"] = sys.modules["lightly.models"].utils = types.ModuleType("lightly.models.utils")
    return True


def lightly(module):
    if not install_lightly():
        pytest.skip("lightly or torch is not installed: pip install torch && pip install --no-deps lightly")
    return importlib.import_module(module)


def lightly_moco():
    loss = lightly("lightly.loss.ntx_ent_loss").NTXentLoss(0.2, memory_bank_size=(len(QUEUE), FEATURES))
    import torch

    loss.memory_bank.bank = torch.tensor(QUEUE)
    return loss


def lightly_cosine(loss_of):
    negative = lightly("lightly.loss.negative_cosine_similarity").NegativeCosineSimilarity()
    return lambda p_a, p_b, t_a, t_b: loss_of((negative(p_a, t_b) + negative(p_b, t_a)) / 2)


LIGHTLY = {
    "VICReg": lambda: lightly("lightly.loss.vicreg_loss").VICRegLoss(),
    "SimCLR": lambda: lightly("lightly.loss.ntx_ent_loss").NTXentLoss(0.5),
    "MoCo": lightly_moco,
    "BYOL": lambda: lightly_cosine(lambda mean: 4 + 4 * mean),
    "SimSiam": lambda: lightly_cosine(lambda mean: mean),
    "SwAV": lambda: lambda *scores: lightly("lightly.loss.swav_loss").SwaVLoss()(scores[:2], scores[2:]),
    "SwAV on four views": lambda: lambda *scores: lightly("lightly.loss.swav_loss").SwaVLoss()(scores[:2], scores[2:]),
}


@pytest.mark.filterwarnings("ignore:CUDA initialization:UserWarning")
@pytest.mark.parametrize("case", LIGHTLY)
def test_value_and_gradient_match_lightly(case):
    theirs = LIGHTLY[case]()
    lightly("lightly.loss.vicreg_loss")
    import torch

    loss, arguments, constants, _ = CASES[case]
    z = arguments(ROWS)
    terms, *gradients = loss.value_and_gradient(*z, **constants)
    tensors = [torch.tensor(part, requires_grad=True) for part in z]
    value = theirs(*tensors)
    value.backward()
    np.testing.assert_allclose(terms["loss"], value.item(), rtol=1e-5)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        # The keys of MoCo get no gradient in lightly.
        if tensor.grad is not None:
            assert_close(gradient, tensor.grad.numpy())


BAD = {
    "a negative weight": (lambda: losses.VICRegLoss(variance_weight=-1), "`variance_weight` must not be negative"),
    "no epsilon of VICReg": (lambda: losses.VICRegLoss(epsilon=0), "`epsilon` must be positive"),
    "temperature of SimCLR": (lambda: losses.SimCLRLoss(temperature=0), "`temperature` must be positive"),
    "temperature of MoCo": (lambda: losses.MoCoLoss(temperature=-1), "`temperature` must be positive"),
    "temperature of SwAV": (lambda: losses.SwAVLoss(temperature=0), "`temperature` must be positive"),
    "epsilon of SwAV": (lambda: losses.SwAVLoss(epsilon=0), "`epsilon` must be positive"),
    "iterations": (lambda: losses.SwAVLoss(iterations=0), "`iterations` must be at least 1"),
    "one image": (lambda: losses.VICRegLoss()(*np.zeros((2, 1, 4), "float32")), "at least 2 images"),
    "one view": (lambda: losses.SwAVLoss()(np.zeros((4, 4), "float32")), "at least two views"),
    "no targets": (lambda: losses.BYOLLoss()(*np.zeros((2, 4, 4), "float32")), "the targets of the first two"),
    "no embeddings": (lambda: losses.SimSiamLoss()(*np.zeros((3, 4, 4), "float32")), "the targets of the first two"),
    "shapes": (lambda: losses.SimCLRLoss()(np.zeros((4, 4)), np.zeros((4, 5))), "must have one shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
