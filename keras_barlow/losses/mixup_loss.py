"""The regularizer of Mixed Barlow Twins: embeddings of mixed images are mixtures of the embeddings."""

import keras
from keras import ops

from keras_barlow.losses import barlow_twins_loss, correlation
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class MixedBarlowTwinsLoss(Loss):
    """The Barlow Twins loss with the regularizer of Mixed Barlow Twins.

        loss = barlow_twins + mixup_weight * redundancy_weight * mixup
        mixup = ||r^T a||_F^2 / N^2 + ||r^T b||_F^2 / N^2,   r = m - share * a - (1 - share) * b'

    where `a`, `b` and `m` are the standardized embeddings of view A, of view B and of their mixtures
    `share * view_a + (1 - share) * view_b'`, and `'` takes the next row of the batch. The paper takes a random other
    row, which is the same for images in random order.

    Args:
        loss: `BarlowTwinsLoss` of the two views, with `normalization="batch"`.
        mixup_weight: Weight of the regularizer relative to `redundancy_weight`. The published code: 5.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.
        z_mixed: Float tensor `(N, D)`: embeddings of the mixtures.
        share: Scalar in [0, 1], the share of view A in the mixtures.

    Returns:
        A scalar, differentiable once with respect to all three.

    Raises:
        ValueError: If the weight is not positive, the loss does not standardize features, or embeddings have different
            shapes or another rank than 2.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = MixedBarlowTwinsLoss(barlow_twins_loss.BarlowTwinsLoss())
    >>> bool(loss(z, z, z, share=1.0) < loss(z, z, -z, share=1.0))
    True

    References:
        Bandara, De Melo, Patel: Guarding Barlow Twins Against Overfitting with Mixed Samples,
        https://arxiv.org/abs/2312.02151
    """

    log_names = ("loss", "invariance", "redundancy", "mixup")

    def __init__(self, loss, mixup_weight=5.0):
        if mixup_weight <= 0:
            raise ValueError(f"`mixup_weight` must be positive. Received: mixup_weight={mixup_weight}")
        if not isinstance(loss, barlow_twins_loss.BarlowTwinsLoss) or loss.normalization != "batch":
            raise ValueError(
                'Mixed Barlow Twins needs a BarlowTwinsLoss with normalization="batch". '
                f"Received: loss={loss!r}. Use loss=BarlowTwinsLoss()."
            )
        self.loss = loss
        self.mixup_weight = mixup_weight

    def terms(self, z_a, z_b, z_mixed, share):
        """The regularizer alone. The terms of the two views come from their own loss.

        Args:
            z_a: Float tensor `(N, D)`: embeddings of view A, the whole batch.
            z_b: Float tensor `(N, D)`: embeddings of view B.
            z_mixed: Float tensor `(N, D)`: embeddings of the mixtures.
            share: Scalar in [0, 1], the share of view A in the mixtures.

        Returns:
            Dictionary of two scalars: `mixup`, and `loss`, its weighted share of the loss.
        """
        a, b, mixed = (correlation.standardize(z, self.loss.epsilon)[0] for z in (z_a, z_b, z_mixed))
        share = ops.cast(share, a.dtype)
        error = mixed - share * a - (1.0 - share) * ops.roll(b, -1, axis=0)
        squared_norms = sum(correlation.squared_norm_of_product(error, view) for view in (a, b))
        mixup = squared_norms / ops.square(ops.cast(ops.shape(a)[0], a.dtype))
        return {"loss": self.mixup_weight * self.loss.redundancy_weight * mixup, "mixup": mixup}

    def value_and_gradient(self, z_a, z_b, z_mixed, total_rows=None, *, share):
        """The terms of the global batch, and the exact gradient with respect to this replica's rows.

        Args:
            z_a: Embeddings of view A, `(n, D)`: this replica's rows.
            z_b: Embeddings of view B, `(n, D)`.
            z_mixed: Embeddings of the mixtures, `(n, D)`.
            total_rows: N of the global batch as a Python integer, or None.
            share: Scalar in [0, 1], the share of view A in the mixtures.

        Returns:
            The tuple `(terms, gradient_a, gradient_b, gradient_mixed)`, see `Loss.value_and_gradient`.
        """
        terms, *gradients = self.loss.value_and_gradient(z_a, z_b, total_rows=total_rows)
        more, *slopes, slope_mixed = super().value_and_gradient(z_a, z_b, z_mixed, share=share)
        terms = {**terms, "loss": terms["loss"] + more["loss"], "mixup": more["mixup"]}
        return terms, *(x + y for x, y in zip(gradients, slopes, strict=True)), slope_mixed

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "mixup_weight": self.mixup_weight}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]), config["mixup_weight"])
