"""Linear heads on an encoder, trained with labels: the encoder frozen, or fine-tuned with a rate of its own."""

import copy
import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_barlow import augmentations, data, labels, networks
from keras_barlow.encoders import stage_outputs
from keras_barlow.evaluation.features import check_images
from keras_barlow.evaluation.linear import check_targets
from keras_barlow.evaluation.scores import top_k_accuracy


class Heads(keras.Model):
    """An encoder and one linear classifier on each of its outputs, trained by one loss each.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, or to a list of them.
        classes: Number of classes.
        frozen: Whether the encoder stays as it is, in inference mode.
        encoder_rate: Its learning rate as a share of the heads'. For SGD without decay that is a factor of its
            gradient.
        weight_decay: L2 decay of the heads, as PyTorch's SGD has it: its gradient goes through the momentum.
        views: Function or layer of uint8 images that gives what is trained on; None for the images themselves.
        **kwargs: Those of `keras.Model`.
    """

    def __init__(self, encoder, classes, frozen=True, encoder_rate=1.0, weight_decay=0.0, views=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.classes = classes
        self.frozen = frozen
        self.encoder_rate = encoder_rate
        self.weight_decay = weight_decay
        self.views = views
        self.heads = [
            keras.layers.Dense(
                classes,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                dtype="float32",
                name=f"head{i}",
            )
            for i in range(len(_listed(encoder.outputs)))
        ]
        for head, output in zip(self.heads, _listed(encoder.outputs), strict=True):
            head.build(output.shape)
        self._loss = keras.metrics.Mean(name="loss")
        self._right = keras.metrics.Mean(name="accuracy")
        self.built = True

    @property
    def metrics(self):
        return [self._loss, self._right]

    def call(self, images, training=False):
        """The scores of each head, a list of `(batch, classes)`."""
        features = _listed(self.encoder(images, training=training and not self.frozen))
        if self.frozen:
            features = [ops.stop_gradient(one) for one in features]
        return [head(ops.cast(one, "float32")) for head, one in zip(self.heads, features, strict=True)]

    def train_step(self, data):
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = images if self.views is None else self.views(images)
        own = [weight for head in self.heads for weight in head.trainable_weights]
        encoder = [] if self.frozen else self.encoder.trainable_weights
        with tf.GradientTape() as tape:
            scores = self(images, training=True)
            loss = sum(ops.mean(_cross_entropy(labels, one)) for one in scores)
            # The penalties of pre-training are no part of this.
            total = loss + sum(0.5 * self.weight_decay * ops.sum(ops.square(weight)) for weight in own)
        gradients = tape.gradient(total, [weight.value for weight in own + encoder])
        gradients = gradients[: len(own)] + [self.encoder_rate * gradient for gradient in gradients[len(own) :]]
        self.optimizer.apply(gradients, own + encoder)
        self._loss.update_state(loss)
        self._right.update_state(ops.equal(ops.argmax(scores[-1], axis=1), ops.cast(labels, "int64")))
        return self.get_metrics_result()


def train_heads(
    encoder,
    train,
    test,
    epochs,
    batch_size=256,
    learning_rate=0.3,
    encoder_rate=None,
    weight_decay=0.0,
    augment=True,
    seed=0,
    verbose=0,
    callbacks=(),
):
    """Trains linear heads on an encoder with SGD, momentum 0.9 and a cosine to 0 by epochs, and tests them.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features, or to a list of them, for one head each.
        train: `data.Images` with labels.
        test: The same.
        epochs: Passes over `train`.
        batch_size: Images per step.
        learning_rate: Of the heads, at the beginning.
        encoder_rate: Of the encoder; None to keep it frozen, in inference mode.
        weight_decay: Of the heads.
        augment: Whether to train on random crops and flips, in place of the centre of the images.
        seed: Of heads, order, crops and flips.
        verbose: As for `keras.Model.fit`.
        callbacks: Further Keras callbacks.

    Returns:
        A list with a dictionary for each head: `top1` and `top5`, floats in [0, 1].

    Raises:
        ValueError: If labels are missing, or the classes of the two differ.

    References:
        Zbontar et al.: Barlow Twins, appendix A.2 (linear, semi-supervised).
    """
    train, test = checked_images(train, test, encoder)
    if not augment:
        check_images(train, encoder, "train")
    size = encoder.input_shape[1]
    keras.utils.set_random_seed(seed)
    views = None
    if augment:
        layers = [augmentations.RandomResizedCrop(size, size, seed=seed), augmentations.RandomFlip(seed=seed + 1)]
        views = keras.Sequential(layers, name="crop_and_flip")
    model = Heads(
        encoder,
        classes=int(train.labels.max()) + 1,
        frozen=encoder_rate is None,
        encoder_rate=1.0 if encoder_rate is None else encoder_rate / learning_rate,
        weight_decay=weight_decay,
        views=(lambda images: views(images, training=True)) if augment else None,
    )
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), jit_compile=False)
    steps = math.ceil(len(train) / batch_size)

    def rate(epoch, _):
        return 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    model.fit(
        train.labelled(batch_size, seed=seed, crop=None if augment else size),
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,
        verbose=verbose,
        callbacks=[keras.callbacks.LearningRateScheduler(rate), *callbacks],
    )
    scores = model.predict(test.in_order(crop=size), verbose=verbose)
    return [{"top1": top_k_accuracy(one, test.labels), "top5": top_k_accuracy(one, test.labels, k=5)} for one in scores]


