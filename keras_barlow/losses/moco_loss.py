"""The MoCo loss, InfoNCE: a query finds its key among the keys of earlier batches."""

import keras
from keras import ops

from keras_barlow.losses import cosine
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class MoCoLoss(Loss):
    """InfoNCE with a queue of negatives, the loss of MoCo.

    With a query `q`, its key `k` and the keys `u` of the queue, all of length 1:

        loss = mean ( log( exp(q k / temperature) + sum_u exp(q u / temperature) ) - q k / temperature )

    Args:
        temperature: Positive float. MoCo v2: 0.2.

    Call arguments:
        query: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        key: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.
        queue: Float tensor `(K, D)`: keys of earlier batches, rows of length 1. It gets no gradient.

    Returns:
        A scalar, differentiable once with respect to the first two arguments.

    Raises:
        ValueError: If the temperature is not positive, or embeddings have different shapes or another rank than 2.

    Example:

    >>> z, queue = keras.random.normal((8, 4), seed=0), keras.ops.eye(4)
    >>> loss = MoCoLoss()
    >>> bool(loss(z, z, queue=queue) < loss(z, -z, queue=queue))
    True

    References:
        He et al.: Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020,
        https://arxiv.org/abs/1911.05722, equation 1. Temperature: MoCo v2, https://arxiv.org/abs/2003.04297.
    """

    log_names = ("loss", "contrast_accuracy")

    def __init__(self, temperature=0.2):
        self.temperature = cosine.checked_temperature(temperature)

    def terms(self, query, key, queue):
        """The loss, and how often the key is nearer than all keys of the queue.

        Args:
            query: Float tensor `(N, D)`: embeddings of view A, the whole batch.
            key: Float tensor `(N, D)`: embeddings of view B.
            queue: Float tensor `(K, D)`, rows of length 1.

        Returns:
            Dictionary of two scalars: `loss`, and `contrast_accuracy` in [0, 1].
        """
        query, key = cosine.l2_normalized(query), cosine.l2_normalized(key)
        positive = ops.sum(query * key, axis=1, keepdims=True) / self.temperature
        negatives = ops.matmul(query, ops.transpose(ops.cast(queue, query.dtype))) / self.temperature
        logits = ops.concatenate([positive, negatives], axis=1)
        found = ops.cast(positive[:, 0] > ops.max(negatives, axis=1), query.dtype)
        return {
            "loss": ops.mean(ops.logsumexp(logits, axis=1) - positive[:, 0]),
            "contrast_accuracy": ops.mean(found),
        }
