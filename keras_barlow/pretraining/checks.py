"""Checks of batches, losses and optimizers. Each error states the rule, what was received and the remedy."""

import numbers

import keras

from keras_barlow import distribution, losses


def checked_loss(loss):
    """The loss, if it is one of `losses`."""
    if not isinstance(loss, losses.Loss):
        raise ValueError(
            "`loss` must be a keras_barlow.losses.Loss, which has the terms and the exact gradient of the whole batch. "
            f"Received: loss={loss!r}. Derive yours from keras_barlow.losses.Loss and define `terms`."
        )
    return loss


def check_accumulation_steps(count):
    """Refuses a number of micro-batches below 1."""
    if count < 1:
        raise ValueError(f"`accumulation_steps` must be at least 1. Received: accumulation_steps={count}")


def check_optimizer(optimizer, replicas):
    """Refuses settings that Keras' optimizers do not support on several replicas.

    Args:
        optimizer: Keras optimizer.
        replicas: Number of replicas.

    Raises:
        ValueError: If the optimizer accumulates gradients or overwrites weights by averages.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for name, remedy in (
        (
            "gradient_accumulation_steps",
            "Create the model with accumulation_steps=k and use a batch_size k times as large, which gives the loss "
            "of all these images.",
        ),
        (
            "ema_overwrite_frequency",
            "Remove it: `fit` assigns the averages to the weights when it ends. Or use keras.callbacks.SwapEMAWeights.",
        ),
    ):
        value = getattr(inner, name, None)
        if replicas > 1 and value and (name != "ema_overwrite_frequency" or inner.use_ema):
            raise ValueError(
                f"Keras does not support `{name}` on several replicas. "
                f"Received: {name}={value} on {replicas} replicas. {remedy}"
            )


def check_no_targets(**arguments):
    """Refuses arguments of `compile` that need targets."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`compile` takes no `{name}`: there are no targets, and the loss is an argument of the constructor. "
                f"Received: {name}={value!r}. Pass it there, as in BarlowTwins(..., loss=BarlowTwinsLoss(...)), "
                "and use callbacks such as KNNProbe instead of metrics."
            )


def check_one_worker(strategy):
    """Refuses arrays on several workers, because each process would shuffle them differently."""
    if distribution.worker_count(strategy) > 1:
        raise ValueError(
            "Several workers must read the images in one order, and each would shuffle an array differently. "
            f"Received: an array on {distribution.worker_count(strategy)} workers. Pass "
            "keras_barlow.data.ArrayImages(images).batches(batch_size)."
        )


def unpacked_images(batch):
    """A batch without its labels, which never reach the loss."""
    x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if sample_weight is not None:
        raise ValueError(
            "The loss is a function of the whole batch, in which all images have equal weight. Received: sample "
            "weights in the data. Remove them with dataset.map(lambda images, labels, weights: (images, labels))."
        )
    return x


def image_of(x):
    """The images of a dictionary as TFDS yields it. Other inputs are returned unchanged."""
    if not isinstance(x, dict):
        return x
    if "image" not in x:
        raise ValueError(
            'A dictionary must hold its images under the key "image", as in TFDS. Received keys: '
            f"{sorted(x)}. Use dataset.map(lambda features: features[...]) with the key of the images."
        )
    return x["image"]


def checked_count(value, name, least):
    """A count that a user passes, if it is an integer and large enough.

    Args:
        value: The count.
        name: Name of the argument, for the error.
        least: The smallest value.

    Returns:
        The count as a Python integer.

    Raises:
        ValueError: If it is not an integer, or too small.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}")
    return int(value)


def check_alone(name, **arguments):
    """Refuses an argument that cannot be combined with others.

    Args:
        name: Name of the argument.
        **arguments: The other arguments. None and False are allowed.

    Raises:
        ValueError: If another argument is set.
    """
    others = [f"{other}={value!r}" for other, value in arguments.items() if value not in (None, False)]
    if others:
        raise ValueError(f"`{name}` cannot be combined with {', '.join(arguments)}. Received: {', '.join(others)}.")
