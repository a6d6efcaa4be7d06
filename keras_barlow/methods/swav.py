"""SwAV: each view predicts to which prototypes the other views of the image are assigned."""

import keras
from keras import ops

from keras_barlow import losses
from keras_barlow.pretraining import JointEmbedding, batch_sizes, checks


@keras.saving.register_keras_serializable(package="keras_barlow")
class SwAV(JointEmbedding):
    """SwAV pre-training as a `keras.Model`.

    The first two views are assigned to prototypes, over the whole batch of all replicas and micro-batches. All other
    views of the image predict the assignment.

    Logs: `loss`. It starts at `log(num_prototypes)`.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features. For crops of several sizes, one of free size,
            with `input_shape=(None, None, 3)`.
        projector: Layer from features to embeddings. The paper: `Projector((2048, 128))`.
        views: Layer that draws the views of each image, two or more crops: `views.multi_crop(image_size)`. None if the
            data are pairs.
        loss: `losses.SwAVLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        num_prototypes: K, the number of prototypes, at most the batch size: with more, the codes cannot fill them.
        frozen_steps: Number of steps at the start during which the prototypes stay as they are. The paper: one epoch.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        prototypes: `keras.Variable` `(D, K)`, columns of length 1.

    Raises:
        ValueError: If the encoder is not built, a layer does not fit, or there are more prototypes than images in a
            batch.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = SwAV(
    ...     kb.encoders.resnet((1,), input_shape=(None, None, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.multi_crop(16, small_sizes=(8, 8)),
    ...     num_prototypes=4,
    ... )
    >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
        https://arxiv.org/abs/2006.09882
    """

    default_loss = losses.SwAVLoss
    max_views = None

    def __init__(
        self,
        encoder,
        projector,
        views=None,
        loss=None,
        accumulation_steps=1,
        skip_nonfinite=False,
        num_prototypes=3000,
        frozen_steps=0,
        **kwargs,
    ):
        super().__init__(encoder, projector, views, loss, accumulation_steps, skip_nonfinite, **kwargs)
        self.num_prototypes = checks.checked_count(num_prototypes, "num_prototypes", least=2)
        self.frozen_steps = checks.checked_count(frozen_steps, "frozen_steps", least=0)
        self.prototypes = self.add_weight((self.embedding_shape[1], num_prototypes), name="prototypes")
        self.after_step(())

    @property
    def row_limits(self):
        return batch_sizes.RowLimits(self.num_prototypes, None, "every prototype gets a share of the images")

    def embeddings(self, views, training):
        prototypes = self.prototypes.value
        prototypes = ops.where(self.batch_count < self.frozen_steps, ops.stop_gradient(prototypes), prototypes)
        embeddings = [ops.cast(self.project(view, training), prototypes.dtype) for view in views]
        return tuple(ops.matmul(losses.l2_normalized(z), prototypes) for z in embeddings)

    def after_step(self, embeddings):
        self.prototypes.assign(losses.l2_normalized(self.prototypes.value, axis=0))
