"""Checks of batches, sizes and optimizers. Each error states the rule, what was received and the remedy."""

import numbers

import keras
import tensorflow as tf

from keras_barlow import distribution, image_scale, losses


def image_shape(encoder):
    """`(height, width, channels)` of an encoder's images, with None for unknown sizes."""
    return tuple(getattr(encoder, "input_shape", None) or (None,) * 4)[1:]


def checked_loss(loss):
    """The loss, if it is one of `losses`."""
    if not isinstance(loss, losses.Loss):
        raise ValueError(
            "`loss` must be a keras_barlow.losses.Loss, which has the terms and the exact gradient of the whole batch. "
            f"Received: loss={loss!r}. Derive yours from keras_barlow.losses.Loss and define `terms`."
        )
    return loss


def check_views_repeat(views, encoder):
    """Refuses views that cannot be drawn twice, as micro-batches need."""
    if views is None:
        return
    if not hasattr(views, "check_repeatable"):
        raise ValueError(
            "With accumulation_steps > 1, `views` must be a keras_barlow.views.Views, whose draws can be repeated, or "
            f"None if the data holds pairs. Received: views={views!r}"
        )
    views.check_repeatable(image_shape(encoder))


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


def checked_images(x, encoder, crops=False):
    """The images of a batch, if they can be passed to the views. With `crops`, pairs of crops are accepted too."""
    x = image_of(x)
    if crops and isinstance(x, (tuple, list)) and len(x) == 2:
        check_shapes(*x)
        return tuple(checked_images(crop, encoder) for crop in x)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            f"This model draws its views from one batch of images. Received: {len(x)} tensors as input. Create the "
            "model with views=None if the data holds pairs of views, or with views without the crop "
            '(without="crop") if it holds pairs of crops.'
        )
    image_scale.check_image_dtype(x)
    rule = "Images must have the shape (batch, height, width, channels). Received: images.shape="
    if getattr(x.shape, "rank", 4) is None or (len(x.shape) == 4 and x.shape[-1] is None):
        height, width, channels = (size or "..." for size in image_shape(encoder))
        raise ValueError(
            f"{rule}{x.shape}, whose channels are unknown. Set the shape of these images, for example with "
            f"dataset.map(lambda images: tf.ensure_shape(images, (None, {height}, {width}, {channels})))."
        )
    shape = tuple(x.shape)
    if len(shape) != 4:
        raise ValueError(f"{rule}{shape}")
    channels = image_shape(encoder)[-1]
    if channels is not None and shape[-1] != channels and shape[1] == channels:
        raise ValueError(f"{rule}{shape}, with the channels first. Use np.moveaxis(images, 1, -1).")
    return x


def checked_pair(x, encoder):
    """The two views of a batch of data that holds views."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            "With views=None the data must hold pairs: ((view_a, view_b),) or ((view_a, view_b), labels). "
            f"Received: {'single images' if not isinstance(x, (tuple, list)) else f'{len(x)} tensors'} as input. "
            "Pass views=keras_barlow.views.barlow_twins(image_size) to draw the views in the model."
        )
    check_shapes(*x)
    return tuple(checked_images(view, encoder) for view in x)


def check_view_shape(view, encoder):
    """Refuses views that do not have the input shape of the encoder."""
    wanted = image_shape(encoder)
    shape = tuple(view.shape[1:])
    if any(None not in (size, other) and size != other for size, other in zip(shape, wanted, strict=True)):
        raise ValueError(
            f"Views must have the input shape of the encoder, {wanted}. Received: views of shape {shape}. Set the size "
            f"of the views, as in keras_barlow.views.barlow_twins(image_size={wanted[0]}), or build the encoder with "
            f"input_shape={shape}."
        )


def check_shapes(view_a, view_b):
    """Refuses two views of different shapes."""
    if not tf.TensorShape(view_a.shape).is_compatible_with(view_b.shape):
        raise ValueError(
            "The two views must have one shape. "
            f"Received: view_a.shape={tuple(view_a.shape)}, view_b.shape={tuple(view_b.shape)}"
        )


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
