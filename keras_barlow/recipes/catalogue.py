"""The recipes by name."""

import dataclasses

from keras_barlow import methods
from keras_barlow.recipes import (
    barlow_twins_recipes,
    byol_recipes,
    moco_recipes,
    simclr_recipes,
    simsiam_recipes,
    sources,
    swav_recipes,
    vicreg_recipes,
)

_MODULES = (
    barlow_twins_recipes,
    vicreg_recipes,
    simclr_recipes,
    byol_recipes,
    simsiam_recipes,
    moco_recipes,
    swav_recipes,
)
_RECIPES = {recipe.name: recipe for module in _MODULES for recipe in module.ALL}


def names(method=None):
    """Lists the names of recipes.

    Args:
        method: Name of a class in `methods`, in any case. None lists the recipes of all methods.

    Returns:
        A list of strings.

    Raises:
        ValueError: If there is no such method.

    Example:

    >>> names("SimCLR")
    ['digits_simclr', 'cifar10_small_simclr', 'cifar10_resnet18_simclr', 'imagenet_resnet50_simclr']
    """
    chosen = None if method is None else _class_name(method)
    return [name for name, recipe in _RECIPES.items() if chosen in (None, recipe.method)]


def get(name, method=None):
    """Returns the recipe with a given name.

    Args:
        name: One of `names()`.
        method: Name of a class in `methods`, in any case: returns the recipe for this method instead of Barlow Twins.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If there is no such recipe or method.

    Example:

    >>> get("digits").image_size
    32
    >>> get("digits", method="simclr").name
    'digits_simclr'
    """
    chosen = "BarlowTwins" if method is None else _class_name(method)
    full_name = name if chosen == "BarlowTwins" else f"{name}_{chosen.lower()}"
    if full_name not in _RECIPES or (method is not None and _RECIPES[full_name].method != chosen):
        known = names("BarlowTwins" if method is None else chosen)
        raise ValueError(f"Unknown recipe. Received: {full_name!r}. Known recipes: {', '.join(known)}.")
    return _RECIPES[full_name]


def describe(name, method=None):
    """Prints a recipe: its source, the accuracy to expect, what departs from the source, and its settings.

    Args:
        name: One of `names()`.
        method: As in `get`.

    Raises:
        ValueError: If there is no such recipe or method.

    Example:

    >>> describe("cifar10_resnet18_lightly")  # doctest: +ELLIPSIS
    cifar10_resnet18_lightly
      Source: lightly, docs/source/getting_started/benchmarks/cifar10_benchmark.py, ...
      Expected: 84.2 k-NN (k = 200, temperature 0.1), reported by lightly.
      ...
    """
    recipe = get(name, method)
    source = sources.source(recipe.name)
    lines = [f"Source: {source.settings}", f"Expected: {source.expected}", f"Checked: {source.checked}"]
    lines += [f"Departure: {departure}" for departure in source.departures]
    settings = [field.name for field in dataclasses.fields(recipe) if field.name != "name"]
    lines += [f"{setting} = {getattr(recipe, setting)!r}" for setting in settings]
    print("\n  ".join([recipe.name, *lines]))


def _class_name(method):
    known = {name.lower(): name for name in methods.__all__}
    if str(method).lower() not in known:
        raise ValueError(f"Unknown method. Received: {method!r}. Known methods: {', '.join(known)}.")
    return known[method.lower()]
