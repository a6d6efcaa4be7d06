"""From a batch of the data to the views that a step embeds."""

import keras
from keras import ops

from keras_barlow import distribution, engine
from keras_barlow import views as view_policies
from keras_barlow.pretraining import batch_sizes, checks, view_checks
from keras_barlow.pretraining.engine_steps import training_step


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


def draw(data, views, encoder, step, limits, mixing=None):
    """The views of a batch: drawn from its images, or the pair that it holds.

    Args:
        data: Batch as `fit` gets it, with or without labels.
        views: Layer that draws the views, or None.
        encoder: Built `keras.Model`.
        step: Scalar integer: which row of the table of random numbers to take.
        limits: `batch_sizes.RowLimits` of the method.
        mixing: Share s of view A in a third view, `s * view_a + (1 - s) * view_b` with view B of the next image of the
            global batch. None for no such view.

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
    if mixing is not None:
        view_a, view_b = drawn
        drawn = view_a, view_b, _mixture(view_a, distribution.next_rows(view_b), mixing)
    return batch_sizes.checked_rows(drawn[0], limits), *drawn[1:]


def micro_batches(data, views, encoder, step, limits, count, networks, mixing=None):
    """Splits a batch into micro-batches, whose views are computed only when they are asked for.

    Args:
        data: See `draw`.
        views: See `draw`.
        encoder: See `draw`.
        step: See `draw`.
        limits: See `draw`.
        count: Number of micro-batches.
        networks: List of the networks that the step calls in training mode.
        mixing: See `draw`.

    Returns:
        What `tensorflow_step.accumulated` or `jax_step.accumulated` takes.

    Raises:
        ValueError: As `draw`, and if a micro-batch would have too few images.
    """
    x = checks.unpacked_images(data)
    if views is None:
        tensors, views_of = _rows_of_pairs(x, encoder, mixing)
    else:
        tensors, views_of = _rows_of_images(x, views, encoder, step, mixing)
    tensors = [batch_sizes.checked_rows(tensors[0], limits), *tensors[1:]]
    tensors = batch_sizes.checked_micro_batches(tensors, count, networks)
    return training_step.micro_batches(tensors, count, lambda rows: view_checks.checked_sizes(views_of(rows), encoder))


def _rows_of_pairs(x, encoder, mixing):
    """What micro-batches of pairs are made from: tensors with one row per image, and a function to their views."""
    pair = view_checks.checked_pair(x, encoder)
    if mixing is None:
        return pair, tuple
    tensors = *pair, distribution.next_rows(pair[1])
    return tensors, lambda rows: (rows[0], rows[1], _mixture(rows[0], rows[2], mixing))


def _rows_of_images(x, views, encoder, step, mixing):
    """What micro-batches of images are made from: the images and their random numbers, and a function to their views.

    A mixed view needs the next image of the global batch, which may belong to another replica or micro-batch.
    """
    images = keras.tree.flatten(images_of(x, views, encoder))
    tables = views.draw(ops.shape(images[0])[0], step)

    def views_of(crops, tables):
        return views.apply(crops if len(crops) > 1 else crops[0], tables)

    own = len(images) + len(tables)
    if mixing is None:
        return [*images, *tables], lambda rows: views_of(rows[: len(images)], rows[len(images) :])

    def mixed_views_of(rows):
        crops, numbers, (next_crop, next_numbers) = rows[: len(images)], rows[len(images) : own], rows[own:]
        view_a, view_b = views_of(crops, numbers)
        # View A of the other image is not computed: nothing uses it.
        _, next_b = views_of([*crops[:-1], next_crop], (numbers[0], next_numbers))
        return view_a, view_b, _mixture(view_a, next_b, mixing)

    following = distribution.next_rows(images[-1]), distribution.next_rows(tables[1])
    return [*images, *tables, *following], mixed_views_of


def _mixture(view_a, next_b, share):
    dtype = engine.full_precision(view_a.dtype)
    view_a, next_b, share = (ops.cast(tensor, dtype) for tensor in (view_a, next_b, share))
    return share * view_a + (1.0 - share) * next_b
