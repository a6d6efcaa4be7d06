"""The SimCLR loss, NT-Xent: every view finds its partner among all views of the batch."""

import math

import keras
from keras import ops

from keras_barlow.losses import cosine
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class SimCLRLoss(Loss):
    """NT-Xent, the normalized temperature-scaled cross-entropy of SimCLR.

    With all 2 N embeddings `z`, `s_ij = cos(z_i, z_j) / temperature`, and `p(i)` the other view of the image of `i`:

        loss = mean_i ( log sum_{j != i} exp(s_ij) - s_ip(i) )

    Both views are queries, and the negatives are the other images of the whole batch.

    Args:
        temperature: Positive float. The paper: 0.1 for ImageNet, 0.5 for CIFAR-10.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.

    Returns:
        A scalar, differentiable once with respect to both arguments.

    Raises:
        ValueError: If the temperature is not positive, or embeddings have different shapes or another rank than 2.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = SimCLRLoss(temperature=0.5)
    >>> bool(loss(z, z) < loss(z, -z))
    True

    References:
        Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
        https://arxiv.org/abs/2002.05709, equation 1.
    """

    log_names = ("loss", "contrast_accuracy")

    def __init__(self, temperature=0.5):
        self.temperature = cosine.checked_temperature(temperature)

    def terms(self, z_a, z_b):
        """The loss, and how often the partner is the nearest of all other embeddings.

        Args:
            z_a: Float tensor `(N, D)`: embeddings of view A, the whole batch.
            z_b: Float tensor `(N, D)`: embeddings of view B.

        Returns:
            Dictionary of two scalars: `loss`, and `contrast_accuracy` in [0, 1].
        """
        a, b = cosine.l2_normalized(z_a), cosine.l2_normalized(z_b)
        z = ops.concatenate([a, b])
        similarity = ops.matmul(z, ops.transpose(z)) / self.temperature
        itself = ops.eye(ops.shape(z)[0], dtype="bool")
        logits = ops.where(itself, -math.inf, similarity)
        partner = ops.tile(ops.sum(a * b, axis=1) / self.temperature, 2)
        loss = ops.mean(ops.logsumexp(logits, axis=1) - partner)
        nearest = ops.max(logits, axis=1)
        # The product and the sum round differently, so compare with a tolerance.
        found = ops.cast(partner >= nearest - 1e-5 / self.temperature, z.dtype)
        return {"loss": loss, "contrast_accuracy": ops.mean(found)}
