"""The recipes by name."""

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


def get(name):
    """Returns the recipe with a given name.

    Args:
        name: One of `names()`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If there is no such recipe.

    Example:

    >>> get("digits").image_size
    32
    """
    if name not in _RECIPES:
        raise ValueError(f"Unknown recipe. Received: {name!r}. Known recipes: {', '.join(names())}.")
    return _RECIPES[name]
