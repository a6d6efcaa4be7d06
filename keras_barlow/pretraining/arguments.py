"""Validates the arguments of `fit`, `evaluate` and `predict`, and turns image collections into datasets."""

import numpy as np
import tensorflow as tf

from keras_barlow import data, image_scale
from keras_barlow.pretraining import batch_sizes, batch_views, checks, view_checks

_DEFAULT_BATCH = 32


def fit_arguments(model, arguments):
    """Prepares the arguments of `fit`: collections of images become batches.

    Args:
        model: `JointEmbedding`.
        arguments: Dictionary of the arguments of `fit`.

    Returns:
        A new dictionary, whose `x` is an array, `data.Batches`, a `tf.data.Dataset` or another input of Keras.

    Raises:
        ValueError: If an argument cannot be used, or a training step is known to fail on the data.
    """
    arguments = dict(arguments)
    for name in ("sample_weight", "class_weight"):
        _refuse(arguments, name, "The loss is a function of the whole batch, in which all images have equal weight.")
    x, batch_size = arguments["x"], arguments.get("batch_size")
    if isinstance(x, data.Images):
        _refuse(arguments, "validation_split", "Collections of images have their own test split.", _VALIDATION)
        shuffle = arguments.pop("shuffle", True)
        arguments["x"] = x.batches(batch_size or _DEFAULT_BATCH) if shuffle else _in_order(model, x, batch_size)
        arguments["batch_size"] = None
    elif isinstance(x, data.Batches):
        _check_batches(x, arguments)
        arguments["batch_size"] = None
    elif isinstance(x, tf.data.Dataset):
        _refuse(arguments, "batch_size", "A dataset is already batched.", "Use dataset.batch(batch_size).")
        arguments["x"] = _checked_dataset(model, x)
    else:
        _check_array(model, x, batch_size, arguments.get("validation_split", 0.0), arguments.get("steps_per_epoch"))
    if arguments.get("validation_data") is not None:
        size = arguments.get("validation_batch_size") or batch_size
        arguments["validation_data"] = _validation(model, arguments["validation_data"], size)
    return arguments


def evaluate_arguments(model, arguments):
    """Prepares the arguments of `evaluate`, as `fit_arguments`.

    Args:
        model: `JointEmbedding`.
        arguments: Dictionary of the arguments of `evaluate`.

    Returns:
        A new dictionary.

    Raises:
        ValueError: As `fit_arguments`.
    """
    arguments = dict(arguments)
    _refuse(
        arguments, "sample_weight", "The loss is a function of the whole batch, in which all images have equal weight."
    )
    x, batch_size = arguments["x"], arguments.get("batch_size")
    if isinstance(x, (data.Images, data.Batches)):
        arguments["x"], arguments["batch_size"] = _evaluated(model, x, batch_size), None
    elif isinstance(x, tf.data.Dataset):
        arguments["x"] = _checked_dataset(model, x)
    else:
        _check_array(model, x, batch_size, training=False)
    return arguments


def predict_arguments(arguments):
    """Prepares the arguments of `predict`, with images in order.

    Args:
        arguments: Dictionary of the arguments of `predict`.

    Returns:
        A new dictionary.

    Raises:
        ValueError: For `data.Batches`, which are in a random order.
    """
    arguments = dict(arguments)
    x = arguments["x"]
    if isinstance(x, data.Batches):
        raise ValueError(
            "`predict` returns one row per image, in order. Received: Batches, which are shuffled and drop the "
            "incomplete last batch. Call predict(images) instead."
        )
    if isinstance(x, data.Images):
        arguments["x"] = x.in_order(arguments.get("batch_size") or _DEFAULT_BATCH)
        arguments["batch_size"] = None
    elif isinstance(x, tf.data.Dataset):
        arguments["x"] = image_scale.with_scale_check(x)
    else:
        image_scale.warn_about_scale(image_scale.first_images(x))
    return arguments


_VALIDATION = "Use train, test = keras_barlow.data.load(...) and validation_data=test."


def _refuse(arguments, name, rule, remedy="Remove this argument."):
    value = arguments.get(name)
    if value is not None and not (name == "validation_split" and not value):
        shown = type(value).__name__ if isinstance(value, (dict, np.ndarray, tf.Tensor)) else value
        raise ValueError(f"{rule} Received: {name}={shown}. {remedy}")


def _check_batches(batches, arguments):
    """Refuses arguments that contradict the size, number or order of `Batches`."""
    for name, own in (("batch_size", batches.batch_size), ("steps_per_epoch", len(batches))):
        value = arguments.get(name)
        if value is not None and value != own:
            raise ValueError(
                f"`{name}` of these Batches is {own}. Received: {name}={value}. Remove the argument, or create other "
                "batches with images.batches(batch_size); images.take(rows) selects fewer images."
            )
    _refuse(arguments, "validation_split", "Batches cannot be split.", _VALIDATION)
    if arguments.get("shuffle") is False:
        raise ValueError(
            "Batches are shuffled with their own seed. Received: shuffle=False. Use fit(images, shuffle=False), or "
            "remove the argument."
        )


def _validation(model, x, batch_size):
    """Validation data as Keras takes it."""
    if isinstance(x, (tuple, list)) and len(x) and isinstance(x[0], (data.Images, data.Batches)):
        x = x[0]
    if isinstance(x, (data.Images, data.Batches)):
        return _evaluated(model, x, batch_size)
    if isinstance(x, tf.data.Dataset):
        return _checked_dataset(model, x)
    if isinstance(x, (tuple, list)) and len(x) > 2 and x[2] is not None:
        raise ValueError(
            "The loss is a function of the whole batch, in which all images have equal weight. Received: "
            "validation_data with sample weights. Remove them."
        )
    _check_array(model, x[0] if isinstance(x, (tuple, list)) and len(x) else x, batch_size, training=False)
    return x


def _evaluated(model, x, batch_size):
    if isinstance(x, data.Batches):
        if batch_size not in (None, x.batch_size):
            raise ValueError(
                f"Batches have their own `batch_size`, {x.batch_size}. Received: batch_size={batch_size}. Pass the "
                "images themselves, or leave it out."
            )
        return x.epoch(0)
    return _in_order(model, x, batch_size)


def _in_order(model, images, batch_size):
    batch_size = batch_size or _DEFAULT_BATCH
    batch_sizes.check_rows(len(images), batch_size, model, training=False)
    return images.in_order(batch_size)


def _checked_dataset(model, dataset):
    """Checks the element spec now, and the image scale when the first batch arrives."""
    x = checks.unpacked_images(dataset.element_spec)
    _check_images(model, x)
    return image_scale.with_scale_check(dataset)


def _check_array(model, x, batch_size, validation_split=0.0, steps_per_epoch=None, training=True):
    if not _is_array(x):
        return
    _check_images(model, x)
    image_scale.warn_about_scale(image_scale.first_images(x))
    if steps_per_epoch is None:
        batch_sizes.check_last_batch(x, batch_size, validation_split, model, training)


def _check_images(model, x):
    if model.views is None:
        view_checks.checked_pair(x, model.encoder)
    else:
        batch_views.images_of(x, model.views, model.encoder)


def _is_array(x):
    """Whether `x` is an array or a nest of arrays, rather than a generator, a `PyDataset` or a foreign loader."""
    parts = tf.nest.flatten(x)
    return bool(parts) and all(hasattr(part, "shape") and hasattr(part, "dtype") for part in parts)
