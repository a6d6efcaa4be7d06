"""The Barlow Twins loss and its two exact forms, thin over `correlation`."""

import functools

import keras
from keras import ops

from keras_barlow import distribution
from keras_barlow.losses import correlation, costs
from keras_barlow.losses.base import Loss, checked_rows

FORMS = ("auto", "feature", "batch")
MATMUL_DTYPES = (None, "bfloat16")
NORMALIZATIONS = ("batch", "feature", "none")


@keras.saving.register_keras_serializable(package="keras_barlow")
class BarlowTwinsLoss(Loss):
    """The Barlow Twins loss of two batches of embeddings.

        loss = sum_i (1 - C_ii)^2 + redundancy_weight * sum_{i != j} C_ij^2

    where `C = a^T b / N` is the cross-correlation of the embeddings, each feature standardized over the
    batch. It is a sum over features and already a mean over the batch. Do not rescale it.

    Each ablation of the paper's Table 5 is one argument: `redundancy_weight=0.0` (only invariance),
    `invariance_weight=0.0` (only redundancy), `normalization="feature"`, `normalization="none"`, and `temperature`.

    Under a strategy of several replicas, inside `strategy.run`, value and gradient are those of the global
    batch: the value is the same on every replica, and the gradient is with respect to this replica's rows.
    Gradients of weights must be SUMMED over replicas, as Keras' optimizers do, and not divided by the number
    of replicas. Replicas may have different numbers of rows, or none.

    Args:
        redundancy_weight: lambda, the weight of the off-diagonal terms. The paper: 0.0051 at D = 8192.
        epsilon: Added to the biased variance in the standardization.
        form: Algorithm, which does not change the result. `"feature"` builds the D x D matrix and sums it over
            replicas. `"batch"` gathers the embeddings and builds two N x N Gram matrices, of which each replica
            computes its own rows; it supports `normalization="batch"` without a temperature. `"auto"` chooses the
            cheaper one (`losses.batch_form_is_cheaper`).
        matmul_dtype: Dtype of the operands of the matrix products. `"bfloat16"` is faster on accelerators, with an
            error of about 1 % in loss and gradient. None multiplies in float32 under any dtype policy.
        invariance_weight: Weight of the diagonal terms.
        normalization: `"batch"` standardizes each feature over the batch, `"feature"` each row over its features;
            `"none"` uses the embeddings as they are.
        temperature: tau of a cross-entropy instead of the squares, `-log sum_i exp(C_ii / tau)` and, weighted,
            `log sum_{i != j} exp(max(C_ij, 0) / tau)`. None uses the squares.
        off_diagonal_target: Target t of the correlations off the diagonal, whose squares become `(C_ij - t)^2`. -1
            gives the variant of the loss that maximizes the Hilbert-Schmidt independence criterion.

    Call arguments:
        z_a: Float tensor `(N, D)`: embeddings of view A. Half precision is computed in float32.
        z_b: Float tensor `(N, D)`: embeddings of view B, row by row of the same images.

    Returns:
        A scalar, differentiable once with respect to both arguments.

    Raises:
        ValueError: For an unknown form, dtype or normalization, a negative weight, an epsilon or temperature that is
            not positive, the batch form with an ablation that does not support it, embeddings of different shapes or
            of another rank than 2, or a batch of one row.

    Example:

    >>> z = keras.random.normal((8, 4), seed=0)
    >>> loss = BarlowTwinsLoss(redundancy_weight=0.0051)
    >>> bool(loss(z, z) < loss(z, -z))
    True

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230, equations 1 and 2.
        Tsai et al.: A Note on Connecting Barlow Twins with Negative-Sample-Free Contrastive Learning,
        https://arxiv.org/abs/2104.13712 (`off_diagonal_target=-1`).
    """

    log_names = ("loss", "invariance", "redundancy")

    def __init__(
        self,
        redundancy_weight=0.0051,
        epsilon=1e-5,
        form="auto",
        matmul_dtype=None,
        invariance_weight=1.0,
        normalization="batch",
        temperature=None,
        off_diagonal_target=0.0,
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
                'The batch form needs normalization="batch" and no temperature. Received: form="batch", '
                f'normalization={normalization!r}, temperature={temperature}. Use form="auto".'
            )
        if temperature is not None and off_diagonal_target:
            raise ValueError(
                "The cross-entropy has no target off the diagonal. Received: "
                f"temperature={temperature}, off_diagonal_target={off_diagonal_target}. Remove one of them."
            )
        self.redundancy_weight = redundancy_weight
        self.epsilon = epsilon
        self.form = form
        self.matmul_dtype = matmul_dtype
        self.invariance_weight = invariance_weight
        self.normalization = normalization
        self.temperature = temperature
        self.off_diagonal_target = off_diagonal_target

    def terms(self, z_a, z_b):
        """The loss and its parts.

        Args:
            z_a: Float tensor `(N, D)`: embeddings of view A, the whole batch.
            z_b: Float tensor `(N, D)`: embeddings of view B.

        Returns:
            Dictionary of three scalars: `loss = invariance_weight * invariance + redundancy_weight * redundancy`;
            `invariance`, `sum_i (1 - C_ii)^2`, or with a temperature `-log sum_i exp(C_ii / temperature)`; and
            `redundancy`, `sum_{i != j} (C_ij - off_diagonal_target)^2`, or with a temperature
            `log sum_{i != j} exp(max(C_ij, 0) / temperature)`.
        """
        count = ops.cast(ops.shape(z_a)[0], z_a.dtype)
        (a, b), _ = self._normalized(z_a, z_b, lambda views: [ops.mean(view, axis=0) for view in views])
        matrix = correlation.product(ops.transpose(a), b, self.matmul_dtype) / count
        return self._of_matrix(matrix)[0]

    def value_and_gradient(self, z_a, z_b, total_rows=None):
        """The terms of the global batch, and the exact gradient with respect to this replica's rows.

        Args:
            z_a: Embeddings of view A, `(n, D)`: this replica's rows.
            z_b: Embeddings of view B, `(n, D)`.
            total_rows: N of the global batch as a Python integer, the same on every replica. `form="auto"` uses it
                to choose the cheaper form. If None, several replicas gather the embeddings.

        Returns:
            The triple `(terms, gradient_a, gradient_b)`, see `Loss.value_and_gradient`.
        """
        z_a, z_b = self.checked(z_a, z_b)
        form = self._chosen_form(z_a.shape, total_rows)
        return self._with_summed_matrix(z_a, z_b) if form == "feature" else self._with_gathered_rows(z_a, z_b, form)

    def _chosen_form(self, shape, total_rows):
        """`"feature"` or `"batch"`; `"auto"` if the number of rows is known only when the step runs."""
        if self.normalization != "batch" or self.temperature is not None:
            return "feature"
        replicas = distribution.replica_count()
        rows = shape[0] if replicas == 1 else total_rows
        if self.form != "auto" or rows is None:
            return self.form
        return "batch" if costs.batch_form_is_cheaper(rows, shape[1], replicas) else "feature"

    def _with_summed_matrix(self, z_a, z_b):
        """The feature form: replicas sum moments and `C`."""
        total = distribution.sum_over_replicas
        count = total(ops.cast(ops.shape(z_a)[0], z_a.dtype))

        def means(views):
            """Means over the global batch, in one sum over replicas."""
            return ops.unstack(total(ops.stack([ops.sum(view, axis=0) for view in views])) / count, num=len(views))

        (a, b), backward = self._normalized(z_a, z_b, means)
        matrix = total(correlation.product(ops.transpose(a), b, self.matmul_dtype)) / count
        terms, slope = self._of_matrix(matrix)
        gradient_a, gradient_b = correlation.through_matrix(slope, a, b, count, self.matmul_dtype)
        # mean(dL/da * a) over the rows is the row sum of C * dL/dC, over N.
        products = matrix * slope
        return (
            terms,
            backward[0](gradient_a, ops.sum(products, axis=1) / count),
            backward[1](gradient_b, ops.sum(products, axis=0) / count),
        )

    def _normalized(self, z_a, z_b, means):
        """Normalized embeddings, and for each a function that carries `(gradient, mean product)` back to `z`."""
        if self.normalization == "none":
            return (z_a, z_b), [lambda gradient, mean_product: gradient] * 2
        if self.normalization == "feature":
            pairs = [correlation.standardize(z, self.epsilon, axis=1) for z in (z_a, z_b)]
            return [a for a, _ in pairs], [correlation.rows_backward(*pair) for pair in pairs]

        def through(z_hat, deviation):
            return lambda gradient, mean_product: correlation.through_standardization(
                gradient, z_hat, deviation, mean_product
            )

        pairs = correlation.standardize_views([z_a, z_b], self.epsilon, means)
        return [a for a, _ in pairs], [through(*pair) for pair in pairs]

    def _of_matrix(self, matrix):
        """The terms of the loss and `dL/dC`."""
        return self._squares(matrix) if self.temperature is None else self._cross_entropy(matrix)

    def _squares(self, matrix):
        """The paper's loss."""
        diagonal = ops.diagonal(matrix)
        errors = matrix - self.off_diagonal_target
        # The slope of the diagonal differs.
        slope = 2.0 * self.redundancy_weight * errors + ops.diag(self._pull(diagonal))
        return self._terms_of_squares(diagonal, ops.sum(ops.square(errors))), slope

    def _pull(self, diagonal):
        weights = self.redundancy_weight, self.invariance_weight, self.off_diagonal_target
        return correlation.invariance_gradient(diagonal, *weights)

    def _cross_entropy(self, matrix):
        """The cross-entropy with temperature, an ablation."""
        same = ops.eye(matrix.shape[0], dtype="bool")
        # The second sum excludes the diagonal.
        others = ops.where(same, -float("inf"), ops.maximum(matrix, 0.0) / self.temperature)
        redundancy = ops.logsumexp(others)
        diagonal = ops.diagonal(matrix) / self.temperature
        invariance = -ops.logsumexp(diagonal)
        rising = ops.cast(matrix > 0, matrix.dtype) / self.temperature
        slope = self.redundancy_weight * ops.exp(others - redundancy) * rising
        slope = slope - self.invariance_weight * ops.diag(ops.softmax(diagonal) / self.temperature)
        return self._weighted(invariance, redundancy), slope

    def _with_gathered_rows(self, z_a, z_b, form):
        """The batch form, or the cheaper form once the number of rows is known: replicas gather embeddings."""
        own = slice(None)
        all_z_a, all_z_b = z_a, z_b
        if distribution.replica_count() > 1:
            offset, _ = distribution.own_rows(ops.shape(z_a)[0])
            own = slice(offset, offset + ops.shape(z_a)[0])
            both = distribution.gather_rows(ops.concatenate([z_a, z_b], axis=1))
            all_z_a, all_z_b = ops.split(both, 2, axis=1)
        all_a, deviation_a = correlation.standardize(all_z_a, self.epsilon)
        all_b, deviation_b = correlation.standardize(all_z_b, self.epsilon)
        a, b = all_a[own], all_b[own]
        operands = (a, b, all_a, all_b, self.matmul_dtype)
        by_rows = functools.partial(correlation.squared_norm_by_rows, *operands)
        if form == "batch":
            share, gradient_a, gradient_b = by_rows()
        else:
            by_features = functools.partial(correlation.squared_norm_by_features, *operands)
            by_rows_is_cheaper = costs.batch_form_is_cheaper(ops.shape(all_a)[0], a.shape[1])
            share, gradient_a, gradient_b = ops.cond(by_rows_is_cheaper, by_rows, by_features)
        diagonal = ops.mean(all_a * all_b, axis=0)
        count = ops.cast(ops.shape(all_a)[0], all_a.dtype)
        if self.off_diagonal_target:
            share, gradient_a, gradient_b = correlation.shift_by_target(
                share, gradient_a, gradient_b, a, b, count, self.off_diagonal_target
            )
        pull = self._pull(diagonal) / count
        gradient_a = 2.0 * self.redundancy_weight * gradient_a + b * pull
        gradient_b = 2.0 * self.redundancy_weight * gradient_b + a * pull
        # One sum over replicas of 2 D + 1 numbers.
        sums = [ops.sum(gradient_a * a, axis=0), ops.sum(gradient_b * b, axis=0), ops.reshape(share, (1,))]
        sums = distribution.sum_over_replicas(ops.concatenate(sums))
        features = a.shape[1]
        return (
            self._terms_of_squares(diagonal, sums[-1]),
            correlation.through_standardization(gradient_a, a, deviation_a, sums[:features] / count),
            correlation.through_standardization(gradient_b, b, deviation_b, sums[features:-1] / count),
        )

    def _terms_of_squares(self, diagonal, squared_norm):
        invariance = ops.sum(ops.square(1.0 - diagonal))
        return self._weighted(invariance, squared_norm - ops.sum(ops.square(diagonal - self.off_diagonal_target)))

    def _weighted(self, invariance, redundancy):
        loss = self.invariance_weight * invariance + self.redundancy_weight * redundancy
        return {"loss": loss, "invariance": invariance, "redundancy": redundancy}

    def checked(self, z_a, z_b):
        return checked_rows(super().checked(z_a, z_b), "The Barlow Twins loss correlates features over the batch")


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")
