"""Self-supervised pre-training for Keras."""

from keras_barlow import (
    augmentations,
    callbacks,
    checkpoint,
    data,
    distribution,
    encoders,
    evaluation,
    export,
    layers,
    losses,
    methods,
    moved,
    optimizers,
    plots,
    pretraining,
    randomness,
    recipes,
    retrieval,
    views,
    weights,
)
from keras_barlow.export import load_encoder
from keras_barlow.layers import Projector
from keras_barlow.methods import BYOL, BarlowTwins, MoCo, SimCLR, SimSiam, SwAV, VICReg
from keras_barlow.version import __version__

__all__ = [
    "BYOL",
    "BarlowTwins",
    "MoCo",
    "Projector",
    "SimCLR",
    "SimSiam",
    "SwAV",
    "VICReg",
    "__version__",
    "augmentations",
    "callbacks",
    "checkpoint",
    "data",
    "distribution",
    "encoders",
    "evaluation",
    "export",
    "layers",
    "load_encoder",
    "losses",
    "methods",
    "optimizers",
    "plots",
    "pretraining",
    "randomness",
    "recipes",
    "retrieval",
    "views",
    "weights",
]

moved.install()


def __getattr__(name):
    return moved.attribute(name)
