"""Ablations of the Barlow Twins paper: what each row changes in a recipe, and the published accuracy."""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: Name of the row.
        changes: Arguments of `Recipe.changed`.
        paper: Linear top-1 accuracy on ImageNet after 300 epochs, in percent. None if the paper does not report it.
        shuffled: Whether to shuffle the pixels of every image, which leaves only its colors.
    """

    name: str
    changes: dict
    paper: float | None = None
    shuffled: bool = False


_NO_COLOR = {"jitter_probability": 0.0, "grayscale": 0.0}
_CROP_AND_FLIP = {**_NO_COLOR, "blur": (0.0, 0.0), "solarization": (0.0, 0.0)}


def _loss(**options):
    return {"loss_options": options}


def _method(**options):
    return {"method_options": options}


def _views(**options):
    return {"views_options": options}


def _optimizer(**options):
    return {"optimizer_options": options}


_FULL_LOSS = _loss(invariance_weight=1.0, redundancy_weight=0.0051)
_SGD = {"optimizer": "sgd", "learning_rate": 0.12, **_optimizer(weight_decay=5e-4)}
_SMALL_TRUST = _optimizer(trust_coefficient=0.001, trust_clip=False)
_NO_BATCH_NORM = {"projector_options": {"use_batch_norm": False}}

_TABLES = {
    # Table 5.
    "loss": (
        Row("baseline", {}, 71.4),
        Row("only invariance", _loss(redundancy_weight=0.0), 57.3),
        Row("only redundancy", _loss(invariance_weight=0.0), 0.1),
        Row("normalization along the feature axis", _loss(normalization="feature"), 69.8),
        Row("no BN in the projector", _NO_BATCH_NORM, 71.2),
        Row("no BN and no normalization", {**_NO_BATCH_NORM, **_loss(normalization="none")}, 53.4),
        # Both terms are logarithms of sums, so lambda is of the order of 1. The paper does not state its tau.
        Row("cross-entropy with temperature", _loss(redundancy_weight=1.0, temperature=0.1), 63.3),
    ),
    # Table 6.
    "asymmetry": (
        Row("baseline", {}, 71.4),
        Row("stop-gradient", _method(stop_gradient=True), 70.5),
        Row("predictor", _method(predictor=True), 70.2),
        Row("stop-gradient and predictor", _method(stop_gradient=True, predictor=True), 61.3),
        Row("moving-average twin", _method(moving_average=0.99)),
        Row("moving-average twin and predictor", _method(moving_average=0.99, predictor=True)),
    ),
    "augmentations": (
        Row("baseline", {}),
        Row("no flip", _views(flip=0.0)),
        Row("no blur", _views(blur=(0.0, 0.0))),
        Row("no solarization", _views(solarization=(0.0, 0.0))),
        Row("no grayscale", _views(grayscale=0.0)),
        Row("no color jitter", _views(jitter_probability=0.0)),
        Row("no color jitter or grayscale", _views(**_NO_COLOR)),
        Row("crop and flip only", _views(**_CROP_AND_FLIP)),
        Row("crop only", _views(**_CROP_AND_FLIP, flip=0.0)),
    ),
    "projector": (
        Row("1 layer of 1024", {"projector": (1024,)}),
        Row("2 layers of 1024", {"projector": (1024,) * 2}),
        Row("3 layers of 128", {"projector": (128,) * 3}),
        Row("3 layers of 256", {"projector": (256,) * 3}),
        Row("3 layers of 512", {"projector": (512,) * 3}),
        Row("3 layers of 1024", {"projector": (1024,) * 3}),
        Row("3 layers of 2048", {"projector": (2048,) * 3}),
    ),
    "batch_size": tuple(Row(str(size), {"batch_size": size}) for size in (64, 128, 256, 512, 1024)),
    "lambda": tuple(Row(str(weight), _loss(redundancy_weight=weight)) for weight in (0.0005, 0.002, 0.005, 0.02, 0.05)),
    # For solo-learn's recipe, `cifar10_resnet18`: what its LARS and its loss times 0.1 contribute. The learning rate of
    # SGD is lightly's.
    "optimizer": (
        Row("solo-learn", {}),
        Row("trust 0.001, not clipped", _SMALL_TRUST),
        Row("loss times 1", _FULL_LOSS),
        Row("trust 0.001, not clipped, loss times 1", {**_SMALL_TRUST, **_FULL_LOSS}),
        Row("SGD", _SGD),
        Row("SGD, loss times 1", {**_SGD, **_FULL_LOSS}),
    ),
    # A published review asks how much of the accuracy comes from learning the colors of an image.
    "pixel_shuffle": (
        Row("images", {}),
        Row("images, no color jitter", _views(jitter_probability=0.0)),
        Row("shuffled pixels", {}, shuffled=True),
        Row("shuffled pixels, no color jitter", _views(jitter_probability=0.0), shuffled=True),
    ),
}


def names():
    """Lists the names of the tables.

    Returns:
        A list of strings.
    """
    return list(_TABLES)


def table(name):
    """Returns the rows of a table.

    Args:
        name: One of `names()`.

    Returns:
        A tuple of `Row`.

    Raises:
        ValueError: If there is no such table.

    Example:

    >>> [row.name for row in table("asymmetry")][:2]
    ['baseline', 'stop-gradient']
    """
    if name not in _TABLES:
        raise ValueError(f"Unknown table. Received: {name!r}. Known tables: {', '.join(_TABLES)}.")
    return _TABLES[name]
