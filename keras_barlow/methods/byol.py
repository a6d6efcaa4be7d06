"""BYOL: a predictor, and targets from a momentum copy."""

import keras

from keras_barlow import losses, networks
from keras_barlow.pretraining import JointEmbedding
from keras_barlow.pretraining import momentum as slow


@keras.saving.register_keras_serializable(package="keras_barlow")
class BYOL(JointEmbedding):
    """BYOL pre-training as a `keras.Model`.

    Logs: `loss`, from 0 to 8.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((4096, 256))`.
        predictor: Layer from embeddings to embeddings of the same width. The paper: `Projector((4096, 256))`.
        views: Layer that draws the views of each image, such as `views.barlow_twins(image_size)`, two or more crops.
            None if the data are pairs.
        loss: `losses.BYOLLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        momentum: Momentum m in [0, 1) of the copy of encoder and projector that gives the targets. It follows them by
            `t <- m t + (1 - m) w` after every step.
        total_steps: Number of steps during which the momentum rises to 1 by a cosine; None keeps it constant.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        target: List of the momentum copies of encoder and projector.

    Raises:
        ValueError: If the encoder is not built, a layer does not fit, or the momentum is outside [0, 1).

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = BYOL(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((32, 16)),
    ...     predictor=kb.Projector((32, 16)),
    ...     views=kb.views.barlow_twins(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        Grill et al.: Bootstrap Your Own Latent, NeurIPS 2020, https://arxiv.org/abs/2006.07733
    """

    default_loss = losses.BYOLLoss
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
        momentum=0.996,
        total_steps=None,
        **kwargs,
    ):
        super().__init__(encoder, projector, views, loss, accumulation_steps, skip_nonfinite, **kwargs)
        self.predictor = networks.required_predictor(predictor, self.embedding_shape)
        self.momentum = slow.checked_momentum(momentum, "momentum")
        self.total_steps = slow.checked_total_steps(total_steps)
        self.target = slow.slow_copies(self.encoder, self.projector)

    def embeddings(self, views, training):
        predictions = [self.forward(self.predictor, self.project(view, training), training) for view in views]
        return *predictions, *(slow.project(self.target, view, training) for view in views[:2])

    def after_step(self, embeddings):
        momentum = slow.rising(self.momentum, self.batch_count, self.total_steps)
        slow.follow(self.target, (self.encoder, self.projector), momentum)
