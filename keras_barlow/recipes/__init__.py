"""Named recipes, and the ablations of the paper."""

from keras_barlow.recipes import ablations
from keras_barlow.recipes.recipe import (
    CIFAR10_RESNET18,
    CIFAR10_SMALL,
    DIGITS,
    IMAGENET_RESNET50,
    Recipe,
    get,
    names,
)

__all__ = [
    "CIFAR10_RESNET18",
    "CIFAR10_SMALL",
    "DIGITS",
    "IMAGENET_RESNET50",
    "Recipe",
    "ablations",
    "get",
    "names",
]
