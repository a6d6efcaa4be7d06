"""Encoders from images on 0..255 to features, with built-in standardization."""

from keras_barlow.encoders.resnet import resnet, resnet8, resnet18, resnet50
from keras_barlow.encoders.stages import stage_outputs
from keras_barlow.encoders.standardization import IMAGENET_DEVIATION, IMAGENET_MEAN, with_standardization

__all__ = [
    "IMAGENET_DEVIATION",
    "IMAGENET_MEAN",
    "resnet",
    "resnet18",
    "resnet50",
    "resnet8",
    "stage_outputs",
    "with_standardization",
]
