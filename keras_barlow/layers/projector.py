"""The projector: from the encoder's features to the embeddings that the loss sees."""

import numbers

import keras
from keras import layers

from keras_barlow.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="keras_barlow")
class Projector(keras.layers.Layer):
    """A multi-layer perceptron with batch normalisation and ReLU between its linear layers.

    The last layer is linear alone: the loss standardises the embeddings by itself (the "BN without scale and
    shift" of the reference).

    Args:
        widths: Output width of each linear layer; the last is D, the size of the embeddings. The paper:
            `(8192, 8192, 8192)`.
        use_bias: Whether the linear layers have biases. The paper: no.
        use_batch_norm: Whether to normalise after all but the last layer.
        synchronized: Whether batch normalisation takes its moments over all replicas.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, features)`.
        training: Python boolean: moments of the batch, or the moving ones.

    Returns:
        Tensor `(batch, widths[-1])` in the layer's compute dtype.

    Raises:
        ValueError: If `widths` is empty or has a width that is no positive integer.

    Example:

    >>> projector = Projector((256, 256))
    >>> projector(keras.random.normal((8, 64)), training=True).shape
    TensorShape([8, 256])
    """

    def __init__(self, widths=(8192, 8192, 8192), use_bias=False, use_batch_norm=True, synchronized=False, **kwargs):
        super().__init__(**kwargs)
        widths = widths if isinstance(widths, (tuple, list)) else (widths,)
        integers = all(isinstance(width, numbers.Integral) and not isinstance(width, bool) for width in widths)
        if not widths or not integers or min(widths) < 1:
            raise ValueError(f"`widths` must be positive integers, at least one. Received: widths={widths}")
        self.widths = tuple(map(int, widths))
        self.use_bias = use_bias
        self.use_batch_norm = use_batch_norm
        self.synchronized = synchronized
        self._chain = []
        for index, width in enumerate(self.widths, start=1):
            self._chain.append(
                layers.Dense(
                    width,
                    use_bias=use_bias,
                    # Uniform within 1 / sqrt(inputs): the initialisation of the reference's linear layers.
                    kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
                    dtype=self.dtype_policy,
                    name=f"dense{index}",
                )
            )
            if index < len(self.widths):
                if use_batch_norm:
                    self._chain.append(
                        BatchNormalization(
                            synchronized=synchronized, dtype=self.dtype_policy, name=f"normalization{index}"
                        )
                    )
                self._chain.append(layers.ReLU(dtype=self.dtype_policy, name=f"relu{index}"))

    def build(self, input_shape):
        for layer in self._chain:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, features, training=None):
        for layer in self._chain:
            # Keras hands `training` down to the layers that take it.
            features = layer(features)
        return features

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.widths[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "widths": self.widths,
            "use_bias": self.use_bias,
            "use_batch_norm": self.use_batch_norm,
            "synchronized": self.synchronized,
        }
