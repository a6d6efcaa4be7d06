"""Linear heads on an encoder, trained with labels: the encoder frozen, or fine-tuned with a rate of its own."""

import math
import random

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import augmentations
from keras_barlow.evaluation.input_checks import check_images, checked_images
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
        seed: Integer seed of the heads' initial weights; None draws one.
        **kwargs: Those of `keras.Model`.
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
        # The seeds that Keras would draw after `set_random_seed(seed)`, without changing the global state.
        seeds = random.Random(seed)
        self.heads = [
            keras.layers.Dense(
                classes,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seeds.randint(1, 10**9)),
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
        seed=seed,
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


def _listed(values):
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _cross_entropy(labels, scores):
    return keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)
