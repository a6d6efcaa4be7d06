"""The model: one encoder, two views, one loss over the global batch."""

import inspect
import math

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import callbacks, distribution, losses

# Validation draws its views from this step of the table, one that training never takes.
_VALIDATION_STEP = -1


@keras.saving.register_keras_serializable(package="keras_barlow")
class BarlowTwins(keras.Model):
    """Barlow Twins pre-training as a `keras.Model`.

    `fit` trains encoder and projector on two random views of each image; labels that the data may hold never
    reach the loss. `model(images)` and `predict` give the encoder's representation, `project` the embedding.
    `evaluate` gives the loss of random views drawn from a fixed key, in inference mode. Logs: `loss`,
    `invariance` (sum of (1 - C_ii)^2) and `redundancy` (sum of C_ij^2 off the diagonal, without its weight).

    Under a `tf.distribute` strategy, create the model in `strategy.scope()`; the batch size is the global one
    and the step is that of one device on the global batch (see `distribution`).

    Args:
        encoder: Built `keras.Model` from images on 0..255, `(batch, height, width, channels)`, to features
            `(batch, features)`.
        projector: Keras layer or model from features to embeddings `(batch, D)`, `Projector(widths)`.
        views: Layer that gives `(view_a, view_b)` for a batch of images, `views.barlow_twins(...)` or
            `views.Views(...)`. None if the data holds pairs already.
        loss: `losses.BarlowTwinsLoss`; None for its defaults.
        **kwargs: Those of `keras.Model`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255.
        training: Python boolean.

    Returns:
        Features `(batch, features)`.

    Raises:
        ValueError: If the encoder is not built, or gives no features of rank 2.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = BarlowTwins(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.barlow_twins(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), dtype="uint8")
    >>> history = model.fit(images, batch_size=4, epochs=1, verbose=0)
    >>> sorted(history.history)
    ['invariance', 'loss', 'redundancy']

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230
    """

    def __init__(self, encoder, projector, views=None, loss=None, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.encoder = _checked_encoder(encoder)
        self.projector = projector
        self.views = views
        self.loss = losses.BarlowTwinsLoss() if loss is None else loss
        if not projector.built:
            projector.build(encoder.output_shape)
        self._trackers = [keras.metrics.Mean(name=name) for name in losses.LossTerms._fields]
        self.built = True

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Configures training, as `keras.Model.compile` without a loss or metrics.

        Args:
            optimizer: Name or instance of a Keras optimizer.
            loss: Refused: the loss is an argument of the constructor.
            loss_weights: Refused.
            metrics: Refused: there are no targets. Probes are callbacks (`callbacks.KNNProbe`).
            weighted_metrics: Refused.
            run_eagerly: See `keras.Model.compile`.
            steps_per_execution: See `keras.Model.compile`.
            jit_compile: `"auto"` compiles with XLA where that pays: on one accelerator, with views that XLA
                can compile; not on the CPU.
            auto_scale_loss: See `keras.Model.compile`.

        Raises:
            ValueError: If a loss or metrics are given.
        """
        refused = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        for name, value in refused.items():
            if value is not None:
                raise ValueError(
                    f"`compile({name}=...)` is not taken: Barlow Twins has no targets, and its loss belongs to the "
                    f"constructor. Received: {name}={value!r}. Use BarlowTwins(..., loss=BarlowTwinsLoss(...)), and "
                    "callbacks such as KNNProbe in place of metrics."
                )
        if jit_compile == "auto" and not distribution.compiling_pays(self):
            jit_compile = False
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """Trains, as `keras.Model.fit`.

        A NaN or infinite loss stops the run with an error that names the step.

        Args:
            x: Images as an array or a `tf.data.Dataset`; see the class for what a dataset may hold.
            y: Labels. They never reach the loss.
            batch_size: Images per step, over all replicas. Default 32.
            *args: Those of `keras.Model.fit`.
            **kwargs: Those of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If an array leaves a last batch of one image.
            FloatingPointError: If the loss is no longer finite.
        """
        given = inspect.signature(super().fit).bind(x, y, batch_size, *args, **kwargs).arguments
        if isinstance(x, tf.data.Dataset):
            # Keras' default is to shuffle, and to warn that it cannot shuffle a dataset.
            given.setdefault("shuffle", False)
        elif given.get("steps_per_epoch") is None:
            _check_last_batch(x, batch_size, given.get("validation_split", 0.0))
        stop = callbacks.StopOnNonFiniteLoss()
        known = given.get("callbacks")
        if isinstance(known, keras.callbacks.CallbackList):
            known.append(stop)
        else:
            given["callbacks"] = [*tf.nest.flatten(known or []), stop]
        return super().fit(**given)

    def evaluate(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """The three logs on random views drawn from a fixed key, in inference mode; see `keras.Model.evaluate`."""
        if not isinstance(x, tf.data.Dataset):
            _check_last_batch(x, batch_size)
        return super().evaluate(x, y, batch_size, *args, **kwargs)

    def call(self, images, training=None):
        return self.encoder(images, training=training)

    def project(self, images, training=False):
        """The embeddings that the loss sees.

        Args:
            images: uint8 or float tensor `(batch, height, width, channels)` on 0..255.
            training: Python boolean.

        Returns:
            Tensor `(batch, D)`.
        """
        return self.projector(self.encoder(images, training=training), training=training)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a strategy Keras builds a model from the mean of the replicas' first batches, which fails where
        # their rows differ, or the batch holds pairs. This model is built already; only the optimizer is not.
        optimizer = getattr(self, "optimizer", None)
        if self._distribute_strategy is not None and optimizer is not None and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)

    def train_step(self, data):
        view_a, view_b = self._draw_views(data, self.optimizer.iterations)
        with tf.GradientTape() as tape:
            z_a = ops.cast(self.project(view_a, training=True), "float32")
            z_b = ops.cast(self.project(view_b, training=True), "float32")
            penalties = self.losses
        terms, dz_a, dz_b = self.loss.value_and_gradient(z_a, z_b)
        # Each replica adds its own penalties and the optimizer sums over replicas.
        share = ops.full((), 1.0 / distribution.replica_count())
        output_gradients = [dz_a, dz_b] + [share] * len(penalties)
        gradients = tape.gradient(
            [z_a, z_b, *penalties],
            [weight.value for weight in self.trainable_weights],
            output_gradients=[self.optimizer.scale_loss(gradient) for gradient in output_gradients],
        )
        self.optimizer.apply(gradients, self.trainable_weights)
        return self._log(terms, penalties)

    def test_step(self, data):
        view_a, view_b = self._draw_views(data, _VALIDATION_STEP)
        terms, _, _ = self.loss.value_and_gradient(self.project(view_a), self.project(view_b))
        return self._log(terms, self.losses)

    def _draw_views(self, data, step):
        """The two views of a batch: drawn from its images, or the pair that it holds."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self.views is None:
            view_a, view_b = _checked_pair(x)
        else:
            view_a, view_b = self.views(_checked_images(x), training=True, step=step)
            _check_shapes(view_a, view_b)
        return _checked_rows(view_a), view_b

    def _log(self, terms, penalties):
        values = terms._replace(loss=terms.loss + sum(penalties))
        for tracker, value in zip(self._trackers, values, strict=True):
            tracker.update_state(value)
        return self.get_metrics_result()

    @property
    def metrics(self):
        return self._trackers

    def get_config(self):
        parts = {"encoder": self.encoder, "projector": self.projector, "views": self.views, "loss": self.loss}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("encoder", "projector", "views", "loss"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)


def _checked_encoder(encoder):
    if not isinstance(encoder, keras.Model) or not encoder.built:
        raise ValueError(
            "`encoder` must be a built keras.Model, so that its output shape is known. "
            f"Received: encoder={encoder!r}. Give it a keras.Input, or call it on one batch of images first."
        )
    if len(encoder.output_shape) != 2:
        raise ValueError(
            "`encoder` must map images to features of shape (batch, features). "
            f"Received: encoder.output_shape={encoder.output_shape}. End it with GlobalAveragePooling2D."
        )
    return encoder


def _checked_images(x):
    if isinstance(x, (tuple, list)):
        raise ValueError(
            f"This model draws the views by itself, from one batch of images. Received: {len(x)} tensors as input. "
            "Pass views=None to BarlowTwins where the data holds pairs of views already."
        )
    if len(x.shape) != 4:
        raise ValueError(
            f"Images must have the shape (batch, height, width, channels). Received: images.shape={tuple(x.shape)}"
        )
    return x


def _checked_pair(x):
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            "With views=None the data must hold pairs: ((view_a, view_b),) or ((view_a, view_b), labels). "
            f"Received: {'single images' if not isinstance(x, (tuple, list)) else f'{len(x)} tensors'} as input. "
            "Pass views=keras_barlow.views.barlow_twins(image_size) to draw the views in the model."
        )
    _check_shapes(*x)
    return tuple(_checked_images(view) for view in x)


def _check_shapes(view_a, view_b):
    if not view_a.shape.is_compatible_with(view_b.shape):
        raise ValueError(
            "The two views must have one shape. "
            f"Received: view_a.shape={tuple(view_a.shape)}, view_b.shape={tuple(view_b.shape)}"
        )


_ONE_IMAGE = (
    "A batch of 1 image cannot be trained on: the loss correlates features over the batch, so a batch needs at "
    "least 2 images. "
)


def _checked_rows(view):
    """Refuses a global batch of one image, while tracing where the size is known, else in the step."""
    rows = ops.shape(view)[0]
    _, total = distribution.own_rows(rows)
    if isinstance(total, int):
        if total < 2:
            raise ValueError(f"{_ONE_IMAGE}Received: images.shape={tuple(view.shape)}. Use a larger batch.")
        return view
    remedy = "Use a larger batch, or .batch(n, drop_remainder=True) where the last one is left with 1 image."
    with tf.control_dependencies([tf.debugging.assert_greater(total, 1, message=_ONE_IMAGE + remedy)]):
        return tf.identity(view)


def _check_last_batch(x, batch_size, validation_split=0.0):
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
