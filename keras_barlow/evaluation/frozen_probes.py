"""Linear probes of a frozen encoder, on its features or on the feature maps of every stage."""

import keras

from keras_barlow.encoders import stage_outputs
from keras_barlow.evaluation.head_training import train_heads
from keras_barlow.evaluation.input_checks import checked_images


def linear_probe(encoder, train, test, epochs=100, batch_size=256, learning_rate=0.3, weight_decay=1e-6, **kwargs):
    """Linear evaluation as in the paper: a linear classifier on frozen features of random crops and flips.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features. It is not changed.
        train: `data.Images` with labels to train on.
        test: `data.Images` with labels to test on. They are center-cropped.
        epochs: Number of passes over `train`.
        batch_size: Images per step.
        learning_rate: Initial learning rate. It is not scaled by the batch size.
        weight_decay: L2 decay of the classifier.
        **kwargs: Additional keyword arguments of `train_heads`.

    Returns:
        A dictionary with `top1` and `top5`, floats in [0, 1].

    Raises:
        ValueError: If labels are missing or invalid, the classes differ, or the images have the wrong size.
    """
    settings = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay, **kwargs}
    return train_heads(encoder, train, test, epochs, **settings)[0]


def multi_stage_probe(encoder, train, test, epochs=100, **kwargs):
    """Trains a linear classifier on the pooled feature map of every stage of a frozen encoder, all in one run.

    Args:
        encoder: Built functional `keras.Model` from images on 0..255 to features.
        train: `data.Images` with labels to train on.
        test: `data.Images` with labels to test on. They are center-cropped.
        epochs: Number of passes over `train`.
        **kwargs: Additional keyword arguments of `linear_probe`.

    Returns:
        A dictionary from `feature1`, `feature2`, ... for the stages and `features` for the output of the encoder to
        dictionaries with `top1` and `top5`.

    Raises:
        ValueError: If the encoder has no stages, labels are missing or invalid, the classes differ, or the images have
            the wrong size.

    References:
        OpenMixup, https://openmixup.readthedocs.io (Feature1 to Feature5, and AvgPool)
    """
    train, test = checked_images(train, test, encoder)
    maps = stage_outputs(encoder)
    pooled = [keras.layers.GlobalAveragePooling2D(dtype="float32")(feature_map) for feature_map in maps]
    staged = keras.Model(encoder.inputs, [*pooled, encoder.output])
    settings = {"learning_rate": 0.3, "weight_decay": 1e-6, **kwargs}
    results = train_heads(staged, train, test, epochs, **settings)
    names = [f"feature{number}" for number in range(1, len(maps) + 1)] + ["features"]
    return dict(zip(names, results, strict=True))
