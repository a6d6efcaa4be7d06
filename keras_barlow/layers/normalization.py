"""Batch normalization on TensorFlow's fused kernel, synchronized over replicas if asked."""

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, keras_internals


@keras.saving.register_keras_serializable(package="keras_barlow")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` on TensorFlow's fused kernel.

    Keras 3 computes batch normalisation as a dozen separate kernels, which took half of the time of a
    training step on the CPU (keras-team/keras-core#225). This layer gives the same numbers (the moving
    variance is the biased one, as in Keras) from one kernel. With `synchronized=True` the replicas exchange one sum of
    `2 C + 1` numbers forward and one of `2 C` backward, for C channels; they may have different numbers of rows, or
    none. Keras' route remains for an axis other than the last, a mask, renormalisation and float64.

    The defaults are those of the paper's code (PyTorch): momentum 0.9, epsilon 1e-5.

    Args:
        momentum: Share of the moving statistics that one update keeps.
        epsilon: Added to the variance.
        **kwargs: Those of `keras.layers.BatchNormalization`.

    Example:

    >>> import numpy as np
    >>> layer = BatchNormalization()
    >>> outputs = layer(np.random.default_rng(0).normal(3, 5, (64, 4)), training=True)
    >>> abs(float(np.mean(outputs))) < 1e-5
    True
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not self._fused_kernel_serves(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones((channels,))
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros((channels,))
        shape = ops.shape(inputs)
        # The kernel takes images; every other rank is a column of 1 x 1 images.
        images = inputs if len(shape) == 4 else ops.reshape(inputs, (-1, 1, 1, channels))
        if not (training and self.trainable):
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                images,
                gamma,
                beta,
                ops.cast(self.moving_mean, "float32"),
                ops.cast(self.moving_variance, "float32"),
                epsilon=self.epsilon,
                is_training=False,
            )
        else:
            if self.synchronized and distribution.replica_count() > 1:
                near_mean = ops.cast(self.moving_mean, "float32")
                outputs, mean, variance = _normalize_over_replicas(images, gamma, beta, self.epsilon, near_mean)
            else:
                outputs, mean, variance = _normalize(images, gamma, beta, self.epsilon)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        return ops.cast(ops.reshape(outputs, shape), self.compute_dtype)

    def _fused_kernel_serves(self, inputs, mask):
        return (
            mask is None
            # Keras before 3.14 has no renormalization.
            and not getattr(self, "renorm", False)
            and self.axis in (-1, len(inputs.shape) - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
        )

    def _move(self, statistic, value):
        # In float32, also where a pure bfloat16 or float16 policy stores the statistic in less.
        moved = ops.cast(statistic, "float32") * self.momentum + value * (1.0 - self.momentum)
        statistic.assign(ops.cast(moved, statistic.dtype))


def _normalize(images, gamma, beta, epsilon):
    """The kernel that takes the moments by itself. Returns `(outputs, mean, biased variance)`."""
    outputs, mean, sample_variance = tf.compat.v1.nn.fused_batch_norm(
        images, gamma, beta, epsilon=epsilon, is_training=True
    )
    # The kernel reports the variance with Bessel's correction.
    count = ops.cast(ops.size(images) // images.shape[-1], "float32")
    return outputs, mean, sample_variance * (count - 1.0) / count


def _normalize_over_replicas(images, gamma, beta, epsilon, near_mean):
    """Normalises by the moments of all replicas: the kernel applies them, and its gradient is completed by hand.

    Args:
        images: `(n, height, width, C)`; `n` may differ between replicas and be 0.
        gamma: `(C,)`.
        beta: `(C,)`.
        epsilon: Added to the variance.
        near_mean: `(C,)`, the same on every replica: the variance is summed around it, which keeps its digits.

    Returns:
        The triple `(outputs, mean, variance)`, moments over all replicas.
    """
    channels = images.shape[-1]
    shifted = tf.cast(images, tf.float32) - near_mean
    count = tf.reshape(tf.cast(tf.size(images) // channels, tf.float32), (1,))
    sums = [tf.reduce_sum(shifted, (0, 1, 2)), tf.reduce_sum(tf.square(shifted), (0, 1, 2)), count]
    sums = distribution.sum_over_replicas(tf.stop_gradient(tf.concat(sums, axis=0)))
    total = sums[-1]
    shift = sums[:channels] / total
    mean = near_mean + shift
    variance = tf.maximum(sums[channels:-1] / total - tf.square(shift), 0.0)

    @tf.custom_gradient
    def apply(images, gamma, beta):
        outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
            images, gamma, beta, mean, variance, epsilon=epsilon, is_training=False
        )

        def gradient(upstream):
            # This kernel holds the moments fixed: d * gamma / s, sum(d * x_hat) and sum(d) of the own rows.
            own, d_gamma, d_beta, _, _ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=upstream,
                x=images,
                scale=gamma,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=tf.zeros((0,)),
                epsilon=epsilon,
                is_training=False,
            )
            means = distribution.sum_over_replicas(tf.concat([d_gamma, d_beta], axis=0)) / total
            # The moments move with the rows: subtract gamma / s * (mean(d) + x_hat * mean(d * x_hat)).
            deviation = tf.sqrt(variance + epsilon)
            slope = gamma * means[:channels] / tf.square(deviation)
            offset = gamma * means[channels:] / deviation - slope * mean
            d_images = tf.cast(own, tf.float32) - (tf.cast(images, tf.float32) * slope + offset)
            return tf.cast(d_images, images.dtype), d_gamma, d_beta

        return outputs, gradient

    return apply(images, gamma, beta), mean, variance


def synchronize_batch_norm(model, synchronized=True):
    """Makes the batch normalisation of a Keras backbone synchronised and fast, or gives it back to Keras.

    The layers change where they stand: graph, names, weights and optimizers that know them stay, nested models
    included. Call it before the model is trained or compiled into a function.

    Args:
        model: `keras.Model` whose `keras.layers.BatchNormalization` layers, and those of this library, are changed.
        synchronized: True: every one becomes a synchronised `normalization.BatchNormalization`. False: every one
            becomes Keras' own layer, unsynchronised, so that the model loads without this library.

    Returns:
        `model`.

    Raises:
        ValueError: If the model has no batch normalisation.

    Example:

    >>> backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization()])
    >>> synchronize_batch_norm(backbone).layers[0].synchronized
    True
    """
    known = (keras.layers.BatchNormalization, BatchNormalization)
    layers = [layer for layer in keras_internals.flat_layers(model) if type(layer) in known]
    if not layers:
        raise ValueError(
            "The model must have layers of batch normalisation. "
            f"Received: model={model.name!r}, which has none. It needs no synchronisation."
        )
    for layer in layers:
        # The subclass has no state of its own, so that a layer can change its class and keep its weights.
        keras_internals.change_class(layer, BatchNormalization if synchronized else keras.layers.BatchNormalization)
        layer.synchronized = synchronized
    return model
