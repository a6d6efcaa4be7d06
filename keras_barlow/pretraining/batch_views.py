"""From a batch of the data to the views that a step embeds."""

import tensorflow as tf
from keras import ops

from keras_barlow import views as view_policies
from keras_barlow.pretraining import batch_sizes, checks, tensorflow_step, view_checks


def images_of(x, views, encoder):
    """The images of a batch, checked.

    Args:
        x: What the data holds besides labels.
        views: Layer that draws the views.
        encoder: Built `keras.Model`.

    Returns:
        Tensor `(batch, height, width, channels)`, or a pair of crops if the views accept crops.

    Raises:
        ValueError: If the views cannot be drawn from it.
    """
    return view_checks.checked_images(x, encoder, crops=getattr(views, "takes_crops", False))


def draw(data, views, encoder, step, limits):
    """The views of a batch: drawn from its images, or the pair that it holds.

    Args:
        data: Batch as `fit` gets it, with or without labels.
        views: Layer that draws the views, or None.
        encoder: Built `keras.Model`.
        step: Scalar integer: which row of the table of random numbers to take.
        limits: `batch_sizes.RowLimits` of the method.

    Returns:
        Tuple of float tensors `(batch, height, width, channels)`, one per view; their sizes may differ.

    Raises:
        ValueError: If the batch has another structure or a wrong size, or the encoder does not take the size of a view.
    """
    x = checks.unpacked_images(data)
    if views is None:
        drawn = view_checks.checked_sizes(view_checks.checked_pair(x, encoder), encoder)
    else:
        drawn = view_checks.checked_sizes(view_policies.drawn(views, images_of(x, views, encoder), step), encoder)
    return batch_sizes.checked_rows(drawn[0], limits), *drawn[1:]


def micro_batches(data, views, encoder, step, limits, count, networks):
    """Splits a batch into micro-batches, whose views are computed only when they are asked for.

    Args:
        data: See `draw`.
        views: See `draw`.
        encoder: See `draw`.
        step: See `draw`.
        limits: See `draw`.
        count: Number of micro-batches.
        networks: List of the networks that the step calls in training mode.

    Returns:
        A list of functions, see `tensorflow_step.micro_batches`.

    Raises:
        ValueError: As `draw`, and if a micro-batch would have too few images.
    """
    x = checks.unpacked_images(data)
    if views is None:
        tensors, images = view_checks.checked_pair(x, encoder), ()

        def views_of(rows):
            return view_checks.checked_sizes(rows, encoder)
    else:
        images = tf.nest.flatten(images_of(x, views, encoder))
        tensors = [*images, *views.draw(ops.shape(images[0])[0], step)]

        def views_of(rows):
            crops, tables = rows[: len(images)], rows[len(images) :]
            return view_checks.checked_sizes(views.apply(crops if len(crops) > 1 else crops[0], tables), encoder)

    tensors = [batch_sizes.checked_rows(tensors[0], limits), *tensors[1:]]
    tensors = batch_sizes.checked_micro_batches(tensors, count, networks)
    return tensorflow_step.micro_batches(tensors, count, views_of)
