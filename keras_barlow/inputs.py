"""What may be handed to the model: the checks, each with the rule, what was received and the remedy."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, networks

_ONE_IMAGE = (
    "A batch of 1 image cannot be trained on: the loss correlates features over the batch, so a batch needs at "
    "least 2 images. "
)


def checked_encoder(encoder):
    """The encoder, if it is a built model from images to features of rank 2; see `networks.checked_encoder`."""
    return networks.checked_encoder(encoder)


def check_no_targets(**arguments):
    """Raises ValueError if `compile` was given what needs targets."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`compile({name}=...)` is not taken: Barlow Twins has no targets, and its loss belongs to the "
                f"constructor. Received: {name}={value!r}. Use BarlowTwins(..., loss=BarlowTwinsLoss(...)), and "
                "callbacks such as KNNProbe in place of metrics."
            )


def check_one_worker(strategy):
    """Arrays are shuffled by each process for itself."""
    if distribution.worker_count(strategy) > 1:
        raise ValueError(
            "Several workers need one order of the images, and each would shuffle an array for itself. Received: an "
            f"array on {distribution.worker_count(strategy)} workers. Pass keras_barlow.data.ArrayImages(images)"
            ".batches(batch_size)."
        )


def checked_images(x, crops=False):
    """The images of a batch, where the model draws the views; or pairs of crops, where its views leave the crop out."""
    if crops and isinstance(x, (tuple, list)) and len(x) == 2:
        check_shapes(*x)
        return tuple(checked_images(crop) for crop in x)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            f"This model draws the views by itself, from one batch of images. Received: {len(x)} tensors as input. "
            "Pass views=None to BarlowTwins where the data holds pairs of views already, and views without the crop "
            '(without="crop") where it holds pairs of crops.'
        )
    if len(x.shape) != 4:
        raise ValueError(
            f"Images must have the shape (batch, height, width, channels). Received: images.shape={tuple(x.shape)}"
        )
    return x


def checked_pair(x):
    """The two views of a batch, where the data hold them."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            "With views=None the data must hold pairs: ((view_a, view_b),) or ((view_a, view_b), labels). "
            f"Received: {'single images' if not isinstance(x, (tuple, list)) else f'{len(x)} tensors'} as input. "
            "Pass views=keras_barlow.views.barlow_twins(image_size) to draw the views in the model."
        )
    check_shapes(*x)
    return tuple(checked_images(view) for view in x)


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


def check_even_rows(x, models):
    """Refuses batches that replicas share unevenly, where batch normalisation takes each replica by itself.

    The moments of 3 rows and of 1 are not those of the batch, and those of none are NaN.
    """
    if distribution.replica_count() == 1:
        return
    layers = [layer for model in models for layer in model._flatten_layers()]
    if all(layer.synchronized for layer in layers if isinstance(layer, keras.layers.BatchNormalization)):
        return
    counts = distribution.row_counts(ops.shape(tf.nest.flatten(x)[0])[0])
    tf.debugging.assert_equal(
        tf.reduce_min(counts),
        tf.reduce_max(counts),
        message="Batch normalisation that is not synchronised needs as many images on every replica. Use "
        "synchronized=True for encoder and projector (normalization.synchronize_batch_norm for another backbone), or "
        "a batch size that the replicas divide evenly, with drop_remainder=True. Received: fewer images on a replica.",
    )


def check_last_batch(x, batch_size, validation_split=0.0):
    """Refuses arrays whose last batch would hold one image, before any work starts."""
    arrays = tf.nest.flatten(x)
    if not all(hasattr(array, "shape") and len(array.shape) for array in arrays) or not arrays:
        return
    batch_size = batch_size or 32
    rows = math.floor(arrays[0].shape[0] * (1.0 - validation_split))
    if rows % batch_size == 1 or batch_size == 1:
        raise ValueError(
            f"{_ONE_IMAGE}Received: {rows} images with batch_size={batch_size}, which leaves a batch of 1. "
            "Use another batch_size, or one image less."
        )
