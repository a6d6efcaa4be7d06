"""The ablations of the paper as tables of what each row changes in a recipe, with the published figures."""

from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One run of a table.

    Attributes:
        name: As the paper has it.
        changes: Fields of `recipes.Recipe` and their values.
        paper: Top-1 accuracy on ImageNet in per cent, linear, 300 epochs; None where the paper has no figure.
        shuffled: Whether the pixels of every image are shuffled, which leaves its colours only.
    """

    name: str
    changes: dict
    paper: float | None = None
    shuffled: bool = False


_NO_COLOURS = {"jitter_probability": 0.0, "grayscale": 0.0}
_CROP_AND_FLIP = {**_NO_COLOURS, "blur": (0.0, 0.0), "solarization": (0.0, 0.0)}

_TABLES = {
    # Table 5.
    "loss": (
        Row("baseline", {}, 71.4),
        Row("only invariance", {"redundancy_weight": 0.0}, 57.3),
        Row("only redundancy", {"loss_options": {"invariance_weight": 0.0}}, 0.1),
        Row("normalisation along the feature axis", {"loss_options": {"normalization": "feature"}}, 69.8),
        Row("no BN in the projector", {"projector_batch_norm": False}, 71.2),
        Row(
            "no BN and no normalisation",
            {"projector_batch_norm": False, "loss_options": {"normalization": "none"}},
            53.4,
        ),
        # Both terms are logarithms of sums, so that lambda is of the order of 1. The paper does not give its tau.
        Row("cross-entropy with temperature", {"redundancy_weight": 1.0, "loss_options": {"temperature": 0.1}}, 63.3),
    ),
    # Table 6.
    "asymmetry": (
        Row("baseline", {}, 71.4),
        Row("stop-gradient", {"stop_gradient": True}, 70.5),
        Row("predictor", {"predictor": True}, 70.2),
        Row("stop-gradient and predictor", {"stop_gradient": True, "predictor": True}, 61.3),
        Row("moving-average twin", {"moving_average": 0.99}),
        Row("moving-average twin and predictor", {"moving_average": 0.99, "predictor": True}),
    ),
    "augmentations": (
        Row("baseline", {}),
        Row("no flip", {"flip": 0.0}),
        Row("no blur", {"blur": (0.0, 0.0)}),
        Row("no solarisation", {"solarization": (0.0, 0.0)}),
        Row("no grayscale", {"grayscale": 0.0}),
        Row("no colour jitter", {"jitter_probability": 0.0}),
        Row("no colour jitter or grayscale", _NO_COLOURS),
        Row("crop and flip only", _CROP_AND_FLIP),
        Row("crop only", {**_CROP_AND_FLIP, "flip": 0.0}),
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
    "lambda": tuple(Row(str(weight), {"redundancy_weight": weight}) for weight in (0.0005, 0.002, 0.005, 0.02, 0.05)),
    # What a published review asks for: how much of it is learning the colours of an image?
    "pixel_shuffle": (
        Row("images", {}),
        Row("images, no colour jitter", {"jitter_probability": 0.0}),
        Row("shuffled pixels", {}, shuffled=True),
        Row("shuffled pixels, no colour jitter", {"jitter_probability": 0.0}, shuffled=True),
    ),
}


def names():
    """The names of the tables.

    Returns:
        A list of strings.
    """
    return list(_TABLES)


def table(name):
    """The rows of a table.

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


def shuffled_pixels(images, seed=0):
    """Images whose pixels are shuffled, each in a way of its own: what is left is the colours.

    Args:
        images: Array `(n, height, width, channels)`.
        seed: Integer.

    Returns:
        Array of the same shape and dtype.

    Example:

    >>> image = np.arange(4).reshape(1, 2, 2, 1)
    >>> sorted(shuffled_pixels(image).ravel().tolist())
    [0, 1, 2, 3]
    """
    rng = np.random.default_rng(seed)
    pixels = np.asarray(images).reshape(len(images), -1, images.shape[-1])
    return np.stack([one[rng.permutation(len(one))] for one in pixels]).reshape(images.shape)