def linear_probe(encoder, train, test, epochs=100, batch_size=256, learning_rate=0.3, weight_decay=1e-6, **kwargs):
    """The paper's linear evaluation: a linear classifier on frozen features of random crops and flips.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features. It is not changed.
        train: `data.Images` with labels.
        test: The same; the centre of each image is judged.
        epochs: Passes over `train`.
        batch_size: Images per step.
        learning_rate: At the beginning; not scaled by the batch size.
        weight_decay: Of the classifier.
        **kwargs: Further arguments of `train_heads`.

    Returns:
        A dictionary of `top1` and `top5`, floats in [0, 1].
    """
    settings = {"batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay, **kwargs}
    return train_heads(encoder, train, test, epochs, **settings)[0]


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


def multi_stage_probe(encoder, train, test, epochs=100, **kwargs):
    """Linear classifiers on the features after every stage of a frozen encoder, all in one training.

    Args:
        encoder: Built functional `keras.Model` from images on 0..255 to features.
        train: `data.Images` with labels.
        test: The same.
        epochs: Passes over `train`.
        **kwargs: Further arguments of `linear_probe`.

    Returns:
        A dictionary: for each stage `feature1`, `feature2`, ... and for `features`, the average pool that the encoder
        ends with, a dictionary of `top1` and `top5`.

    Raises:
        ValueError: If the encoder has no feature maps.

    References:
        OpenMixup, https://openmixup.readthedocs.io (Feature1 to Feature5 and AvgPool).
    """
    train, test = checked_images(train, test, encoder)
    maps = stage_outputs(encoder)
    pooled = [keras.layers.GlobalAveragePooling2D(dtype="float32")(one) for one in maps]
    staged = keras.Model(encoder.inputs, [*pooled, encoder.output])
    settings = {"learning_rate": 0.3, "weight_decay": 1e-6, **kwargs}
    results = train_heads(staged, train, test, epochs, **settings)
    names = [f"feature{number}" for number in range(1, len(maps) + 1)] + ["features"]
    return dict(zip(names, results, strict=True))


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
    rng = np.random.default_rng(seed)
    rows = []
    for label in np.unique(class_numbers):
        members = np.flatnonzero(class_numbers == label)
        count = round(fraction * len(members))
        if count < 1:
            raise ValueError(
                "Every class must keep at least one image. Received: "
                f"fraction={fraction} of {len(members)} images of class {label}. Use a larger fraction."
            )
        rows.append(rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(rows))


def checked_images(train, test, encoder=None, several=False):
    """Images to train and to test on, with labels that `keras_barlow.labels` has checked, of the same classes.

    Args:
        train: `data.Images`.
        test: `data.Images`.
        encoder: `keras.Model` that takes them; None where there is none yet.
        several: Whether an image may have any number of labels, rows of 1, 0 and -1.

    Returns:
        The pair of `data.Images`, whose labels are int64.

    Raises:
        ValueError: If labels are missing or wrong, the classes differ, or the images are of another size than the
            encoder's.
    """
    train, test = (_with_labels(one, name, several) for name, one in (("train", train), ("test", test)))
    if train.labels.ndim != test.labels.ndim:
        raise ValueError(
            "Training and test must have labels of one kind. "
            f"Received: {train.labels.shape} for training, {test.labels.shape} for testing."
        )
    differ = train.labels.ndim == 2 and train.labels.shape[1] != test.labels.shape[1]
    if differ or (train.class_names and test.class_names and tuple(train.class_names) != tuple(test.class_names)):
        classes = [one.class_names or one.labels.shape[1:] for one in (test, train)]
        raise ValueError(
            "Training and test must have the same classes. "
            f"Received: {classes[0]} for testing, {classes[1]} for training. Load both from one collection."
        )
    if train.labels.ndim == 2:
        check_targets(train.labels)
    else:
        # A classifier of one class is always right.
        labels.checked_labels(train.labels, name="train", least_classes=2)
        labels.checked_test_labels(test.labels, train.labels, name="test.labels")
    # Training images may be smaller: random crops are resized.
    check_images(test, encoder, "test")
    return train, test


def _with_labels(images, name, several):
    """The images with labels of int64; they themselves where they have such."""
    if images is not None and not isinstance(images, data.Images):
        raise ValueError(
            f"This takes data.Images. Received: {type(images).__name__} for `{name}`. Wrap arrays as "
            "data.ArrayImages(images, labels)."
        )
    known = None if images is None else images.labels
    checked = labels.checked_labels(known, None if images is None else len(images), name, several)
    if checked is known:
        return images
    images = copy.copy(images)
    images.labels = checked
    return images


def _listed(values):
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _cross_entropy(labels, scores):
    return keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)
