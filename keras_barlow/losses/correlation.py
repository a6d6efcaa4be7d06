"""The equations of the Barlow Twins loss as pure functions on `keras.ops`.

With `N` rows in the global batch and `D` features, for each of the two views:

    x = z - mean(z),   s = sqrt(mean(x^2) + epsilon),   a = x_a / s_a,   b = x_b / s_b
    C = a^T b / N,     c = diag(C)
    loss = sum_i (1 - c_i)^2  +  redundancy_weight * sum_{i != j} C_ij^2

The second sum is `||C||_F^2 - sum c^2`, and `||C||_F^2` has two exact forms:

- the feature form builds `C`:               3 N D^2 multiplications with the gradient, D^2 memory;
- the batch form uses `<a a^T, b b^T> / N^2`: 4 N^2 D multiplications with the gradient, N^2 memory.

Functions take this replica's rows, and where needed all rows of the global batch as well; on one replica the two are
the same tensors. Nothing here communicates.

References:
    Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins: Self-Supervised Learning via Redundancy Reduction,
    ICML 2021, https://arxiv.org/abs/2103.03230
"""

from keras import ops


def standardize(z, epsilon=1e-5, axis=0):
    """Standardizes every feature over the batch: `(z - mean) / sqrt(variance + epsilon)`.

    Args:
        z: Float tensor `(N, D)`: the embeddings of the whole batch.
        epsilon: Added to the biased variance, inside the root.
        axis: 0, or 1 to standardize every row over its features.

    Returns:
        The pair `(z_hat, deviation)` of shapes `(N, D)` and `(D,)`, or `(N, 1)` for rows.

    Example:

    >>> z_hat, deviation = standardize(ops.array([[1.0, 5.0], [3.0, 5.0]]), epsilon=0.0001)
    >>> [[round(float(x), 3) for x in row] for row in z_hat]
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    ((z_hat, deviation),) = standardize_views(
        [z], epsilon, lambda views: [ops.mean(view, axis=axis, keepdims=axis == 1) for view in views]
    )
    return z_hat, deviation


def standardize_views(views, epsilon, means):
    """Standardizes several embeddings by means that may span replicas.

    Args:
        views: List of float tensors `(n, D)`.
        epsilon: Added to the biased variance.
        means: Function from a list of tensors to the list of their means over the batch.

    Returns:
        A list of pairs `(z_hat, deviation)`, see `standardize`.
    """
    centered = [z - mean for z, mean in zip(views, means(views), strict=True)]
    variances = means([ops.square(x) for x in centered])
    deviations = [ops.sqrt(variance + epsilon) for variance in variances]
    return [(x / deviation, deviation) for x, deviation in zip(centered, deviations, strict=True)]


def cross_correlation(z_a, z_b, epsilon=1e-5):
    """The cross-correlation matrix `C = a^T b / N` of two sets of embeddings.

    Args:
        z_a: Float tensor `(N, D)`.
        z_b: Float tensor `(N, D)`.
        epsilon: See `standardize`.

    Returns:
        Tensor `(D, D)`, entries between -1 and 1.
    """
    a, _ = standardize(z_a, epsilon)
    b, _ = standardize(z_b, epsilon)
    return ops.matmul(ops.transpose(a), b) / _row_count(a)


def squared_norm_by_rows(a, b, all_a, all_b, matmul_dtype=None):
    """The batch form: this replica's share of `||C||_F^2`, and half the gradient of the whole for its rows.

    Args:
        a: Standardized embeddings of view A, this replica's rows, `(n, D)`.
        b: Standardized embeddings of view B, this replica's rows, `(n, D)`.
        all_a: Standardized embeddings of view A, all rows, `(N, D)`.
        all_b: Standardized embeddings of view B, all rows, `(N, D)`.
        matmul_dtype: See `product`.

    Returns:
        The triple `(share, half_gradient_a, half_gradient_b)`: a scalar whose sum over replicas is
        `||C||_F^2`, and two tensors `(n, D)`.
    """
    count = _row_count(all_a)
    gram_a = product(a, ops.transpose(all_a), matmul_dtype) / count
    gram_b = product(b, ops.transpose(all_b), matmul_dtype) / count
    return (
        ops.sum(gram_a * gram_b),
        product(gram_b, all_a, matmul_dtype) / count,
        product(gram_a, all_b, matmul_dtype) / count,
    )


def squared_norm_by_features(a, b, all_a, all_b, matmul_dtype=None):
    """The feature form of `squared_norm_by_rows`: the same numbers from the matrix `C`.

    Args:
        a: See `squared_norm_by_rows`.
        b: See `squared_norm_by_rows`.
        all_a: See `squared_norm_by_rows`.
        all_b: See `squared_norm_by_rows`.
        matmul_dtype: See `product`.

    Returns:
        See `squared_norm_by_rows`.
    """
    count = _row_count(all_a)
    correlation = product(ops.transpose(all_a), all_b, matmul_dtype) / count
    share = ops.sum(ops.square(correlation)) * (_row_count(a) / count)
    return share, *through_matrix(correlation, a, b, count, matmul_dtype)


def squared_norm_of_product(a, b):
    """`||a^T b||_F^2` of all rows, from the smaller matrices: `a^T b`, or `a a^T` and `b b^T`.

    Args:
        a: Float tensor `(N, D)`.
        b: Float tensor `(N, D)`.

    Returns:
        A scalar.

    Example:

    >>> a = ops.array([[1.0, 2.0, 3.0]])
    >>> float(squared_norm_of_product(a, a))
    196.0
    """

    def by_rows():
        gram = ops.matmul(a, ops.transpose(a))
        return ops.sum(gram * (gram if b is a else ops.matmul(b, ops.transpose(b))))

    def by_features():
        return ops.sum(ops.square(ops.matmul(ops.transpose(a), b)))

    # Under a strategy, the number of rows is known only when the step runs.
    return ops.cond(ops.shape(a)[0] < a.shape[1], by_rows, by_features)


def shift_by_target(share, half_gradient_a, half_gradient_b, a, b, count, target):
    """Turns `||C||_F^2` and its half gradients into those of `||C - t||_F^2 = ||C||_F^2 - 2 t sum(C) + D^2 t^2`.

    `sum(C) = sum_n (sum_i a_ni) (sum_j b_nj) / N`, so `C` is not built.

    Args:
        share: This replica's share of `||C||_F^2`, a scalar.
        half_gradient_a: Half the gradient with respect to `a`, `(n, D)`.
        half_gradient_b: Half the gradient with respect to `b`, `(n, D)`.
        a: Standardized embeddings of view A, this replica's rows, `(n, D)`.
        b: Standardized embeddings of view B, this replica's rows, `(n, D)`.
        count: N, a scalar.
        target: t.

    Returns:
        The triple `(share, half_gradient_a, half_gradient_b)`.
    """
    sums_a, sums_b = (ops.sum(view, axis=1, keepdims=True) for view in (a, b))
    constant = (a.shape[1] * target) ** 2 * _row_count(a) / count
    share = share - 2.0 * target * ops.sum(sums_a * sums_b) / count + constant
    return share, half_gradient_a - target * sums_b / count, half_gradient_b - target * sums_a / count


def through_matrix(slope, a, b, count, matmul_dtype=None):
    """Carries a gradient from `C = a^T b / N` back to `a` and `b`: `da = b (dL/dC)^T / N`, `db = a (dL/dC) / N`.

    Args:
        slope: `dL/dC`, `(D, D)`.
        a: Standardized embeddings of view A, `(n, D)`.
        b: Standardized embeddings of view B, `(n, D)`.
        count: N, a scalar.
        matmul_dtype: See `product`.

    Returns:
        The pair `(da, db)`, two tensors `(n, D)`.
    """
    return product(b, ops.transpose(slope), matmul_dtype) / count, product(a, slope, matmul_dtype) / count


def product(x, y, matmul_dtype=None):
    """The matrix product, in the dtype of `x`.

    Args:
        x: Float tensor `(n, k)`.
        y: Float tensor `(k, m)`.
        matmul_dtype: Dtype to which both operands are cast, such as `"bfloat16"`. None keeps their dtype.

    Returns:
        Tensor `(n, m)`.
    """
    if matmul_dtype is None:
        return ops.matmul(x, y)
    return ops.cast(ops.matmul(ops.cast(x, matmul_dtype), ops.cast(y, matmul_dtype)), x.dtype)


def invariance_gradient(diagonal, redundancy_weight, invariance_weight=1.0, off_diagonal_target=0.0):
    """Derivative of the loss with respect to `c`, at fixed `||C - t||_F^2`: `-2 w (1 - c) - 2 lambda (c - t)`.

    The last term removes the diagonal from the redundancy.

    Args:
        diagonal: `c`, `(D,)`.
        redundancy_weight: lambda.
        invariance_weight: w, 1 in the paper.
        off_diagonal_target: t, 0 in the paper.

    Returns:
        Tensor `(D,)`.
    """
    return -2.0 * invariance_weight * (1.0 - diagonal) - 2.0 * redundancy_weight * (diagonal - off_diagonal_target)


def through_standardization(gradient, z_hat, deviation, mean_product):
    """Carries a gradient from standardized embeddings back to the embeddings.

        dz = (d - z_hat * mean(d * z_hat)) / s

    The mean of `d` is zero for every loss used here.

    Args:
        gradient: `d`, `(n, D)`.
        z_hat: Standardized embeddings, `(n, D)`.
        deviation: `s`, `(D,)`.
        mean_product: `mean(d * z_hat)` over all rows of the global batch, `(D,)`.

    Returns:
        Tensor `(n, D)`.
    """
    return (gradient - z_hat * mean_product) / deviation


def rows_backward(z_hat, deviation):
    """Returns a function that carries a gradient back through `standardize(z, axis=1)`.

        dz = (d - mean(d) - z_hat * mean(d * z_hat)) / s,   means over the features of each row

    Args:
        z_hat: Standardized rows, `(n, D)`.
        deviation: `s`, `(n, 1)`.

    Returns:
        A function of `d`, `(n, D)`, and of a second argument that it ignores.
    """

    def backward(gradient, _):
        mean = ops.mean(gradient, axis=1, keepdims=True)
        mean_product = ops.mean(gradient * z_hat, axis=1, keepdims=True)
        return (gradient - mean - z_hat * mean_product) / deviation

    return backward


def _row_count(x):
    return ops.cast(ops.shape(x)[0], x.dtype)
