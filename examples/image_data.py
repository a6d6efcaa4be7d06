"""Images for the example scripts: how each recipe loads them, the training batches, and the features."""

import dataclasses

import numpy as np

import keras_barlow as kb


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """How images are loaded for a recipe.

    Attributes:
        stored_size: Side to which images are resized before views are drawn. None for the size of the views. The
            encoder is evaluated on the center of each image.
        crops_from_files: Whether random crops are decoded from the original files (`data.Images.crop_pairs`). Otherwise
            the model crops the stored images.
        train_per_class: Number of training images to keep per class. None or 0 keeps all.
        test_per_class: Number of test images to keep per class. None or 0 keeps all.
    """

    stored_size: int | None = None
    crops_from_files: bool = False
    train_per_class: int | None = None
    test_per_class: int | None = None


SETTINGS = {
    "cifar10_small": ImageSettings(train_per_class=2000, test_per_class=1000),
    **dict.fromkeys(
        ("imagenet_resnet50", "imagenet_resnet50_lightly", "imagenet100_resnet18"),
        ImageSettings(stored_size=256, crops_from_files=True),
    ),
    # Only two crops can be cut from files.
    "imagenet_resnet50_swav": ImageSettings(stored_size=256),
}


def dataset_name(recipe):
    """Returns the name of a recipe without that of its method: recipes that differ in it use the same images."""
    return recipe.name.removesuffix(f"_{recipe.method.lower()}")


def check_source(recipe, source, flags):
    """Refuses a recipe without images, unless it draws the digits, and then flags about other images.

    Args:
        recipe: `recipes.Recipe`.
        source: Folder, file or name of a dataset; None if there is none.
        flags: Names of the flags about images that the user passed.

    Raises:
        ValueError: If there are no images, or a flag has no effect.
    """
    if source is None and dataset_name(recipe) != "digits":
        raise ValueError(
            f"The recipe {recipe.name!r} needs images. Received: neither --data_dir nor --dataset. "
            "Name a folder, a .zip, a .npz, or a TFDS dataset."
        )
    if source is None and flags:
        raise ValueError(
            "The digits are drawn, so flags about other images have no effect. Received: "
            f"{', '.join(f'--{name}' for name in flags)}. Remove them, or add --data_dir or --dataset."
        )


def settings_for(recipe, **changes):
    """Returns the settings of a recipe, updated by the changes that are not None, such as flags."""
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = SETTINGS.get(recipe.name) or SETTINGS.get(dataset_name(recipe), ImageSettings())
    return dataclasses.replace(settings, **changes)


def load(data_dir, recipe, settings, **options):
    """Loads training and test images; further arguments are those of `data.load`."""
    return kb.data.load(
        data_dir,
        image_size=settings.stored_size or recipe.image_size,
        train_per_class=settings.train_per_class or None,
        test_per_class=settings.test_per_class or None,
        # Crops come from files only if the images are not kept in memory.
        **({"memory_limit": 0} if settings.crops_from_files else {}),
        **options,
    )


def digits(seed=0):
    """Draws the digits: training and test images, the data of the examples when no `--data_dir` is given."""
    return tuple(kb.data.ArrayImages(images, labels) for images, labels in kb.data.digits(seed=seed))


def with_checked_labels(train, test, several=False):
    """Returns both sets of images with valid labels of the same classes, or raises a `ValueError`."""
    return kb.evaluation.input_checks.checked_images(train, test, several=several)


def omitted_transforms(settings):
    """Names of the transforms that `Recipe.build` leaves out of the model because the batches contain them."""
    return ("crop",) if settings.crops_from_files else ()


def training_batches(train, views, recipe, settings, seed):
    """Returns batches of stored images, or of pairs of crops by the first transforms of `views`."""
    if settings.crops_from_files:
        if views.count != 2:
            raise ValueError(
                "Crops from files come in pairs, one crop for each of two views. "
                f"Received: {views.count} views. Set crops_from_files=False in examples/image_data.py, so that the "
                "model crops the stored images, or choose a recipe with two views."
            )
        return train.crop_pairs(recipe.batch_size, (views.layers_a[0], views.layers_b[0]), seed=seed)
    return train.batches(recipe.batch_size, seed=seed)


def features(model, sources, image_size, verbose=0):
    """Returns a list with the features of each source, computed on the centers of its images."""
    return [
        kb.evaluation.extract_features(model, images.in_order(crop=image_size), verbose=verbose) for images in sources
    ]


def shuffled_pixels(images, seed=0):
    """Shuffles the pixels of each image with a different permutation, so that only its colors are left.

    Args:
        images: Array `(n, height, width, channels)`.
        seed: Seed of the permutations.

    Returns:
        Array of the same shape and dtype.
    """
    rng = np.random.default_rng(seed)
    pixels = np.asarray(images).reshape(len(images), -1, images.shape[-1])
    return np.stack([image[rng.permutation(len(image))] for image in pixels]).reshape(images.shape)
