"""VICReg: embeddings of two views agree, every feature varies, and no two features covary."""

import keras

from keras_barlow import losses
from keras_barlow.pretraining import JointEmbedding


@keras.saving.register_keras_serializable(package="keras_barlow")
class VICReg(JointEmbedding):
    """VICReg pre-training as a `keras.Model`.

    Logs: `loss`, `invariance`, `variance` and `covariance`, the last three without their weights.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((8192, 8192, 8192))`.
        views: Layer that draws two views of each image, such as `views.barlow_twins(image_size)`. None if the data are
            pairs.
        loss: `losses.VICRegLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the encoder is not built, or a layer does not fit.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = VICReg(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.barlow_twins(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        Bardes, Ponce, LeCun: VICReg, ICLR 2022, https://arxiv.org/abs/2105.04906
    """

    default_loss = losses.VICRegLoss

    def embeddings(self, views, training):
        view_a, view_b = views
        return self.project(view_a, training), self.project(view_b, training)
