"""The VICReg loss: invariance, variance and covariance of two views."""

import keras
from keras import ops

from keras_barlow.losses import correlation
from keras_barlow.losses.base import Loss, checked_rows


@keras.saving.register_keras_serializable(package="keras_barlow")
class VICRegLoss(Loss):
    """The VICReg loss of two batches of embeddings.

        loss = invariance_weight * mean((z_a - z_b)^2)
             + variance_weight   * (v(z_a) + v(z_b)) / 2,   v(z) = mean_j max(0, 1 - sqrt(Var(z_j) + epsilon))
             + covariance_weight * (c(z_a) + c(z_b)),       c(z) = sum_{i != j} Cov(z)_ij^2 / D

    where `Var` and `Cov` are over the batch and unbiased (divided by `N - 1`). These are the terms of the published
    code, which gave the published accuracy. Equation 6 of the paper does not halve the variance: pass
    `variance_weight=50.0` for it.

    Args:
        invariance_weight: Weight of the squared distance of the views, lambda in the paper.
        variance_weight: Weight of the hinge on the standard deviations, mu in the paper.
        covariance_weight: Weight of the covariances, nu in the paper.
        epsilon: Added to the unbiased variance, inside the root.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.

    Returns:
        A scalar, differentiable once with respect to both arguments.

    Raises:
        ValueError: For a negative weight, an epsilon that is not positive, embeddings of different shapes or of
            another rank than 2, or a batch of one row.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = VICRegLoss()
    >>> bool(loss(z, z) < loss(z, -z))
    True

    References:
        Bardes, Ponce, LeCun: VICReg, ICLR 2022, https://arxiv.org/abs/2105.04906, equations 1 to 6.
    """

    log_names = ("loss", "invariance", "variance", "covariance")

    def __init__(self, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0, epsilon=1e-4):
        weights = {
            "invariance_weight": invariance_weight,
            "variance_weight": variance_weight,
            "covariance_weight": covariance_weight,
        }
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={weight}")
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.epsilon = epsilon

    def terms(self, z_a, z_b):
        """The loss and its parts.

        Args:
            z_a: Float tensor `(N, D)`: embeddings of view A, the whole batch.
            z_b: Float tensor `(N, D)`: embeddings of view B.

        Returns:
            Dictionary of four scalars: `loss`, and without their weights `invariance`, `variance` (the mean of both
            views) and `covariance` (their sum).
        """
        invariance = ops.mean(ops.square(z_a - z_b))
        (variance_a, covariance_a), (variance_b, covariance_b) = (_spread(z, self.epsilon) for z in (z_a, z_b))
        variance, covariance = (variance_a + variance_b) / 2, covariance_a + covariance_b
        loss = self.invariance_weight * invariance + self.variance_weight * variance
        loss = loss + self.covariance_weight * covariance
        return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}

    def checked(self, z_a, z_b):
        return checked_rows(super().checked(z_a, z_b), "The VICReg loss takes variances over the batch")


def _spread(z, epsilon):
    """`v(z)` and `c(z)` of the embeddings `(N, D)` of one view."""
    freedom = ops.cast(ops.shape(z)[0], z.dtype) - 1.0
    centered = z - ops.mean(z, axis=0)
    variances = ops.sum(ops.square(centered), axis=0) / freedom
    squared_covariances = correlation.squared_norm_of_product(centered, centered) / ops.square(freedom)
    hinge = ops.mean(ops.relu(1.0 - ops.sqrt(variances + epsilon)))
    return hinge, (squared_covariances - ops.sum(ops.square(variances))) / z.shape[1]
