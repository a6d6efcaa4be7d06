"""Fine-tuning: encoder and classifier are trained together."""

import numpy as np

from keras_barlow import labels, networks
from keras_barlow.class_sampling import draw_per_class
from keras_barlow.evaluation.head_training import train_heads
from keras_barlow.evaluation.input_checks import checked_images


def fine_tune(
    encoder, train, test, fraction=None, epochs=20, batch_size=256, learning_rate=0.5, encoder_rate=0.005, **kwargs
):
    """Trains encoder and classifier together, on all labels or on a share of each class.

    The paper's semi-supervised protocol is `fraction=0.01` and `fraction=0.1`.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features. A copy of it is trained.
        train: `data.Images` with labels.
        test: The same.
        fraction: Share of the images of each class, in (0, 1]; None for all.
        epochs: Passes over the images.
        batch_size: Images per step, at most as many as there are.
        learning_rate: Of the classifier.
        encoder_rate: Of the encoder.
        **kwargs: Further arguments of `train_heads`.

    Returns:
        A dictionary of `top1` and `top5`, floats in [0, 1], and `images`, how many were trained on.

    Raises:
        ValueError: If the fraction leaves a class without an image, or the encoder has no weights to train.
    """
    train, test = checked_images(train, test, encoder)
    if not encoder.trainable_weights:
        raise ValueError(
            "Fine-tuning needs an encoder with weights that Keras can train. "
            f"Received: {encoder.name!r}, which has none, as one loaded from a SavedModel. Load the run's model.keras."
        )
    if fraction is not None:
        train = train.take(rows_of_each_class(train.labels, fraction, kwargs.get("seed", 0)))
    trained = networks.copied(encoder, encoder.input_shape)
    settings = {"learning_rate": learning_rate, "encoder_rate": encoder_rate, **kwargs}
    results = train_heads(trained, train, test, epochs, batch_size=min(batch_size, len(train)), **settings)[0]
    return {**results, "images": len(train)}


def rows_of_each_class(class_numbers, fraction, seed=0):
    """The same share of every class.

    Args:
        class_numbers: Integer array `(n,)`.
        fraction: In (0, 1].
        seed: Integer.

    Returns:
        Sorted integer array of rows.

    Raises:
        ValueError: If the labels are wrong, or the fraction leaves a class without an image.

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
