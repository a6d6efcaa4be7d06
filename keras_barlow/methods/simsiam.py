"""SimSiam: a predictor and a stop-gradient, without negatives and without a momentum copy."""

import keras
from keras import ops

from keras_barlow import losses, networks
from keras_barlow.pretraining import JointEmbedding


@keras.saving.register_keras_serializable(package="keras_barlow")
class SimSiam(JointEmbedding):
    """SimSiam pre-training as a `keras.Model`.

    Logs: `loss`, the negative cosine. At -1 all embeddings may be equal: watch `callbacks.CollapseMonitor`.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((2048, 2048, 2048),
            output_batch_norm=True)`; without the normalization at its end, training collapses.
        predictor: Layer from embeddings to embeddings of the same width. The paper: `Projector((512, 2048))`.
        views: Layer that draws the views of each image, two or more crops. None if the data are pairs.
        loss: `losses.SimSiamLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the encoder is not built, or a layer does not fit.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = SimSiam(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16), output_batch_norm=True),
    ...     predictor=kb.Projector((8, 16)),
    ...     views=kb.views.simclr(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, https://arxiv.org/abs/2011.10566
    """

    default_loss = losses.SimSiamLoss
    max_views = None

    def __init__(
        self,
        encoder,
        projector,
        predictor,
        views=None,
        loss=None,
        accumulation_steps=1,
        skip_nonfinite=False,
        **kwargs,
    ):
        super().__init__(encoder, projector, views, loss, accumulation_steps, skip_nonfinite, **kwargs)
        self.predictor = networks.required_predictor(predictor, self.embedding_shape)

    def embeddings(self, views, training):
        z = [self.project(view, training) for view in views]
        predictions = [self.forward(self.predictor, embedding, training) for embedding in z]
        return *predictions, *map(ops.stop_gradient, z[:2])
