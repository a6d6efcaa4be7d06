"""SimCLR: the two views of an image find each other among all images of the batch."""

import keras

from keras_barlow import losses
from keras_barlow.pretraining import JointEmbedding


@keras.saving.register_keras_serializable(package="keras_barlow")
class SimCLR(JointEmbedding):
    """SimCLR pre-training as a `keras.Model`.

    The negatives of an image are all other images of the batch, over all replicas and micro-batches. A batch of 4,096
    fits on a small device with `accumulation_steps`.

    Logs: `loss` and `contrast_accuracy`, how often the nearest embedding is the other view of the same image.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((2048, 128))`.
        views: Layer that draws two views of each image, `views.simclr(image_size)`. None if the data are pairs.
        loss: `losses.SimCLRLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the encoder is not built, or a layer does not fit.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = SimCLR(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.simclr(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
        https://arxiv.org/abs/2002.05709
    """

    default_loss = losses.SimCLRLoss

    def embeddings(self, views, training):
        view_a, view_b = views
        return self.project(view_a, training), self.project(view_b, training)
