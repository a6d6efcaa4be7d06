"""The model: one encoder, two views, one loss over the global batch."""

import inspect

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import (
    asymmetry,
    distribution,
    fitting,
    image_scale,
    inputs,
    losses,
    networks,
    penalties,
    tensorflow_step,
    training_data,
)
from keras_barlow import views as view_policies

_PARTS = ("encoder", "projector", "views", "loss", "predictor")

# Validation draws its views from this step of the table, one that training never takes.
_VALIDATION_STEP = -1


@keras.saving.register_keras_serializable(package="keras_barlow")
class BarlowTwins(networks.GivesFeatures, keras.Model):
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
        accumulation_steps: K: a batch is trained in K micro-batches, of which one at a time is in memory, with the
            loss and the gradient of the whole batch, exactly. It costs a second forward pass. What stays per
            micro-batch is the batch normalisation inside encoder and projector; a network without it is trained as
            if K were 1.
        predictor: Built or unbuilt layer from embeddings to embeddings of the same width, through which view A alone
            goes (`Projector((D, D))`), as in BYOL and SimSiam; the paper's Table 6 has it as an ablation. None: none.
        stop_gradient: True to let no gradient through view B, the other half of that ablation.
        moving_average: m in [0, 1): view B goes through another network, `t <- m t + (1 - m) w` after every step, and
            gives no gradient, as in BYOL. None: the twins are one network.
        skip_nonfinite: True to leave out a step whose loss or gradient is NaN or infinite, on any replica: weights,
            statistics and optimizer stay as they were, and the logs count it, `skipped`. By default such a step ends
            `fit` with an error.
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

    def __init__(
        self,
        encoder,
        projector,
        views=None,
        loss=None,
        accumulation_steps=1,
        skip_nonfinite=False,
        predictor=None,
        stop_gradient=False,
        moving_average=None,
        **kwargs,
    ):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.encoder = encoder = networks.checked_encoder(encoder)
        self.projector, embedding_shape = networks.built(projector, encoder.output_shape, "projector")
        self.views = views
        self.loss = losses.BarlowTwinsLoss() if loss is None else loss
        if accumulation_steps < 1:
            raise ValueError(
                f"`accumulation_steps` must be at least 1. Received: accumulation_steps={accumulation_steps}"
            )
        if accumulation_steps > 1:
            inputs.check_views_repeat(views, encoder)
        self.accumulation_steps = accumulation_steps
        self.skip_nonfinite = skip_nonfinite
        self.predictor = asymmetry.checked_predictor(predictor, embedding_shape)
        self.stop_gradient = stop_gradient
        self.moving_average = moving_average
        self.target = asymmetry.slow_copies(encoder, projector, moving_average)
        self._counter = tensorflow_step.BatchCounter()
        self._trackers = [keras.metrics.Mean(name=name) for name in losses.LossTerms._fields]
        self._skipped = [keras.metrics.Sum(name="skipped")] if skip_nonfinite else []
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
            ValueError: If a loss or metrics are given, or an optimizer that needs one replica on several.
        """
        inputs.check_no_targets(
            loss=loss, loss_weights=loss_weights, metrics=metrics, weighted_metrics=weighted_metrics
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
        inputs.check_optimizer(self.optimizer, self.distribute_strategy.num_replicas_in_sync)

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """Trains, as `keras.Model.fit`; goes on where an interrupted run stopped, with `callbacks.Checkpoints`.

        A NaN or infinite loss stops the run with an error that names the step.

        Args:
            x: Images as an array, `data.Images` or `data.Batches`; or a `tf.data.Dataset` of images, of `(images,
                labels)`, of dictionaries with `image` as TFDS has them, or of pairs of views; see the class.
            y: Labels. They never reach the loss.
            batch_size: Images per step, over all replicas. Default 32.
            *args: Those of `keras.Model.fit`.
            **kwargs: Those of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If an array leaves a last batch of one image, or several workers are to train on an array.
            RuntimeError: If another worker is lost.
            FloatingPointError: If the loss is no longer finite.
        """
        arguments = inspect.signature(super().fit).bind(x, y, batch_size, *args, **kwargs).arguments
        given = training_data.fit_arguments(self, arguments)
        with fitting.prepared(self, given):
            super().fit(**given)
        return self.history

    def evaluate(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """The three logs on random views drawn from a fixed key, in inference mode; see `keras.Model.evaluate`."""
        if kwargs.get("_use_cached_eval_dataset"):
            # `fit` validates, on what it has checked already.
            return super().evaluate(x, y, batch_size, *args, **kwargs)
        arguments = inspect.signature(super().evaluate).bind(x, y, batch_size, *args, **kwargs).arguments
        return super().evaluate(**training_data.evaluate_arguments(self, arguments))

    def predict(self, x, *args, **kwargs):
        """The encoder's representation, `(n, features)`, of an array, `data.Images` or a dataset of images.

        See `keras.Model.predict`.
        """
        arguments = inspect.signature(super().predict).bind(x, *args, **kwargs).arguments
        return super().predict(**training_data.predict_arguments(arguments))

    @property
    def batch_count(self):
        """Number of batches trained on, an int64 variable: which row of the table of random numbers is next.

        It is not a weight. Checkpoints and `.keras` files hold it.
        """
        return self._counter.variable

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["batch_count"] = self.batch_count.numpy()

    def load_own_variables(self, store):
        # Files of earlier versions do not have it.
        if "batch_count" in store:
            self.batch_count.assign(store["batch_count"])

    def call(self, images, training=None):
        images = inputs.image_of(images)
        image_scale.tell_scale(images)
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
        step = tf.identity(self.batch_count.value)
        if self.skip_nonfinite:
            result = tensorflow_step.undone_unless_finite(lambda: self._trained(data, step), self)
        else:
            result = self._trained(data, step)[:2]
        self.batch_count.assign_add(1)
        return self._log(*result)

    def _trained(self, data, step):
        """One step: its terms of the loss, this replica's share of the penalties, and the gradient that was applied."""
        inputs.check_even_rows(data, self)
        if self.accumulation_steps > 1:
            parts = tensorflow_step.micro_batches(self, inputs.unpacked_images(data), step)
        else:
            parts = [lambda after: self._draw_views(data, step)]
        if len(parts) == 1:
            with tf.GradientTape() as tape:
                embeddings, passes = self._embed(parts[0])
                penalty = self._penalty(passes, embeddings[0])
            terms, *gradients = self._value_and_gradient(*embeddings)
            gradients = self._carry_back(tape, embeddings, gradients, penalty)
        else:
            terms, gradients, penalty = tensorflow_step.accumulated(self, parts)
        tensorflow_step.apply_gradients(self.optimizer, gradients, self.trainable_weights)
        asymmetry.follow(self.target, (self.encoder, self.projector), self.moving_average)
        return terms, penalty, gradients

    def _embed(self, part, after=()):
        """The embeddings of a part of the batch, in full precision, and the penalties of its forward passes."""
        embeddings, passes = self._twins(*part(after), training=True)
        return tuple(penalties.full_precision(z) for z in embeddings), passes

    def _twins(self, view_a, view_b, training):
        """The embeddings of both views, and the penalties of the passes that are trained.

        The twins are alike unless one of the ablations sets them apart.
        """
        z_a = self.project(view_a, training=training)
        if self.predictor is not None:
            z_a = self.predictor(z_a, training=training)
        passes = penalties.of_pass(self.encoder, self.projector, self.predictor)
        if self.target:
            encoder, projector = self.target
            z_b = projector(encoder(view_b, training=training), training=training)
        else:
            z_b = self.project(view_b, training=training)
            passes += penalties.of_pass(self.encoder, self.projector)
        return (z_a, ops.stop_gradient(z_b) if self.stop_gradient or self.target else z_b), passes

    def _value_and_gradient(self, z_a, z_b):
        # The rows of the global batch where they are known while tracing: `fit` gives every replica as many.
        total = None if z_a.shape[0] is None else z_a.shape[0] * distribution.replica_count()
        return self.loss.value_and_gradient(z_a, z_b, total)

    def _penalty(self, passes, batch, parts=1, part=None):
        """This replica's share of the penalties, or that of a micro-batch `part` of its `batch`; None without any."""

        def row_share():
            _, total = distribution.own_rows(ops.shape(batch)[0])
            return ops.cast(ops.shape(batch if part is None else part)[0], "float64") / ops.cast(total, "float64")

        return penalties.own_share(passes, self.trainable_weights, parts * distribution.replica_count(), row_share)

    def _carry_back(self, tape, embeddings, gradients, penalty):
        """From the gradient of the embeddings to that of the weights, step 3 of the contract in `distribution`."""
        targets = [*embeddings] if penalty is None else [*embeddings, penalty]
        gradients = [*gradients] if penalty is None else [*gradients, ops.ones_like(penalty)]
        return tape.gradient(
            targets,
            [weight.value for weight in self.trainable_weights],
            output_gradients=[self.optimizer.scale_loss(gradient) for gradient in gradients],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    def test_step(self, data):
        view_a, view_b = self._draw_views(data, _VALIDATION_STEP)
        embeddings, passes = self._twins(view_a, view_b, training=False)
        terms, _, _ = self.loss.value_and_gradient(*embeddings)
        return self._log(terms, self._penalty(passes, embeddings[0]))

    def _draw_views(self, data, step):
        """The two views of a batch: drawn from its images, or the pair that it holds."""
        x = inputs.unpacked_images(data)
        if self.views is None:
            view_a, view_b = inputs.checked_pair(x, self.encoder)
        else:
            view_a, view_b = view_policies.drawn(self.views, self.images_of(x), step)
            inputs.check_shapes(view_a, view_b)
        inputs.check_view_shape(view_a, self.encoder)
        return inputs.checked_rows(view_a), view_b

    def images_of(self, x):
        """The images of a batch, checked; a pair of crops where the views leave the crop out."""
        return inputs.checked_images(x, self.encoder, crops=getattr(self.views, "takes_crops", False))

    def _log(self, terms, penalty, finite=None):
        values = terms
        if penalty is not None:
            # The trackers take a mean over the replicas, of penalties that add up.
            values = terms._replace(loss=terms.loss + penalty * distribution.replica_count())
        # Every replica adds its share, so that a checkpoint's sums do not depend on their number.
        share = tf.constant(1.0 / distribution.replica_count())
        if finite is not None:
            values = [tf.where(finite, value, 0.0) for value in values]
            for tracker in self._skipped:
                tracker.update_state(tf.where(finite, 0.0, share))
            share = tf.where(finite, share, 0.0)
        for tracker, value in zip(self._trackers, values, strict=True):
            tracker.update_state(value, sample_weight=share)
        return self.get_metrics_result()

    @property
    def metrics(self):
        return self._trackers + self._skipped

    def get_config(self):
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _PARTS},
            "accumulation_steps": self.accumulation_steps,
            "skip_nonfinite": self.skip_nonfinite,
            "stop_gradient": self.stop_gradient,
            "moving_average": self.moving_average,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        # A model that was saved before it could have one has no predictor.
        for name in set(_PARTS) & set(config):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
        return cls(**config)
