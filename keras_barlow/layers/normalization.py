"""Batch normalization with TensorFlow's fused kernel, optionally synchronized over replicas."""

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import distribution, engine, keras_internals


@keras.saving.register_keras_serializable(package="keras_barlow")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with TensorFlow's fused kernel.

    Keras 3 computes batch normalization in a dozen separate kernels, which took half the time of a training step on the
    CPU (keras-team/keras-core#225). This layer computes the same values in one kernel, including the biased moving
    variance of Keras. With `synchronized=True`, the replicas exchange one sum of `2 C + 1` numbers in the forward pass
    and one of `2 C` in the backward pass, for C channels. They may have different numbers of rows, or none. The layer
    falls back to Keras for an axis other than the last, a mask, renormalization, and float64.

    The defaults follow the PyTorch code of the paper: momentum 0.9, epsilon 1e-5.

    Args:
        momentum: Momentum of the moving statistics: the fraction that an update keeps.
        epsilon: Small float that is added to the variance.
        **kwargs: Keyword arguments of `keras.layers.BatchNormalization`.

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
        if engine.on_jax() and self._is_plain(inputs, mask):
            return self._call_on_jax(inputs, training and self.trainable)
        if not self._supports_fused_kernel(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones((channels,))
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros((channels,))
        shape = ops.shape(inputs)
        # The kernel expects images, so reshape inputs of other ranks to 1 x 1 images.
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
            self._update_statistic(self.moving_mean, mean)
            self._update_statistic(self.moving_variance, variance)
        return ops.cast(ops.reshape(outputs, shape), self.compute_dtype)

    def _call_on_jax(self, inputs, training):
        dtype = engine.full_precision(inputs.dtype)
        x = ops.cast(inputs, dtype)
        mean, variance = (ops.cast(moment, dtype) for moment in (self.moving_mean, self.moving_variance))
        if training:
            mean, variance = _moments_around(mean, x)
            self._update_statistic(self.moving_mean, mean)
            self._update_statistic(self.moving_variance, variance)
        slope = ops.rsqrt(variance + self.epsilon)
        slope = slope * ops.cast(self.gamma, dtype) if self.scale else slope
        outputs = (x - mean) * slope
        outputs = outputs + ops.cast(self.beta, dtype) if self.center else outputs
        return ops.cast(outputs, self.compute_dtype)

    def _is_plain(self, inputs, mask):
        # Keras before 3.14 has no renormalization.
        return mask is None and not getattr(self, "renorm", False) and self.axis in (-1, len(inputs.shape) - 1)

    def _supports_fused_kernel(self, inputs, mask):
        dtypes = ("float32", "float16", "bfloat16")
        return self._is_plain(inputs, mask) and keras.backend.standardize_dtype(inputs.dtype) in dtypes

    def _update_statistic(self, statistic, value):
        # Compute in float32 even if a pure bfloat16 or float16 policy stores the statistic in lower precision.
        average = ops.cast(statistic, value.dtype) * self.momentum + value * (1.0 - self.momentum)
        statistic.assign(ops.cast(average, statistic.dtype))


def _moments_around(near_mean, x):
    """The mean and the biased variance over all axes but the last, from two sums that the compiler combines.

    Args:
        near_mean: Tensor `(C,)`. Summing squares around a value close to the mean preserves the precision of the
            variance.
        x: Tensor `(..., C)`: on JAX the global batch.

    Returns:
        The pair `(mean, variance)`.
    """
    near_mean, axes = ops.stop_gradient(near_mean), tuple(range(len(x.shape) - 1))
    shift, square = ops.mean(x - near_mean, axis=axes), ops.mean(ops.square(x - near_mean), axis=axes)
    return near_mean + shift, ops.maximum(square - ops.square(shift), 0.0)


def _normalize(images, gamma, beta, epsilon):
    """Normalizes by the moments of the batch. Returns `(outputs, mean, biased variance)`."""
    outputs, mean, sample_variance = tf.compat.v1.nn.fused_batch_norm(
        images, gamma, beta, epsilon=epsilon, is_training=True
    )
    # The kernel returns the variance with Bessel's correction.
    count = ops.cast(ops.size(images) // images.shape[-1], "float32")
    return outputs, mean, sample_variance * (count - 1.0) / count


def _normalize_over_replicas(images, gamma, beta, epsilon, near_mean):
    """Normalizes by the moments of all replicas.

    The kernel treats the moments as constants, so a custom gradient adds the missing terms.

    Args:
        images: Tensor `(n, height, width, C)`, where `n` may differ between replicas and may be 0.
        gamma: Scale, a float32 tensor `(C,)`.
        beta: Shift, a float32 tensor `(C,)`.
        epsilon: Small float that is added to the variance.
        near_mean: Float32 tensor `(C,)`, equal on all replicas. Summing squares around a value close to the mean
            preserves the precision of the variance.

    Returns:
        The triple `(outputs, mean, variance)`, with the moments of all replicas.
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
            # With fixed moments: d * gamma / s, sum(d * x_hat) and sum(d) over the rows of this replica.
            d_fixed, d_gamma, d_beta, _, _ = tf.raw_ops.FusedBatchNormGradV3(
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
            # The moments depend on the rows: subtract gamma / s * (mean(d) + x_hat * mean(d * x_hat)).
            deviation = tf.sqrt(variance + epsilon)
            slope = gamma * means[:channels] / tf.square(deviation)
            offset = gamma * means[channels:] / deviation - slope * mean
            d_images = tf.cast(d_fixed, tf.float32) - (tf.cast(images, tf.float32) * slope + offset)
            return tf.cast(d_images, images.dtype), d_gamma, d_beta

        return outputs, gradient

    return apply(images, gamma, beta), mean, variance


def synchronize_batch_norm(model, synchronized=True):
    """Converts the batch normalization of a backbone to the synchronized, fused layer, or back to that of Keras.

    The layers are converted in place, also in nested models, so their names and weights and the graph of the model stay
    the same. Call this function before the model is trained or traced.

    Args:
        model: `keras.Model` with batch normalization layers of Keras or of this package.
        synchronized: If True, convert to synchronized `BatchNormalization` layers. If False, convert to unsynchronized
            Keras layers, so that the saved model loads without this package.

    Returns:
        `model`.

    Raises:
        ValueError: If the model has no batch normalization layers.

    Example:

    >>> backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization()])
    >>> synchronize_batch_norm(backbone).layers[0].synchronized
    True
    """
    classes = (keras.layers.BatchNormalization, BatchNormalization)
    layers = [layer for layer in keras_internals.flat_layers(model) if type(layer) in classes]
    if not layers:
        raise ValueError(
            "The model must have batch normalization layers. "
            f"Received: model={model.name!r}, which has none. Use it without synchronization."
        )
    for layer in layers:
        # The subclass adds no state, so a layer can change its class and keep its weights.
        keras_internals.change_class(layer, BatchNormalization if synchronized else keras.layers.BatchNormalization)
        layer.synchronized = synchronized
    return model
