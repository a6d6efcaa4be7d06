"""Checks of batches, losses and optimizers. Each error states the rule, what was received and the remedy."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, keras_internals, losses

_ONE_IMAGE = "A batch of 1 image cannot be used: the loss compares the images of a batch, so a batch needs at least 2. "


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
                f"Received: {name}={value!r}. Pass the loss as BarlowTwins(..., loss=BarlowTwinsLoss(...)), and use "
                "callbacks such as KNNProbe instead of metrics."
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


def checked_rows(view):
    """Refuses a global batch of one image: while tracing if the size is known, otherwise in the step."""
    rows = ops.shape(view)[0]
    _, total = distribution.own_rows(rows)
    if isinstance(total, int):
        if total < 2:
            raise ValueError(f"{_ONE_IMAGE}Received: images.shape={tuple(view.shape)}. Use a larger batch.")
        return view
    remedy = "Use a larger batch, or .batch(n, drop_remainder=True) if only the last batch has 1 image."
    tf.debugging.assert_greater(total, 1, message=_ONE_IMAGE + remedy)
    return view


def check_even_rows(x, networks):
    """Refuses uneven rows on replicas if batch normalization is not synchronized.

    The moments of 3 rows and of 1 row are not those of the batch, and those of no rows are NaN.

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
        message="Batch normalization that is not synchronized needs the same number of images on every replica. "
        "Received: fewer images on one replica. Use synchronized=True for encoder, projector and predictor "
        "(layers.synchronize_batch_norm for another backbone), or a batch size that is divisible by the number of "
        "replicas, with drop_remainder=True.",
    )


def least_rows(networks):
    """The smallest number of images in a micro-batch: 2 with batch normalization, otherwise 1.

    Args:
        networks: List of the networks that the step calls in training mode.

    Returns:
        1 or 2.
    """
    shared = distribution.replica_count() > 1
    return 2 if any(not (shared and layer.synchronized) for layer in _trained_batch_norms(networks)) else 1


def checked_micro_batches(tensors, count, networks):
    """The tensors of a batch, if all its micro-batches have enough rows. A dynamic size is checked in the step."""
    rows, least = ops.shape(tensors[0])[0], least_rows(networks)
    rule = _micro_batch_rule(least, count)
    remedy = "Use a larger batch_size, or fewer accumulation_steps."
    if isinstance(rows, int):
        if rows < least * count:
            raise ValueError(f"{rule}{rows} images on this replica. {remedy}")
        return tensors
    remedy += " If only the last batch is too small, use .batch(n, drop_remainder=True)."
    check = tf.debugging.assert_greater_equal(rows, least * count, message=f"{rule}too few images. {remedy}")
    # Check before anything is computed: moving statistics would become NaN before the step fails.
    with tf.control_dependencies([check] if check is not None else []):
        return [tf.identity(tensor) for tensor in tensors]


def _micro_batch_rule(least, count):
    return (
        f"Every micro-batch needs at least {least} image{'s' * (least > 1)} on every replica. "
        f"Received: {count} micro-batches (accumulation_steps) for a batch of "
    )


def _trained_batch_norms(networks):
    """The batch normalization layers that use the moments of the batch."""
    layers = [layer for network in networks for layer in keras_internals.flat_layers(network)]
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]


def check_last_batch(x, batch_size, validation_split=0.0, model=None):
    """Refuses arrays whose last batch would have too few images, before training starts.

    Args:
        x: Array or nest of arrays.
        batch_size: Images per step.
        validation_split: Fraction of the images that `fit` keeps for validation.
        model: `JointEmbedding` that will be trained; None for an evaluation, which has no micro-batches.
    """
    rows = next(array.shape[0] for array in tf.nest.flatten(x))
    trained = math.floor(rows * (1.0 - validation_split))
    check_rows(trained, batch_size, model)
    if trained < rows:
        check_rows(rows - trained, batch_size)


def check_rows(rows, batch_size, model=None):
    """Refuses a number of images that leaves too few for the last batch. See `check_last_batch`."""
    batch_size = batch_size or 32
    last = rows % batch_size or min(rows, batch_size)
    if batch_size == 1 or last == 1:
        raise ValueError(
            f"{_ONE_IMAGE}Received: {rows} images with batch_size={batch_size}, which leaves a batch of 1. "
            "Use another batch_size, or one image fewer."
        )
    if model is None or model.distribute_strategy.num_replicas_in_sync > 1:
        return
    least = least_rows(model.networks)
    if last < least * model.accumulation_steps:
        remedy = "Use a larger batch_size, or fewer accumulation_steps."
        if rows > batch_size:
            remedy += f" Or drop the last {last} of the {rows} images."
        raise ValueError(f"{_micro_batch_rule(least, model.accumulation_steps)}{last} images. {remedy}")
