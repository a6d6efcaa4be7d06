"""The projector from features of the encoder to the embeddings of the loss."""

import numbers

import keras
from keras import layers

from keras_barlow.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="keras_barlow")
class Projector(keras.layers.Layer):
    """A multilayer perceptron with batch normalization and ReLU between its linear layers.

    The last layer is only linear by default, because the loss of Barlow Twins standardizes the embeddings itself (the
    "BN without scale and shift" of the reference code).

    Args:
        widths: Output width of each linear layer. The last width is D, the size of the embeddings. The paper uses
            `(8192, 8192, 8192)`.
        use_bias: Whether the linear layers have biases. The paper uses none.
        use_batch_norm: Whether to normalize after each layer but the last.
        synchronized: Whether batch normalization uses the moments of all replicas.
        output_batch_norm: Whether to normalize the output, without scale and shift. SimSiam needs it.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        features: Float tensor `(batch, features)`.
        training: Whether batch normalization uses the moments of the batch instead of the moving averages.

    Returns:
        Tensor `(batch, widths[-1])` in the layer's compute dtype.

    Raises:
        ValueError: If `widths` is empty or contains anything but positive integers.

    Example:

    >>> projector = Projector((256, 256))
    >>> projector(keras.random.normal((8, 64)), training=True).shape
    TensorShape([8, 256])
    """

    def __init__(
        self,
        widths=(8192, 8192, 8192),
        use_bias=False,
        use_batch_norm=True,
        synchronized=False,
        output_batch_norm=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        widths = widths if isinstance(widths, (tuple, list)) else (widths,)
        integers = all(isinstance(width, numbers.Integral) and not isinstance(width, bool) for width in widths)
        if not widths or not integers or min(widths) < 1:
            raise ValueError(f"`widths` must be positive integers, at least one. Received: widths={widths}")
        self.widths = tuple(map(int, widths))
        self.use_bias = use_bias
        self.use_batch_norm = use_batch_norm
        self.synchronized = synchronized
        self.output_batch_norm = output_batch_norm
        self._chain = []
        for index, width in enumerate(self.widths, start=1):
            self._chain.append(
                layers.Dense(
                    width,
                    use_bias=use_bias,
                    # Uniform within 1 / sqrt(inputs), as in the linear layers of the reference code.
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
        if output_batch_norm:
            options = {"center": False, "scale": False, "synchronized": synchronized}
            self._chain.append(BatchNormalization(**options, dtype=self.dtype_policy, name="output_normalization"))

    def build(self, input_shape):
        for layer in self._chain:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, features, training=None):
        for layer in self._chain:
            # Keras passes `training` on to the layers.
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
            "output_batch_norm": self.output_batch_norm,
        }
