"""The recipes by name."""

from keras_barlow import methods
from keras_barlow.recipes import (
    barlow_twins_recipes,
    byol_recipes,
    moco_recipes,
    simclr_recipes,
    simsiam_recipes,
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
_RECIPES = {
    recipe.name: recipe
    for module in _MODULES
    for recipe in (module.DIGITS, module.CIFAR10_SMALL, module.CIFAR10_RESNET18, module.IMAGENET_RESNET50)
}


def names(method=None):
    """Lists the names of recipes.

    Args:
        method: Name of a class in `methods`, in any case. None lists the recipes of all methods.

    Returns:
        A list of strings.

    Raises:
        ValueError: If there is no such method.

    Example:

    >>> names("BarlowTwins")
    ['digits', 'cifar10_small', 'cifar10_resnet18', 'imagenet_resnet50']
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


def _class_name(method):
    known = {name.lower(): name for name in methods.__all__}
    if str(method).lower() not in known:
        raise ValueError(f"Unknown method. Received: {method!r}. Known methods: {', '.join(known)}.")
    return known[method.lower()]
