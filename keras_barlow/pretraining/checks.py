"""What may be handed to the model: the checks, each with the rule, what was received and the remedy."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, image_scale, keras_internals

_ONE_IMAGE = (
    "A batch of 1 image cannot be trained on: the loss correlates features over the batch, so a batch needs at "
    "least 2 images. "
)


def image_shape(encoder):
    """`(height, width, channels)` of the images that an encoder takes; None where it takes any, or does not say."""
    return tuple(getattr(encoder, "input_shape", None) or (None,) * 4)[1:]


def checked_loss(loss, base):
    """The loss, if it is one of `losses`."""
    if not isinstance(loss, base):
        raise ValueError(
            "`loss` must be a keras_barlow.losses.Loss, which has the terms and the exact gradient of the whole batch. "
            f"Received: loss={loss!r}. Derive yours from keras_barlow.losses.Loss and define `terms`."
        )
    return loss


def check_views_repeat(views, encoder):
    """Refuses views that micro-batches cannot draw twice."""
    if views is None:
        return
    if not hasattr(views, "check_repeatable"):
        raise ValueError(
            "Micro-batches take their views from one table: with accumulation_steps > 1, `views` must be a "
            f"keras_barlow.views.Views, or None where the data holds pairs. Received: views={views!r}"
        )
    views.check_repeatable(image_shape(encoder))


def check_optimizer(optimizer, replicas):
    """Refuses what Keras' optimizers cannot do on several replicas.

    Args:
        optimizer: Keras optimizer.
        replicas: Number of replicas.

    Raises:
        ValueError: If gradients or averages are to be handled every so many steps.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for name, remedy in (
        (
            "gradient_accumulation_steps",
            "Create the model with accumulation_steps=k and use a batch_size k times as large: its loss is that of all "
            "these images.",
        ),
        (
            "ema_overwrite_frequency",
            "Leave it out: at its end `fit` gives the weights their averages, or use keras.callbacks.SwapEMAWeights.",
        ),
    ):
        value = getattr(inner, name, None)
        if replicas > 1 and value and (name != "ema_overwrite_frequency" or inner.use_ema):
            raise ValueError(
                f"Keras cannot take `{name}` on several replicas. Received: {name}={value} on {replicas} replicas. "
                f"{remedy}"
            )


def check_no_targets(**arguments):
    """Raises ValueError if `compile` was given what needs targets."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`compile` takes no `{name}`: there are no targets, and the loss is an argument of the constructor. "
                f"Received: {name}={value!r}. Pass the loss as BarlowTwins(..., loss=BarlowTwinsLoss(...)), and use "
                "callbacks such as KNNProbe instead of metrics."
            )


def check_one_worker(strategy):
    """Arrays are shuffled by each process for itself."""
    if distribution.worker_count(strategy) > 1:
        raise ValueError(
            "Several workers need one order of the images, and each would shuffle an array for itself. Received: an "
            f"array on {distribution.worker_count(strategy)} workers. Pass keras_barlow.data.ArrayImages(images)"
            ".batches(batch_size)."
        )


def unpacked_images(batch):
    """What a batch holds besides labels, which never reach the loss."""
    x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if sample_weight is not None:
        raise ValueError(
            "The loss correlates features over the whole batch, so that every image counts alike. Received: sample "
            "weights in the data. Leave them out, dataset.map(lambda images, labels, weights: (images, labels))."
        )
    return x


def image_of(x):
    """The images of a dictionary as TFDS makes it; anything else as it is."""
    if not isinstance(x, dict):
        return x
    if "image" not in x:
        raise ValueError(
            'A dictionary of features must have its images under "image", as TFDS has them. Received: the keys '
            f"{sorted(x)}. Use dataset.map(lambda features: features[...]) with the key of the images."
        )
    return x["image"]


def checked_images(x, encoder, crops=False):
    """The images of a batch, where the model draws the views; or pairs of crops, where its views leave the crop out."""
    x = image_of(x)
    if crops and isinstance(x, (tuple, list)) and len(x) == 2:
        check_shapes(*x)
        return tuple(checked_images(crop, encoder) for crop in x)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            f"This model draws the views by itself, from one batch of images. Received: {len(x)} tensors as input. "
            "Create the model with views=None where the data holds pairs of views already, and views without the crop "
            '(without="crop") where it holds pairs of crops.'
        )
    image_scale.check_image_dtype(x)
    rule = "Images must have the shape (batch, height, width, channels). Received: images.shape="
    if getattr(x.shape, "rank", 4) is None or (len(x.shape) == 4 and x.shape[-1] is None):
        height, width, channels = (size or "..." for size in image_shape(encoder))
        raise ValueError(
            f"{rule}{x.shape}, whose channels are unknown. Tell TensorFlow the shape of these images, such as "
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
    """The two views of a batch, where the data hold them."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            "With views=None the data must hold pairs: ((view_a, view_b),) or ((view_a, view_b), labels). "
            f"Received: {'single images' if not isinstance(x, (tuple, list)) else f'{len(x)} tensors'} as input. "
            "Pass views=keras_barlow.views.barlow_twins(image_size) to draw the views in the model."
        )
    check_shapes(*x)
    return tuple(checked_images(view, encoder) for view in x)


