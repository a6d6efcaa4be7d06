"""Named recipes, and the ablations of the Barlow Twins paper."""

from keras_barlow.recipes import ablations, published, sources
from keras_barlow.recipes.barlow_twins_recipes import CIFAR10_RESNET18, CIFAR10_SMALL, DIGITS, IMAGENET_RESNET50
from keras_barlow.recipes.catalogue import describe, get, names
from keras_barlow.recipes.published import learning_rate_for
from keras_barlow.recipes.recipe import Recipe

__all__ = [
    "CIFAR10_RESNET18",
    "CIFAR10_SMALL",
    "DIGITS",
    "IMAGENET_RESNET50",
    "Recipe",
    "ablations",
    "describe",
    "get",
    "learning_rate_for",
    "names",
    "published",
    "sources",
]
