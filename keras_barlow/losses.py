"""The loss of Barlow Twins, thin over `ops`, with its value and its analytic gradient."""

from typing import NamedTuple

import keras
from keras import ops as kops

from keras_barlow import distribution, ops

FORMS = ("auto", "feature", "batch")
MATMUL_DTYPES = (None, "bfloat16")
NORMALIZATIONS = ("batch", "feature", "none")


class LossTerms(NamedTuple):
    """The loss and its parts, three scalars, float32 (float64 for float64 embeddings).

    Attributes:
        loss: `invariance_weight * invariance + redundancy_weight * redundancy`.
        invariance: `sum_i (1 - C_ii)^2`; with a temperature `-log sum_i exp(C_ii / temperature)`.
        redundancy: `sum_{i != j} C_ij^2`; with a temperature `log sum_{i != j} exp(max(C_ij, 0) / temperature)`.
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

    The ablations of the paper's Table 5 are one argument each: `redundancy_weight=0.0` (only invariance),
    `invariance_weight=0.0` (only redundancy), `normalization="feature"`, `normalization="none"`, and `temperature`.

    Under a strategy of several replicas, inside `strategy.run`, value and gradient are those of the global
    batch: the value is the same on every replica, and the gradient is with respect to this replica's rows,
    so that gradients of weights are to be SUMMED over replicas (which Keras' optimizers do). Neither you nor
    Keras divides by the number of replicas. Replicas may have different numbers of rows, or none.

    Args:
        redundancy_weight: lambda, the weight of the off-diagonal terms. The paper: 0.0051 at D = 8192.
        epsilon: Added to the biased variance when standardising.
        form: `"feature"` builds the D x D matrix and sums it over replicas, `"batch"` gathers the embeddings
            and builds two N x N Gram matrices instead, each replica its own rows of them; `"auto"` is
            whichever costs less (`ops.batch_form_is_cheaper`). The numbers are the same. The batch form is for
            `normalization="batch"` without a temperature.
        matmul_dtype: `"bfloat16"` rounds the standardised embeddings for the matrix products, and only there: the
            loss and its gradient are then right to about 1 %. None multiplies in float32, whatever the policy.
        invariance_weight: Weight of the diagonal terms.
        normalization: `"batch"`: each feature is standardised over the batch. `"feature"`: each row is standardised
            over its features. `"none"`: `C` is of the embeddings as they are.
        temperature: tau of a cross-entropy in place of the squares, `-log sum_i exp(C_ii / tau)` and, weighted,
            `log sum_{i != j} exp(max(C_ij, 0) / tau)`; None for the squares.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.

    Returns:
        A scalar, differentiable once with respect to both arguments.

    Raises:
        ValueError: For an unknown form, dtype or normalisation, a negative weight, an epsilon or temperature that is
            not positive, the batch form of an ablation that has none, embeddings of different shapes or of another
            rank than 2, or a batch of one row.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = BarlowTwinsLoss(redundancy_weight=0.0051)
    >>> bool(loss(z, z) < loss(z, -z))
    True

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230, equations 1 and 2.
    """

    def __init__(
        self,
        redundancy_weight=0.0051,
        epsilon=1e-5,
        form="auto",
        matmul_dtype=None,
        invariance_weight=1.0,
        normalization="batch",
        temperature=None,
    ):
        _check_choice("form", form, FORMS)
        _check_choice("matmul_dtype", matmul_dtype, MATMUL_DTYPES)
        _check_choice("normalization", normalization, NORMALIZATIONS)
        for name, weight in (("redundancy_weight", redundancy_weight), ("invariance_weight", invariance_weight)):
            if weight < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={weight}")
        for name, value in (("epsilon", epsilon), ("temperature", temperature)):
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        if form == "batch" and (normalization != "batch" or temperature is not None):
            raise ValueError(
                'The batch form is for normalization="batch" and no temperature. Received: form="batch", '
                f'normalization={normalization!r}, temperature={temperature}. Use form="auto".'
            )
        self.redundancy_weight = redundancy_weight
        self.epsilon = epsilon
        self.form = form
        self.matmul_dtype = matmul_dtype
        self.invariance_weight = invariance_weight
        self.normalization = normalization
        self.temperature = temperature

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
        if self.normalization != "batch" or self.temperature is not None:
            form = "feature"
        if form == "auto" and total_rows is not None:
            # All replicas must choose alike, and their own rows may differ in number.
            form = "batch" if ops.batch_form_is_cheaper(total_rows, z_a.shape[1], replicas) else "feature"
        if form == "feature":
            return self._with_reduced_matrix(z_a, z_b)
        return self._with_gathered_rows(z_a, z_b, form)

    def _with_reduced_matrix(self, z_a, z_b):
        """The feature form: replicas exchange moments and the sum of `C`."""
        total = distribution.sum_over_replicas
        count = total(kops.cast(kops.shape(z_a)[0], z_a.dtype))
        (a, b), back = self._normalized(z_a, z_b, count)
        correlation = total(ops.product(kops.transpose(a), b, self.matmul_dtype)) / count
        if self.temperature is None:
            terms, slope = self._squares(correlation)
        else:
            terms, slope = self._cross_entropy(correlation)
        # dL/da = b (dL/dC)^T / N, and mean(dL/da * a) over the rows is the row sum of C * dL/dC, over N.
        gradient_a = ops.product(b, kops.transpose(slope), self.matmul_dtype) / count
        gradient_b = ops.product(a, slope, self.matmul_dtype) / count
        products = correlation * slope
        return (
            terms,
            back[0](gradient_a, kops.sum(products, axis=1) / count),
            back[1](gradient_b, kops.sum(products, axis=0) / count),
        )

    def _normalized(self, z_a, z_b, count):
        """Both embeddings as `C` takes them, and for each what carries `(gradient, its mean product)` back to `z`."""
        if self.normalization == "none":
            return (z_a, z_b), [lambda gradient, mean_product: gradient] * 2
        if self.normalization == "feature":
            normalized = [ops.standardize(z, self.epsilon, axis=1) for z in (z_a, z_b)]
            return [a for a, _ in normalized], [ops.rows_backward(*pair) for pair in normalized]

        def mean_over_rows(a, b):
            """Of both views, in one sum over replicas."""
            sums = kops.stack([kops.sum(a, axis=0), kops.sum(b, axis=0)])
            return kops.unstack(distribution.sum_over_replicas(sums) / count, num=2)

        means = mean_over_rows(z_a, z_b)
        centred = [z - mean for z, mean in zip((z_a, z_b), means, strict=True)]
        variances = mean_over_rows(*map(kops.square, centred))
        deviations = [kops.sqrt(variance + self.epsilon) for variance in variances]
        normalized = [x / deviation for x, deviation in zip(centred, deviations, strict=True)]

        def through(z_hat, deviation):
            return lambda gradient, mean_product: ops.through_standardization(gradient, z_hat, deviation, mean_product)

        return normalized, [through(*pair) for pair in zip(normalized, deviations, strict=True)]

    def _squares(self, correlation):
        """The terms of the paper's loss, and `dL/dC`."""
        diagonal = kops.diagonal(correlation)
        slope = 2.0 * self.redundancy_weight * correlation
        # The diagonal has a slope of its own.
        pull = ops.invariance_gradient(diagonal, self.redundancy_weight, self.invariance_weight)
        slope = slope + kops.diag(pull)
        return self._terms(diagonal, kops.sum(kops.square(correlation))), slope

    def _cross_entropy(self, correlation):
        """The terms of the cross-entropy with temperature, and `dL/dC`."""
        same = kops.eye(correlation.shape[0], dtype="bool")
        # The places of the diagonal have no part in the second sum.
        others = kops.where(same, -float("inf"), kops.maximum(correlation, 0.0) / self.temperature)
        redundancy = kops.logsumexp(others)
        diagonal = kops.diagonal(correlation) / self.temperature
        invariance = -kops.logsumexp(diagonal)
        rising = kops.cast(correlation > 0, correlation.dtype) / self.temperature
        slope = self.redundancy_weight * kops.exp(others - redundancy) * rising
        slope = slope - self.invariance_weight * kops.diag(kops.softmax(diagonal) / self.temperature)
        loss = self.invariance_weight * invariance + self.redundancy_weight * redundancy
        return LossTerms(loss, invariance, redundancy), slope

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
        pull = ops.invariance_gradient(diagonal, self.redundancy_weight, self.invariance_weight) / count
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
        loss = self.invariance_weight * invariance + self.redundancy_weight * redundancy
        return LossTerms(loss, invariance, redundancy)

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
        names += ("invariance_weight", "normalization", "temperature")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")
