"""Named recipes, and the ablations of the Barlow Twins paper."""

from keras_barlow.recipes import ablations, published
from keras_barlow.recipes.barlow_twins_recipes import CIFAR10_RESNET18, CIFAR10_SMALL, DIGITS, IMAGENET_RESNET50
from keras_barlow.recipes.catalogue import get, names
from keras_barlow.recipes.recipe import Recipe

__all__ = [
    "CIFAR10_RESNET18",
    "CIFAR10_SMALL",
    "DIGITS",
    "IMAGENET_RESNET50",
    "Recipe",
    "ablations",
    "get",
    "names",
    "published",
]
