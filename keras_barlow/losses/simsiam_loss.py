"""The SimSiam loss: the negative cosine of the prediction of one view and the embedding of the other."""

import keras

from keras_barlow.losses import cosine
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class SimSiamLoss(Loss):
    """The SimSiam loss: the negative cosine of predictions and embeddings, in both directions.

        loss = -(cos(p_a, z_b) + cos(p_b, z_a)) / 2

    as a mean over the batch. With more than two views, it is the mean over all pairs of a prediction and an embedding
    of different views.

    Call arguments:
        *z: Float tensors `(N, D)`: the predictions of all views, then the embeddings of the first two.

    Returns:
        A scalar in [-1, 1], differentiable once.

    Raises:
        ValueError: If embeddings have different shapes or another rank than 2, or there are fewer than four.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> round(float(SimSiamLoss()(z, z, z, z)), 3)
    -1.0

    References:
        Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, https://arxiv.org/abs/2011.10566,
        equations 1 to 4.
    """

    def terms(self, *z):
        """The loss.

        Args:
            *z: Float tensors `(N, D)` of the whole batch: the predictions of all views, then the embeddings of the
                first two.

        Returns:
            Dictionary with the scalar `loss`.
        """
        return {"loss": -cosine.swapped_cosine(z[:-2], z[-2:])}

    def checked(self, *z):
        return super().checked(*cosine.checked_predictions(z))
