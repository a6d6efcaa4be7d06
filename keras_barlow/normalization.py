"""Normalisation layers: a fast `BatchNormalization`, and `Standardize` for images."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_barlow import distribution


@keras.saving.register_keras_serializable(package="keras_barlow")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` on TensorFlow's fused kernel.

    Keras 3 computes batch normalisation as a dozen separate kernels, which took half of the time of a
    training step on the CPU (keras-team/keras-core#225). This layer gives the same numbers (the moving
    variance is the biased one, as in Keras) from one kernel. It keeps Keras' route where the fused kernel
    does not serve: an axis other than the last, inference mode, a mask, renormalisation, float64, and
    `synchronized=True` with several replicas.

    The defaults are those of the paper's code (PyTorch): momentum 0.9, epsilon 1e-5.

    Args:
        momentum: Share of the moving statistics that one update keeps.
        epsilon: Added to the variance.
        **kwargs: Those of `keras.layers.BatchNormalization`.

    Example:

    >>> layer = BatchNormalization()
    >>> outputs = layer(np.random.default_rng(0).normal(3, 5, (64, 4)), training=True)
    >>> abs(float(np.mean(outputs))) < 1e-5
    True
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and self._fused_kernel_serves(inputs, mask)):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones((channels,))
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros((channels,))
        shape = ops.shape(inputs)
        # The kernel takes images; every other rank is a column of 1 x 1 images.
        images = inputs if len(shape) == 4 else ops.reshape(inputs, (-1, 1, 1, channels))
        outputs, mean, sample_variance = tf.compat.v1.nn.fused_batch_norm(
            images, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        self._move(self.moving_mean, mean)
        # The kernel reports the variance with Bessel's correction.
        count = ops.cast(ops.size(images) // channels, "float32")
        self._move(self.moving_variance, sample_variance * (count - 1.0) / count)
        return ops.cast(ops.reshape(outputs, shape), self.compute_dtype)

    def _fused_kernel_serves(self, inputs, mask):
        return (
            mask is None
            and not self.renorm
            and self.axis in (-1, len(inputs.shape) - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            and not (self.synchronized and distribution.replica_count() > 1)
        )

    def _move(self, statistic, value):
        statistic.assign(statistic * self.momentum + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="keras_barlow")
class Standardize(keras.layers.Layer):
    """Standardises images on 0..255: `(x - 255 mean) / (255 deviation)`, channel by channel.

    The first layer of every encoder here, so that training, `predict` and the export cannot disagree about
    the scale. It computes in float32 also under a mixed policy: bfloat16 would round 254.6 to 255 first.

    Args:
        mean: One float, or one per channel, on [0, 1].
        deviation: The same, positive.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(..., channels)` on 0..255.

    Returns:
        Tensor of the same shape in the layer's compute dtype.

    Example:

    >>> layer = Standardize(mean=0.5, deviation=0.25)
    >>> np.asarray(layer(np.full((1, 1, 1, 3), 255.0))).tolist()
    [[[[2.0, 2.0, 2.0]]]]
    """

    def __init__(self, mean, deviation, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.mean = tuple(np.atleast_1d(mean).astype(float).tolist())
        self.deviation = tuple(np.atleast_1d(deviation).astype(float).tolist())
        if min(self.deviation) <= 0:
            raise ValueError(f"`deviation` must be positive. Received: deviation={deviation}")

    def call(self, images):
        images = ops.cast(images, "float32")
        mean = 255.0 * np.array(self.mean, "float32")
        deviation = 255.0 * np.array(self.deviation, "float32")
        return ops.cast((images - mean) / deviation, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "deviation": self.deviation}
