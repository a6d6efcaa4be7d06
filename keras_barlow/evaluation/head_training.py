"""Supervised training of linear heads on an encoder, frozen or fine-tuned with its own learning rate."""

import math
import random

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import augmentations
from keras_barlow.evaluation.input_checks import check_images, checked_images
from keras_barlow.evaluation.scores import top_k_accuracy


class Heads(keras.Model):
    """An encoder with a linear classifier on each of its outputs. The loss is the sum of their cross-entropies.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, or to a list of features.
        classes: Number of classes.
        frozen: Whether to keep the encoder fixed, in inference mode.
        encoder_rate: Learning rate of the encoder as a fraction of the heads' learning rate. It scales the encoder's
            gradient, which is equivalent for SGD without weight decay.
        weight_decay: L2 decay of the heads. Its gradient enters the momentum, as in PyTorch's SGD.
        views: Function or layer that augments uint8 images; None trains on the images themselves.
        seed: Integer seed of the heads' initial weights; None draws one.
        **kwargs: Keyword arguments of `keras.Model`.
    """

    def __init__(
        self, encoder, classes, frozen=True, encoder_rate=1.0, weight_decay=0.0, views=None, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.classes = classes
        self.frozen = frozen
        self.encoder_rate = encoder_rate
        self.weight_decay = weight_decay
        self.views = views
        self.seed = seed
        # Keras would draw these seeds after `set_random_seed(seed)`, but that call changes the global random state.
        seeds = random.Random(seed)
        self.heads = [
            keras.layers.Dense(
                classes,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seeds.randint(1, 10**9)),
                dtype="float32",
                name=f"head{i}",
            )
            for i in range(len(_as_list(encoder.outputs)))
        ]
        for head, output in zip(self.heads, _as_list(encoder.outputs), strict=True):
            head.build(output.shape)
        self._loss = keras.metrics.Mean(name="loss")
        self._accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True

    @property
    def metrics(self):
        return [self._loss, self._accuracy]

    def call(self, images, training=False):
        """Returns the scores of each head, a list of tensors `(batch, classes)`."""
        features = _as_list(self.encoder(images, training=training and not self.frozen))
        if self.frozen:
            features = [ops.stop_gradient(output) for output in features]
        return [head(ops.cast(output, "float32")) for head, output in zip(self.heads, features, strict=True)]

    def train_step(self, data):
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = images if self.views is None else self.views(images)
        head_weights = [weight for head in self.heads for weight in head.trainable_weights]
        encoder_weights = [] if self.frozen else self.encoder.trainable_weights
        with tf.GradientTape() as tape:
            scores = self(images, training=True)
            loss = sum(ops.mean(_cross_entropy(labels, head_scores)) for head_scores in scores)
            # Penalties that the encoder's layers add in pre-training are left out.
            total = loss + sum(0.5 * self.weight_decay * ops.sum(ops.square(weight)) for weight in head_weights)
        weights = head_weights + encoder_weights
        gradients = tape.gradient(total, [weight.value for weight in weights])
        count = len(head_weights)
        gradients = gradients[:count] + [self.encoder_rate * gradient for gradient in gradients[count:]]
        self.optimizer.apply(gradients, weights)
        self._loss.update_state(loss)
        self._accuracy.update_state(ops.equal(ops.argmax(scores[-1], axis=1), ops.cast(labels, "int64")))
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
    """Trains linear heads on an encoder and tests them.

    The optimizer is SGD with momentum 0.9. The learning rate follows a cosine to 0, updated every epoch.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features, or to a list of features, one per head.
        train: `data.Images` with labels to train on.
        test: `data.Images` with labels to test on. They are center-cropped.
        epochs: Number of passes over `train`.
        batch_size: Images per step.
        learning_rate: Initial learning rate of the heads.
        encoder_rate: Initial learning rate of the encoder; None keeps the encoder frozen, in inference mode.
        weight_decay: L2 decay of the heads.
        augment: Whether to train on random crops and flips instead of center crops.
        seed: Integer seed of the heads, the order of images, the crops and the flips.
        verbose: Verbosity of `keras.Model.fit`.
        callbacks: Additional Keras callbacks.

    Returns:
        A list of dictionaries, one per head, with `top1` and `top5`, floats in [0, 1].

    Raises:
        ValueError: If labels are missing or invalid, the classes differ, or the images have the wrong size.

    References:
        Zbontar et al.: Barlow Twins, appendix A.2 (linear, semi-supervised).
    """
    train, test = checked_images(train, test, encoder)
    if not augment:
        check_images(train, encoder, "train")
    size = encoder.input_shape[1]
    views = None
    if augment:
        # An encoder of free size takes crops of the size of the images.
        sides = train.image_shape[:2] if size is None else (size, size)
        layers = [augmentations.RandomResizedCrop(*sides, seed=seed), augmentations.RandomFlip(seed=seed + 1)]
        views = keras.Sequential(layers, name="crop_and_flip")
    model = Heads(
        encoder,
        classes=int(train.labels.max()) + 1,
        frozen=encoder_rate is None,
        encoder_rate=1.0 if encoder_rate is None else encoder_rate / learning_rate,
        weight_decay=weight_decay,
        views=(lambda images: views(images, training=True)) if augment else None,
        seed=seed,
    )
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), jit_compile=False)
    steps = math.ceil(len(train) / batch_size)

    def rate(epoch, _):
        return 0.5 * learning_rate * (1.0 + math.cos(math.pi * epoch / epochs))

    model.fit(
        train.labeled(batch_size, seed=seed, crop=None if augment else size),
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,
        verbose=verbose,
        callbacks=[keras.callbacks.LearningRateScheduler(rate), *callbacks],
    )
    scores = model.predict(test.in_order(crop=size), verbose=verbose)
    return [{f"top{k}": top_k_accuracy(head_scores, test.labels, k) for k in (1, 5)} for head_scores in scores]


def _as_list(values):
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _cross_entropy(labels, scores):
    return keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)
