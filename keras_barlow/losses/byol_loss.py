"""The BYOL loss: the prediction of one view approaches the target of the other."""

import keras

from keras_barlow.losses import cosine
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class BYOLLoss(Loss):
    """The BYOL loss: squared distances of predictions and targets of length 1, in both directions.

        loss = |p_a / |p_a| - t_b / |t_b||^2 + |p_b / |p_b| - t_a / |t_a||^2 = 4 - 2 cos(p_a, t_b) - 2 cos(p_b, t_a)

    as a mean over the batch. With more than two views, the cosine is the mean over all pairs of a prediction and a
    target of different views.

    Call arguments:
        *z: Float tensors `(N, D)`: the predictions of all views, then the targets of the first two.

    Returns:
        A scalar from 0 to 8, differentiable once.

    Raises:
        ValueError: If embeddings have different shapes or another rank than 2, or there are fewer than four.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> round(float(BYOLLoss()(z, z, z, -z)), 3)
    4.0

    References:
        Grill et al.: Bootstrap Your Own Latent, NeurIPS 2020, https://arxiv.org/abs/2006.07733, equation 2.
    """

    def terms(self, *z):
        """The loss.

        Args:
            *z: Float tensors `(N, D)` of the whole batch: the predictions of all views, then the targets of the first
                two.

        Returns:
            Dictionary with the scalar `loss`.
        """
        return {"loss": 4.0 - 4.0 * cosine.swapped_cosine(z[:-2], z[-2:])}

    def checked(self, *z):
        return super().checked(*cosine.checked_predictions(z))
