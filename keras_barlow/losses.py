"""The loss of Barlow Twins, thin over `ops`, with its value and its analytic gradient."""

from typing import NamedTuple

import keras
from keras import ops as kops

from keras_barlow import distribution, ops

FORMS = ("auto", "feature", "batch")
MATMUL_DTYPES = (None, "bfloat16")


class LossTerms(NamedTuple):
    """The loss and its parts, three scalars, float32 (float64 for float64 embeddings).

    Attributes:
        loss: `invariance + redundancy_weight * redundancy`.
        invariance: `sum_i (1 - C_ii)^2`.
        redundancy: `sum_{i != j} C_ij^2`.
    """

    loss: object
    invariance: object
    redundancy: object


@keras.saving.register_keras_serializable(package="keras_barlow")
class BarlowTwinsLoss:
    """The Barlow Twins loss of two batches of embeddings.

        loss = sum_i (1 - C_ii)^2 + redundancy_weight * sum_{i != j} C_ij^2

    where `C = a^T b / N` is the cross-correlation of the embeddings, each feature standardised over the
    batch. It is a sum over features and already a mean over the batch: divide it by nothing.

    Under a strategy of several replicas, inside `strategy.run`, value and gradient are those of the global
    batch: the value is the same on every replica, and the gradient is with respect to this replica's rows,
    so that gradients of weights are to be SUMMED over replicas (which Keras' optimizers do). Neither you nor
    Keras divides by the number of replicas. Replicas may have different numbers of rows, or none.

    Args:
        redundancy_weight: lambda, the weight of the off-diagonal terms. The paper: 0.0051 at D = 8192.
        epsilon: Added to the biased variance when standardising.
        form: `"feature"` builds the D x D matrix and sums it over replicas, `"batch"` gathers the embeddings
            and builds two N x N Gram matrices instead, each replica its own rows of them; `"auto"` is
            whichever costs less (`ops.batch_form_is_cheaper`). The numbers are the same.
        matmul_dtype: `"bfloat16"` rounds the standardised embeddings for the matrix products, and only there: the
            loss and its gradient are then right to about 1 %. None multiplies in float32, whatever the policy.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.

    Returns:
        A scalar, differentiable once with respect to both arguments.

    Raises:
        ValueError: For an unknown form or dtype, a negative weight, an epsilon that is not positive, embeddings of
            different shapes or of another rank than 2, or a batch of one row.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = BarlowTwinsLoss(redundancy_weight=0.0051)
    >>> bool(loss(z, z) < loss(z, -z))
    True

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230, equations 1 and 2.
    """

    def __init__(self, redundancy_weight=0.0051, epsilon=1e-5, form="auto", matmul_dtype=None):
        if form not in FORMS:
            raise ValueError(f"`form` must be one of {FORMS}. Received: form={form!r}")
        if redundancy_weight < 0:
            raise ValueError(
                f"`redundancy_weight` must not be negative. Received: redundancy_weight={redundancy_weight}"
            )
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
        if matmul_dtype not in MATMUL_DTYPES:
            raise ValueError(f"`matmul_dtype` must be one of {MATMUL_DTYPES}. Received: matmul_dtype={matmul_dtype!r}")
        self.redundancy_weight = redundancy_weight
        self.epsilon = epsilon
        self.form = form
        self.matmul_dtype = matmul_dtype

    def __call__(self, z_a, z_b):
        z_a, z_b = self._checked(z_a, z_b)

        @kops.custom_gradient
        def loss(z_a, z_b):
            terms, gradient_a, gradient_b = self.value_and_gradient(z_a, z_b)

            def gradient(*arguments, upstream=None):
                # JAX and TensorFlow pass the upstream gradient positionally, PyTorch by name.
                upstream = arguments[-1] if upstream is None else upstream
                return upstream * gradient_a, upstream * gradient_b

            return terms.loss, gradient

        return loss(z_a, z_b)

    def value_and_gradient(self, z_a, z_b, total_rows=None):
        """The terms of the loss, and its exact gradient with respect to this replica's rows.

        Args:
            z_a: Embeddings of view A, `(n, D)`: this replica's rows.
            z_b: Embeddings of view B, `(n, D)`.
            total_rows: N of the global batch, a Python integer that is the same on every replica, with which
                `form="auto"` can choose between gathering embeddings and summing the matrix. None: several
                replicas gather.

        Returns:
            The triple `(terms, gradient_a, gradient_b)`: `LossTerms` of the global batch, and two tensors
            `(n, D)` in the dtype of the computation (float32, or float64 for float64 embeddings).
        """
        z_a, z_b = self._checked(z_a, z_b)
        replicas = distribution.replica_count()
        if replicas == 1:
            total_rows = z_a.shape[0]
        form = self.form
        if form == "auto" and total_rows is not None:
            # All replicas must choose alike, and their own rows may differ in number.
            form = "batch" if ops.batch_form_is_cheaper(total_rows, z_a.shape[1], replicas) else "feature"
        if form == "feature":
            return self._with_reduced_matrix(z_a, z_b)
        return self._with_gathered_rows(z_a, z_b, form)

    def _with_reduced_matrix(self, z_a, z_b):
        """The feature form: replicas exchange moments and the sum of `C`."""
        total = distribution.sum_over_replicas

        def mean_over_rows(a, b):
            """Of both views, in one sum over replicas."""
            return kops.unstack(total(kops.stack([kops.sum(a, axis=0), kops.sum(b, axis=0)])) / count, num=2)

        count = total(kops.cast(kops.shape(z_a)[0], z_a.dtype))
        mean_a, mean_b = mean_over_rows(z_a, z_b)
        a, b = z_a - mean_a, z_b - mean_b
        variance_a, variance_b = mean_over_rows(kops.square(a), kops.square(b))
        deviation_a, deviation_b = kops.sqrt(variance_a + self.epsilon), kops.sqrt(variance_b + self.epsilon)
        a, b = a / deviation_a, b / deviation_b
        correlation = total(ops.product(kops.transpose(a), b, self.matmul_dtype)) / count
        diagonal = kops.diagonal(correlation)
        squares = kops.square(correlation)

        pull = ops.invariance_gradient(diagonal, self.redundancy_weight)
        slope = 2.0 * self.redundancy_weight
        # mean(d * a) without another sum over the rows: a^T b is N C.
        product_a = (slope * kops.sum(squares, axis=1) + pull * diagonal) / count
        product_b = (slope * kops.sum(squares, axis=0) + pull * diagonal) / count
        gradient_a = (slope * ops.product(b, kops.transpose(correlation), self.matmul_dtype) + b * pull) / count
        gradient_b = (slope * ops.product(a, correlation, self.matmul_dtype) + a * pull) / count
        return (
            self._terms(diagonal, kops.sum(squares)),
            ops.through_standardization(gradient_a, a, deviation_a, product_a),
            ops.through_standardization(gradient_b, b, deviation_b, product_b),
        )

    def _with_gathered_rows(self, z_a, z_b, form):
        """The batch form, or whichever form is cheaper in the step: replicas exchange embeddings."""
        own = slice(None)
        all_z_a, all_z_b = z_a, z_b
        if distribution.replica_count() > 1:
            offset, _ = distribution.own_rows(kops.shape(z_a)[0])
            own = slice(offset, offset + kops.shape(z_a)[0])
            both = distribution.gather_rows(kops.concatenate([z_a, z_b], axis=1))
            all_z_a, all_z_b = kops.split(both, 2, axis=1)
        all_a, deviation_a = ops.standardize(all_z_a, self.epsilon)
        all_b, deviation_b = ops.standardize(all_z_b, self.epsilon)
        a, b = all_a[own], all_b[own]

        share, gradient_a, gradient_b = ops.squared_correlation(a, b, all_a, all_b, form, self.matmul_dtype)
        diagonal = kops.mean(all_a * all_b, axis=0)
        count = kops.cast(kops.shape(all_a)[0], all_a.dtype)
        pull = ops.invariance_gradient(diagonal, self.redundancy_weight) / count
        gradient_a = 2.0 * self.redundancy_weight * gradient_a + b * pull
        gradient_b = 2.0 * self.redundancy_weight * gradient_b + a * pull
        # One sum over replicas for all that is left: 2 D + 1 numbers.
        sums = [kops.sum(gradient_a * a, axis=0), kops.sum(gradient_b * b, axis=0), kops.reshape(share, (1,))]
        sums = distribution.sum_over_replicas(kops.concatenate(sums))
        features = a.shape[1]
        return (
            self._terms(diagonal, sums[-1]),
            ops.through_standardization(gradient_a, a, deviation_a, sums[:features] / count),
            ops.through_standardization(gradient_b, b, deviation_b, sums[features:-1] / count),
        )

    def _terms(self, diagonal, squared_norm):
        invariance = kops.sum(kops.square(1.0 - diagonal))
        redundancy = squared_norm - kops.sum(kops.square(diagonal))
        return LossTerms(invariance + self.redundancy_weight * redundancy, invariance, redundancy)

    def _checked(self, z_a, z_b):
        z_a, z_b = kops.convert_to_tensor(z_a), kops.convert_to_tensor(z_b)
        if len(z_a.shape) != 2 or tuple(z_a.shape) != tuple(z_b.shape):
            raise ValueError(
                "The two embeddings must have one shape (batch, features). "
                f"Received: z_a.shape={tuple(z_a.shape)}, z_b.shape={tuple(z_b.shape)}"
            )
        if z_a.shape[0] == 1 and distribution.replica_count() == 1:
            raise ValueError(
                "The Barlow Twins loss correlates features over the batch, so a batch needs at least 2 images. "
                f"Received: z_a.shape={tuple(z_a.shape)}. Use a larger batch, or drop_remainder=True where a "
                "last batch of 1 is left over."
            )
        dtype = keras.backend.result_type(z_a.dtype, z_b.dtype, "float32")
        return kops.cast(z_a, dtype), kops.cast(z_b, dtype)

    def get_config(self):
        names = ("redundancy_weight", "epsilon", "form", "matmul_dtype")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
