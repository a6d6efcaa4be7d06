"""The model that every method derives from: networks, views and a loss over the global batch."""

import functools
import inspect

import keras
from keras import ops

from keras_barlow import distribution, engine, image_scale, keras_internals, networks
from keras_barlow.pretraining import (
    arguments,
    batch_sizes,
    batch_views,
    checks,
    fit,
    penalties,
    step_logs,
    view_checks,
)
from keras_barlow.pretraining.batch_counter import CountsBatches
from keras_barlow.pretraining.constructor_config import ConstructorConfig
from keras_barlow.pretraining.engine_steps import EngineSteps, training_step
from keras_barlow.pretraining.method import Method

# Validation draws its views from this step of the table, one that training never takes.
_VALIDATION_STEP = -1


class JointEmbedding(Method, EngineSteps, networks.GivesFeatures, ConstructorConfig, CountsBatches, keras.Model):
    """Base class of methods that compare the embeddings of several views of an image.

    A method defines the hooks of `Method`; see `methods` for examples. It inherits an exact training step on any number
    of replicas and micro-batches, resume, checks and export.

    `fit` trains encoder and projector on random views of each image; labels in the data never reach the loss.
    `model(images)` and `predict` return the encoder's representation, `project` the embedding. `evaluate` returns the
    loss of random views drawn from a fixed key, in inference mode. The logs are the terms of the loss.

    Under a `tf.distribute` strategy, create the model in `strategy.scope()`. The batch size is the global one, and a
    step gives the same result as on one device (see `distribution`).

    Args:
        encoder: Built `keras.Model` from images on 0..255, `(batch, height, width, channels)`, to features
            `(batch, features)`.
        projector: Keras layer or model from features to embeddings `(batch, D)`, such as `Projector(widths)`.
        views: Layer that returns the views of a batch of images, such as `views.barlow_twins(...)` or
            `views.Views(...)`. None if the data holds pairs of views already.
        loss: `losses.Loss` of the embeddings; None for the method's own with its defaults.
        accumulation_steps: Number of micro-batches, K. A batch is trained in K parts, one at a time in memory, with
            exactly the loss and the gradient of the whole batch, at the cost of a second forward pass. Batch
            normalization uses the moments of each micro-batch; a network without it is trained as if K were 1.
        skip_nonfinite: Whether to skip a step whose loss or gradient is NaN or infinite on any replica: weights,
            statistics and optimizer stay as they were, and the log `skipped` counts it. By default such a step ends
            `fit` with an error.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        embedding_shape: `(None, D)`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255.
        training: Python boolean.

    Returns:
        Features `(batch, features)`.

    Raises:
        ValueError: If the encoder is not built, its features are not of rank 2, or the loss is not a `losses.Loss`.
    """

    def __init__(self, encoder, projector, views=None, loss=None, accumulation_steps=1, skip_nonfinite=False, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.encoder = encoder = networks.checked_encoder(encoder)
        self.projector, self.embedding_shape = networks.built(projector, encoder.output_shape, "projector")
        checks.check_accumulation_steps(accumulation_steps)
        self.views = view_checks.checked_views(views, encoder, accumulation_steps, self)
        loss = self.default_loss() if loss is None and self.default_loss else loss
        self.loss = checks.checked_loss(loss)
        self.accumulation_steps = accumulation_steps
        self.skip_nonfinite = skip_nonfinite
        self.start_counting()
        self._recorder = penalties.Recorder()
        self.minimize(self.loss)
        self.built = True

    def minimize(self, objective):
        """Sets what a step minimizes, which is `loss` unless a method adds to it.

        Args:
            objective: `losses.Loss`, whose terms become the logs.
        """
        self._objective = objective
        self._logs = step_logs.StepLogs(objective.log_names, self.skip_nonfinite)

    def forward(self, network, inputs, training):
        """Calls a network that is trained. Its activity regularizers and `add_loss` terms enter the step's loss.

        Args:
            network: Keras layer or model.
            inputs: Its inputs.
            training: Python boolean.

        Returns:
            Its outputs.
        """
        return self._recorder.call(network, inputs, training)

    def project(self, images, training=False):
        """The projector's embeddings of images.

        Args:
            images: uint8 or float tensor `(batch, height, width, channels)` on 0..255.
            training: Python boolean.

        Returns:
            Tensor `(batch, D)`.
        """
        return self.forward(self.projector, self.forward(self.encoder, images, training), training)

    def call(self, images, training=None):
        images = checks.image_of(images)
        image_scale.warn_about_scale(images)
        return self.encoder(images, training=training)

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
            jit_compile: `"auto"` compiles with XLA on one accelerator if XLA can compile the views, not on the CPU.
            auto_scale_loss: See `keras.Model.compile`.

        Raises:
            ValueError: If a loss or metrics are given, or an optimizer that needs one replica on several.
        """
        checks.check_no_targets(
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
        checks.check_optimizer(self.optimizer, distribution.strategy_of(self).num_replicas_in_sync)

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """Trains, as `keras.Model.fit`. With `callbacks.Checkpoints` it resumes an interrupted run.

        Args:
            x: Images as an array, `data.Images` or `data.Batches`; or a `tf.data.Dataset` of images, of `(images,
                labels)`, of dictionaries with `image` as TFDS has them, or of pairs of views.
            y: Labels. They never reach the loss.
            batch_size: Images per step, over all replicas. Default 32.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If an argument cannot be used, or a batch would have one image.
            RuntimeError: If another worker is lost.
            FloatingPointError: If the loss is no longer finite. It names the step.
        """
        bound = inspect.signature(super().fit).bind(x, y, batch_size, *args, **kwargs).arguments
        fit.run(self, super().fit, arguments.fit_arguments(self, bound))
        return self.history

    def evaluate(self, x=None, y=None, batch_size=None, *args, **kwargs):
        """The logs on random views drawn from a fixed key, in inference mode; see `keras.Model.evaluate`."""
        if keras_internals.is_validation_of_fit(kwargs):
            return super().evaluate(x, y, batch_size, *args, **kwargs)
        bound = inspect.signature(super().evaluate).bind(x, y, batch_size, *args, **kwargs).arguments
        return super().evaluate(**arguments.evaluate_arguments(self, bound))

    def predict(self, x, *args, **kwargs):
        """The encoder's representation `(n, features)` of images as an array, `data.Images` or a dataset, in order."""
        bound = inspect.signature(super().predict).bind(x, *args, **kwargs).arguments
        return super().predict(**arguments.predict_arguments(bound))

    @property
    def networks(self):
        """All networks that a step calls: encoder, projector, and those that the method adds."""
        return [layer for layer in self.layers if layer is not self.views]

    def train_on(self, data):
        """Trains on a batch. The trainer of the engine calls it.

        Args:
            data: Batch as `fit` gets it, with or without labels.

        Returns:
            Dictionary of the logs.
        """
        step = ops.copy(self.batch_count.value)
        update, finite = functools.partial(self._update, data, step), None
        if self.skip_nonfinite:
            scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
            variables = [*self.variables, *self.optimizer.variables]
            computed, finite = training_step.undone_unless_finite(update, variables, scaled)
        else:
            computed = update()
        self.batch_count.assign_add(1)
        return self._log(computed.terms, computed.penalty, finite)

    def _update(self, data, step):
        batch_sizes.check_even_rows(data, self.networks)
        compare = functools.partial(self._compare, step=step)
        loss_of_step = (
            self._embed,
            compare,
            self.trainable_weights,
            self.optimizer.scale_loss,
            self.non_trainable_variables,
        )
        if self.accumulation_steps == 1:
            views = batch_views.draw(data, self.views, self.encoder, step, self.row_limits, self.mixing(step))
            update = training_step.whole_batch(views, *loss_of_step)
        else:
            batch = data, self.views, self.encoder, step, self.row_limits
            count = self.accumulation_steps
            parts = batch_views.micro_batches(*batch, count, self.networks, self.mixing(step))
            update = training_step.accumulated(parts, *loss_of_step)
        training_step.apply_gradients(self.optimizer, update.gradients, self.trainable_weights)
        self.after_step(update.embeddings)
        return update

    def _embed(self, views, training=True):
        """The embeddings of views in full precision, and the penalties of the forward passes."""
        view_checks.check_count(len(views), self)
        with self._recorder as passes:
            embeddings = self.embeddings(views, training=training)
        return tuple(map(penalties.full_precision, embeddings)), passes

    def _compare(self, embeddings, step):
        """The terms of the loss and the gradients of the embeddings."""
        return training_step.value_and_gradient(self._objective, embeddings, self.constants(step))

    def test_on(self, data):
        """Evaluates a batch. The trainer of the engine calls it.

        Args:
            data: Batch as `evaluate` gets it, with or without labels.

        Returns:
            Dictionary of the logs.
        """
        step = ops.convert_to_tensor(_VALIDATION_STEP, engine.COUNT_DTYPE)
        views = batch_views.draw(data, self.views, self.encoder, step, self.row_limits, self.mixing(step))
        embeddings, passes = self._embed(views, training=False)
        terms, *_ = self._compare(embeddings, step)
        return self._log(terms, training_step.own_penalty(passes, self.trainable_weights, embeddings[0]))

    def _log(self, *step):
        self._logs.update(*step)
        return self.get_metrics_result()

    @property
    def metrics(self):
        return self._logs.metrics
