"""Barlow Twins: the cross-correlation of the embeddings of two views becomes the identity."""

import keras
from keras import ops

from keras_barlow import losses, networks, randomness
from keras_barlow.pretraining import JointEmbedding, checks, momentum


@keras.saving.register_keras_serializable(package="keras_barlow")
class BarlowTwins(JointEmbedding):
    """Barlow Twins pre-training as a `keras.Model`.

    Logs: `loss`, `invariance` (sum of (1 - C_ii)^2), `redundancy` (sum of C_ij^2 off the diagonal, without its weight)
    and `mixup`. `predictor`, `stop_gradient` and `moving_average` are the ablations of the paper's Table 6.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((8192, 8192, 8192))`.
        views: Layer that draws two views of each image, `views.barlow_twins(image_size)`. None if the data are pairs.
        loss: `losses.BarlowTwinsLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        predictor: Layer such as `Projector((D, D))` that is applied to the embeddings of view A. None disables it.
        stop_gradient: Whether to block the gradient of view B.
        moving_average: Momentum of a copy of encoder and projector that embeds view B without a gradient, or None.
        mixup: Weight of `losses.MixedBarlowTwinsLoss`, for small data, with a third forward pass. None disables it.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If a layer does not fit, or arguments cannot be combined.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = BarlowTwins(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.barlow_twins(image_size=16),
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), dtype="uint8")
    >>> history = model.fit(images, batch_size=4, verbose=0)
    >>> sorted(history.history)
    ['invariance', 'loss', 'redundancy']

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230
    """

    default_loss = losses.BarlowTwinsLoss

    def __init__(
        self,
        encoder,
        projector,
        views=None,
        loss=None,
        accumulation_steps=1,
        skip_nonfinite=False,
        predictor=None,
        stop_gradient=False,
        moving_average=None,
        mixup=None,
        **kwargs,
    ):
        super().__init__(encoder, projector, views, loss, accumulation_steps, skip_nonfinite, **kwargs)
        self.predictor = networks.checked_predictor(predictor, self.embedding_shape)
        self.stop_gradient = stop_gradient
        self.moving_average = moving_average
        self.mixup = mixup
        self.target = None
        if moving_average is not None:
            momentum.checked_momentum(moving_average, "moving_average")
            self.target = momentum.slow_copies(self.encoder, self.projector)
        if mixup is not None:
            checks.check_alone("mixup", predictor=predictor, stop_gradient=stop_gradient, moving_average=moving_average)
            self.max_views = 3
            self.minimize(losses.MixedBarlowTwinsLoss(self.loss, mixup))

    def embeddings(self, views, training):
        view_a, view_b, *mixed = views
        z_a = self.project(view_a, training=training)
        if self.predictor is not None:
            z_a = self.forward(self.predictor, z_a, training=training)
        if self.target is not None:
            return z_a, momentum.project(self.target, view_b, training)
        z_b, *z_mixed = (self.project(view, training=training) for view in (view_b, *mixed))
        return z_a, ops.stop_gradient(z_b) if self.stop_gradient else z_b, *z_mixed

    def mixing(self, step):
        seed = getattr(self.views, "seed", 0)
        return None if self.mixup is None else randomness.uniform_number(seed, step, view=2)

    def constants(self, step):
        return {} if self.mixup is None else {"share": self.mixing(step)}

    def after_step(self, embeddings):
        if self.target is not None:
            momentum.follow(self.target, (self.encoder, self.projector), self.moving_average)
