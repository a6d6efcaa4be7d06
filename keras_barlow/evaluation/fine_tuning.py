"""Fine-tuning: training an encoder together with a classifier."""

import numpy as np

from keras_barlow import labels, networks
from keras_barlow.data.per_class import draw_per_class
from keras_barlow.evaluation.head_training import train_heads
from keras_barlow.evaluation.input_checks import checked_images


def fine_tune(
    encoder, train, test, fraction=None, epochs=20, batch_size=256, learning_rate=0.5, encoder_rate=0.005, **kwargs
):
    """Trains a copy of an encoder and a classifier, on all labels or on a fraction of each class.

    The semi-supervised protocol of the paper uses `fraction=0.01` and `fraction=0.1`.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features. It is not changed.
        train: `data.Images` with labels to train on.
        test: `data.Images` with labels to test on. They are center-cropped.
        fraction: Fraction of the images of each class to train on, in (0, 1]; None for all.
        epochs: Number of passes over the training images.
        batch_size: Images per step, capped at the number of training images.
        learning_rate: Initial learning rate of the classifier.
        encoder_rate: Initial learning rate of the encoder.
        **kwargs: Additional keyword arguments of `train_heads`.

    Returns:
        A dictionary with `top1` and `top5`, floats in [0, 1], and `images`, the number of training images.

    Raises:
        ValueError: If the fraction leaves a class without an image, the encoder has no trainable weights, labels are
            missing or invalid, the classes differ, or the images have the wrong size.
    """
    train, test = checked_images(train, test, encoder)
    if not encoder.trainable_weights:
        raise ValueError(
            "Fine-tuning needs an encoder with trainable weights. "
            f"Received: {encoder.name!r}, which has none. If it was loaded from a SavedModel, load the run's "
            "model.keras instead."
        )
    if fraction is not None:
        train = train.take(rows_of_each_class(train.labels, fraction, kwargs.get("seed", 0)))
    trained = networks.copied(encoder, encoder.input_shape)
    settings = {"learning_rate": learning_rate, "encoder_rate": encoder_rate, **kwargs}
    results = train_heads(trained, train, test, epochs, batch_size=min(batch_size, len(train)), **settings)[0]
    return {**results, "images": len(train)}


def rows_of_each_class(class_numbers, fraction, seed=0):
    """Draws the same fraction of every class at random.

    Args:
        class_numbers: Integer array `(n,)` of class numbers from 0.
        fraction: Fraction of each class to draw, in (0, 1].
        seed: Integer seed of the draw.

    Returns:
        Sorted integer array of row numbers.

    Raises:
        ValueError: If the labels are invalid, or the fraction leaves a class without an image.

    Example:

    >>> rows_of_each_class(np.array([0, 0, 0, 0, 1, 1]), 0.5).shape
    (3,)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must be in (0, 1]. Received: fraction={fraction}")
    class_numbers = labels.checked_labels(class_numbers)

    def count_of(label, size):
        count = round(fraction * size)
        if count < 1:
            raise ValueError(
                "Every class must keep at least one image. Received: "
                f"fraction={fraction} of {size} images of class {label}. Use a larger fraction."
            )
        return count

    return np.sort(draw_per_class(class_numbers, count_of, np.random.default_rng(seed)))
