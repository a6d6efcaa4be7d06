"""Barlow Twins self-supervised pre-training for Keras."""

from keras_barlow import (
    ablations,
    augmentations,
    callbacks,
    checkpoint,
    data,
    distribution,
    encoders,
    evaluation,
    export,
    gallery,
    losses,
    normalization,
    ops,
    optimizers,
    plots,
    randomness,
    recipes,
    views,
    weights,
)
from keras_barlow.barlow_twins import BarlowTwins
from keras_barlow.export import load_encoder
from keras_barlow.projector import Projector
from keras_barlow.version import __version__

__all__ = [
    "BarlowTwins",
    "Projector",
    "__version__",
    "ablations",
    "augmentations",
    "callbacks",
    "checkpoint",
    "data",
    "distribution",
    "encoders",
    "evaluation",
    "export",
    "gallery",
    "load_encoder",
    "losses",
    "normalization",
    "ops",
    "optimizers",
    "plots",
    "randomness",
    "recipes",
    "views",
    "weights",
]
