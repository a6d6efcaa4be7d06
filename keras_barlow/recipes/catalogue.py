"""The recipes by name."""

from keras_barlow import methods
from keras_barlow.recipes import barlow_twins_recipes

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        barlow_twins_recipes.DIGITS,
        barlow_twins_recipes.CIFAR10_SMALL,
        barlow_twins_recipes.CIFAR10_RESNET18,
        barlow_twins_recipes.IMAGENET_RESNET50,
    )
}


def names():
    """Lists the names of all recipes.

    Returns:
        A list of strings.

    Example:

    >>> names()
    ['digits', 'cifar10_small', 'cifar10_resnet18', 'imagenet_resnet50']
    """
    return list(_RECIPES)


def get(name, method=None):
    """Returns the recipe with a given name.

    Args:
        name: One of `names()`.
        method: Name of a class in `methods`, in upper or lower case. None returns the recipe called `name`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If there is no such recipe or method.

    Example:

    >>> get("digits").image_size
    32
    """
    if method is not None:
        if method.lower() not in map(str.lower, methods.__all__):
            raise ValueError(f"Unknown method. Received: {method!r}. Known methods: {', '.join(methods.__all__)}.")
        if method.lower() != "barlowtwins":
            name = f"{name}_{method.lower()}"
    if name not in _RECIPES:
        raise ValueError(f"Unknown recipe. Received: {name!r}. Known recipes: {', '.join(names())}.")
    return _RECIPES[name]