def check_view_shape(view, encoder):
    """Refuses views of another size than the encoder takes."""
    wanted = image_shape(encoder)
    shape = tuple(view.shape[1:])
    if any(None not in (size, other) and size != other for size, other in zip(shape, wanted, strict=True)):
        raise ValueError(
            f"The encoder takes images of the shape {wanted}. Received: views of the shape {shape}. Give the views "
            f"this size, such as keras_barlow.views.barlow_twins(image_size={wanted[0]}), or build the encoder with "
            f"input_shape={shape}."
        )


def check_shapes(view_a, view_b):
    """Refuses two views of different shapes."""
    if not tf.TensorShape(view_a.shape).is_compatible_with(view_b.shape):
        raise ValueError(
            "The two views must have one shape. "
            f"Received: view_a.shape={tuple(view_a.shape)}, view_b.shape={tuple(view_b.shape)}"
        )


def checked_rows(view):
    """Refuses a global batch of one image, while tracing where the size is known, else in the step."""
    rows = ops.shape(view)[0]
    _, total = distribution.own_rows(rows)
    if isinstance(total, int):
        if total < 2:
            raise ValueError(f"{_ONE_IMAGE}Received: images.shape={tuple(view.shape)}. Use a larger batch.")
        return view
    remedy = "Use a larger batch, or .batch(n, drop_remainder=True) where the last one is left with 1 image."
    tf.debugging.assert_greater(total, 1, message=_ONE_IMAGE + remedy)
    return view


def check_even_rows(x, networks):
    """Refuses batches that replicas share unevenly, where batch normalization takes each replica by itself.

    The moments of 3 rows and of 1 are not those of the batch, and those of none are NaN.

    Args:
        x: Tensors with this replica's rows, in any nesting.
        networks: List of the networks that the step calls in training mode.
    """
    if distribution.replica_count() == 1 or all(layer.synchronized for layer in _trained_batch_norms(networks)):
        return
    counts = distribution.row_counts(ops.shape(tf.nest.flatten(x)[0])[0])
    tf.debugging.assert_equal(
        tf.reduce_min(counts),
        tf.reduce_max(counts),
        message="Batch normalization that is not synchronized needs as many images on every replica. Use "
        "synchronized=True for encoder, projector and predictor (normalization.synchronize_batch_norm for another "
        "backbone), or a batch size that the replicas divide evenly, with drop_remainder=True. Received: fewer images "
        "on a replica.",
    )


def least_rows(networks):
    """The fewest images of a micro-batch: batch normalization needs two, or has statistics of nothing.

    Args:
        networks: List of the networks that the step calls in training mode.

    Returns:
        1 or 2.
    """
    shared = distribution.replica_count() > 1
    return 2 if any(not (shared and layer.synchronized) for layer in _trained_batch_norms(networks)) else 1


def checked_micro_batches(tensors, count, networks):
    """The tensors of a batch, if each of its micro-batches has enough rows. A dynamic size is checked in the step."""
    rows, least = ops.shape(tensors[0])[0], least_rows(networks)
    rule = _micro_batch_rule(least, count)
    remedy = "Use a larger batch_size, or fewer accumulation_steps."
    if isinstance(rows, int):
        if rows < least * count:
            raise ValueError(f"{rule}{rows} images on this replica. {remedy}")
        return tensors
    remedy += " Where only the last batch is too small, use .batch(n, drop_remainder=True)."
    check = tf.debugging.assert_greater_equal(rows, least * count, message=f"{rule}too few images. {remedy}")
    # Nothing may be computed from too few rows: moving statistics would become NaN before the step fails.
    with tf.control_dependencies([check] if check is not None else []):
        return [tf.identity(tensor) for tensor in tensors]


def _micro_batch_rule(least, count):
    return (
        f"Every micro-batch needs at least {least} image{'s' * (least > 1)} on every replica. "
        f"Received: {count} micro-batches (accumulation_steps) for a batch of "
    )


def _trained_batch_norms(networks):
    """The layers of batch normalization that take the moments of the batch."""
    layers = [layer for network in networks for layer in keras_internals.flat_layers(network)]
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]


def check_last_batch(x, batch_size, validation_split=0.0, model=None):
    """Refuses arrays of which a batch would hold too few images, before any work starts.

    Args:
        x: Array or nest of arrays.
        batch_size: As for `fit`.
        validation_split: As for `fit`.
        model: `JointEmbedding` that is to be trained; None for an evaluation, which knows no micro-batches.
    """
    rows = next(array.shape[0] for array in tf.nest.flatten(x))
    trained = math.floor(rows * (1.0 - validation_split))
    check_rows(trained, batch_size, model)
    if trained < rows:
        check_rows(rows - trained, batch_size)


def check_rows(rows, batch_size, model=None):
    """Refuses a number of images of which a batch would hold too few. See `check_last_batch`."""
    batch_size = batch_size or 32
    last = rows % batch_size or min(rows, batch_size)
    if batch_size == 1 or last == 1:
        raise ValueError(
            f"{_ONE_IMAGE}Received: {rows} images with batch_size={batch_size}, which leaves a batch of 1. "
            "Use another batch_size, or one image less."
        )
    if model is None or model.distribute_strategy.num_replicas_in_sync > 1:
        return
    least = least_rows(model.networks)
    if last < least * model.accumulation_steps:
        remedy = "Use a larger batch_size, or fewer accumulation_steps."
        if rows > batch_size:
            remedy += f" Or leave out the last {last} of the {rows} images."
        raise ValueError(f"{_micro_batch_rule(least, model.accumulation_steps)}{last} images. {remedy}")
