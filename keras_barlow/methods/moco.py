"""MoCo v2: keys from a momentum copy, and a queue of the keys of earlier batches."""

import keras
from keras import ops

from keras_barlow import distribution, losses
from keras_barlow.pretraining import JointEmbedding, batch_sizes, checks
from keras_barlow.pretraining import momentum as slow


@keras.saving.register_keras_serializable(package="keras_barlow")
class MoCo(JointEmbedding):
    """MoCo v2 pre-training as a `keras.Model`.

    View A gives queries, and view B gives keys through a momentum copy of encoder and projector. The negatives are the
    newest `queue_size` keys of earlier batches, of all replicas. They are saved with the model and in checkpoints.

    The paper shuffles images between devices so that the moments of batch normalization do not reveal the key. Here
    these moments are those of the whole batch, or of one micro-batch.

    Logs: `loss` and `contrast_accuracy`, how often the key is nearer to its query than all keys of the queue.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        projector: Layer from features to embeddings. The paper: `Projector((2048, 128), use_bias=True,
            use_batch_norm=False)`.
        views: Layer that draws two views of each image, such as `views.simclr(image_size)`. None if the data are pairs.
        loss: `losses.MoCoLoss`; None for its defaults.
        accumulation_steps: Number of micro-batches per batch, see `JointEmbedding`.
        skip_nonfinite: Whether to skip steps whose loss or gradient is not finite, see `JointEmbedding`.
        momentum: Momentum m in [0, 1) of the copy, which follows by `t <- m t + (1 - m) w` after every step.
        queue_size: Number of keys in the queue, at least the batch size. It need not be a multiple of it.
        **kwargs: Arguments of `keras.Model`.

    Attributes:
        target: List of the momentum copies of encoder and projector.
        queue: `keras.Variable` `(queue_size, D)`, rows of length 1, the newest first. It starts at random.

    Raises:
        ValueError: If a layer does not fit, the momentum is outside [0, 1), or the queue is smaller than the batch.

    Example:

    >>> import numpy as np, keras_barlow as kb
    >>> model = MoCo(
    ...     kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8),
    ...     projector=kb.Projector((16, 16)),
    ...     views=kb.views.simclr(image_size=16),
    ...     queue_size=32,
    ... )
    >>> model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    >>> tuple(model(images).shape)
    (8, 8)

    References:
        He et al.: Momentum Contrast, CVPR 2020, https://arxiv.org/abs/1911.05722
        Chen et al.: Improved Baselines with Momentum Contrastive Learning, https://arxiv.org/abs/2003.04297
    """

    default_loss = losses.MoCoLoss

    def __init__(
        self,
        encoder,
        projector,
        views=None,
        loss=None,
        accumulation_steps=1,
        skip_nonfinite=False,
        momentum=0.999,
        queue_size=65536,
        **kwargs,
    ):
        super().__init__(encoder, projector, views, loss, accumulation_steps, skip_nonfinite, **kwargs)
        self.momentum = slow.checked_momentum(momentum, "momentum")
        self.queue_size = checks.checked_count(queue_size, "queue_size", least=2)
        self.target = slow.slow_copies(self.encoder, self.projector)
        shape = self.queue_size, self.embedding_shape[1]
        self.queue = self.add_weight(shape, "random_normal", trainable=False, name="queue")
        self.queue.assign(losses.l2_normalized(self.queue.value))

    @property
    def row_limits(self):
        return batch_sizes.RowLimits(2, self.queue_size, "`queue_size` keys fit into the queue")

    def embeddings(self, views, training):
        view_a, view_b = views
        return self.project(view_a, training), slow.project(self.target, view_b, training)

    def constants(self, step):
        return {"queue": self.queue.value}

    def after_step(self, embeddings):
        _, keys = embeddings
        slow.follow(self.target, (self.encoder, self.projector), self.momentum)
        keys = ops.cast(losses.l2_normalized(distribution.gather_rows(keys)), self.queue.dtype)
        newest = ops.concatenate([keys, self.queue.value])[: self.queue_size]
        self.queue.assign(ops.reshape(newest, self.queue.shape))
