"""The SwAV loss: the prototypes of one view are predicted from the other."""

import keras
from keras import ops

from keras_barlow.losses import cosine
from keras_barlow.losses.base import Loss


@keras.saving.register_keras_serializable(package="keras_barlow")
class SwAVLoss(Loss):
    """The swapped prediction of SwAV, on scores `s = z^T c` of embeddings and prototypes.

        loss = mean over pairs of views (v, t), v != t, of  -mean_n sum_k q_t[n, k] log softmax(s_v[n] / temperature)[k]

    where the codes `q_t = sinkhorn(s_t / epsilon)` of the first two views assign the rows of the whole batch to all
    prototypes in equal parts. Codes get no gradient.

    Args:
        temperature: Positive float, the temperature of the predictions.
        epsilon: Positive float, the smoothness of the codes.
        iterations: Number of Sinkhorn-Knopp iterations.

    Call arguments:
        *scores: Float tensors `(N, K)`: cosines of the embeddings and the K prototypes, one tensor per view.

    Returns:
        A scalar, differentiable once with respect to all arguments.

    Raises:
        ValueError: If the temperature or epsilon is not positive, there are no iterations, scores have different shapes
            or another rank than 2, or there is only one view.

    Example:

    >>> scores = keras.ops.eye(4)
    >>> loss = SwAVLoss()
    >>> bool(loss(scores, scores) < loss(scores, -scores))
    True

    References:
        Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
        https://arxiv.org/abs/2006.09882, equations 1 to 6.
    """

    def __init__(self, temperature=0.1, epsilon=0.05, iterations=3):
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
        if iterations < 1:
            raise ValueError(f"`iterations` must be at least 1. Received: iterations={iterations}")
        self.temperature = cosine.checked_temperature(temperature)
        self.epsilon = epsilon
        self.iterations = iterations

    def terms(self, *scores):
        """The loss.

        Args:
            *scores: Float tensors `(N, K)` of the whole batch, one per view.

        Returns:
            Dictionary with the scalar `loss`.
        """
        codes = [ops.stop_gradient(sinkhorn(view / self.epsilon, self.iterations)) for view in scores[:2]]
        predictions = [ops.log_softmax(view / self.temperature, axis=1) for view in scores]
        pairs = cosine.swapped_pairs(len(scores), len(codes))
        entropies = [-ops.mean(ops.sum(codes[target] * predictions[view], axis=1)) for view, target in pairs]
        return {"loss": sum(entropies) / len(pairs)}

    def checked(self, *scores):
        if len(scores) < 2:
            raise ValueError(
                f"The SwAV loss compares at least two views. Received: {len(scores)} tensors. "
                "Call it as loss(scores_a, scores_b)."
            )
        return super().checked(*scores)


def sinkhorn(logits, iterations):
    """Codes that assign rows to prototypes in equal parts, by Sinkhorn-Knopp iterations on logarithms.

    Each iteration gives every prototype the same total and then every row the total 1.

    Args:
        logits: Float tensor `(N, K)`, scores over epsilon.
        iterations: Number of iterations.

    Returns:
        Tensor `(N, K)` of nonnegative numbers; every row sums to 1.

    Example:

    >>> codes = sinkhorn(ops.array([[9.0, 0.0], [9.0, 1.0]]), iterations=50)
    >>> [round(float(total), 2) for total in ops.sum(codes, axis=0)]
    [1.0, 1.0]
    """
    for _ in range(iterations):
        logits = logits - ops.logsumexp(logits, axis=0, keepdims=True)
        logits = logits - ops.logsumexp(logits, axis=1, keepdims=True)
    return ops.exp(logits)
