"""Slow, independent NumPy versions of the library's computations, in float64."""

import numpy as np


def standardize(z, epsilon=1e-5):
    return (z - z.mean(0)) / np.sqrt(z.var(0) + epsilon)


def barlow_twins_loss(z_a, z_b, redundancy_weight=0.0051, epsilon=1e-5):
    """Returns `(loss, invariance, redundancy)` by Equation 1 of the paper, entry by entry."""
    a, b = standardize(np.asarray(z_a, "float64"), epsilon), standardize(np.asarray(z_b, "float64"), epsilon)
    count, features = a.shape
    invariance = redundancy = 0.0
    for i in range(features):
        for j in range(features):
            correlation = sum(a[:, i] * b[:, j]) / count
            if i == j:
                invariance += (1 - correlation) ** 2
            else:
                redundancy += correlation**2
    return invariance + redundancy_weight * redundancy, invariance, redundancy


def barlow_twins_gradient(z_a, z_b, redundancy_weight=0.0051, epsilon=1e-5):
    """Returns the gradients of the loss, with an explicit Jacobian of the standardization of each feature."""
    z_a, z_b = np.asarray(z_a, "float64"), np.asarray(z_b, "float64")
    a, b = standardize(z_a, epsilon), standardize(z_b, epsilon)
    count, features = a.shape
    correlation = a.T @ b / count
    slope = 2 * redundancy_weight * correlation
    np.fill_diagonal(slope, -2 * (1 - np.diagonal(correlation)))

    def back(z, z_hat, d):
        out = np.empty_like(z)
        for j in range(features):
            deviation = np.sqrt(z[:, j].var() + epsilon)
            centering = np.eye(count) - 1 / count
            jacobian = (centering - np.outer(z_hat[:, j], z_hat[:, j]) / count) / deviation
            out[:, j] = jacobian @ d[:, j]
        return out

    return back(z_a, a, b @ slope.T / count), back(z_b, b, a @ slope / count)


def vicreg_loss(z_a, z_b, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0, epsilon=1e-4):
    """Returns `(loss, invariance, variance, covariance)`, entry by entry."""
    features = z_a.shape[1]
    invariance = ((z_a - z_b) ** 2).mean()
    variance = covariance = 0.0
    for matrix in (np.cov(z_a, rowvar=False), np.cov(z_b, rowvar=False)):
        for i in range(features):
            variance += max(0.0, 1 - np.sqrt(matrix[i, i] + epsilon)) / features / 2
            covariance += sum(matrix[i, j] ** 2 for j in range(features) if j != i) / features
    loss = invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    return loss, invariance, variance, covariance


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def simclr_loss(z_a, z_b, temperature=0.5):
    """Returns `(loss, accuracy)` of NT-Xent, pair by pair."""
    z, count = np.concatenate([z_a, z_b]), len(z_a)
    losses, found = [], []
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = {j: cosine(z[i], z[j]) for j in range(2 * count) if j != i}
        losses.append(np.log(sum(np.exp(s / temperature) for s in others.values())) - others[partner] / temperature)
        found.append(max(others, key=others.get) == partner)
    return np.mean(losses), np.mean(found)


def moco_loss(query, key, queue, temperature=0.2):
    """Returns `(loss, accuracy)` of InfoNCE with a queue, row by row."""
    losses, found = [], []
    for q, k in zip(query, key, strict=True):
        positive, negatives = cosine(q, k), [cosine(q, u) for u in queue]
        exponents = [np.exp(s / temperature) for s in (positive, *negatives)]
        losses.append(-np.log(exponents[0] / sum(exponents)))
        found.append(positive > max(negatives))
    return np.mean(losses), np.mean(found)


def swapped_cosine(*z):
    """The mean cosine of the prediction of each view and the target of each other view; the last two are targets."""
    predictions, targets = z[:-2], z[-2:]
    return np.mean(
        [
            cosine(p, t)
            for i, target in enumerate(targets)
            for j, prediction in enumerate(predictions)
            if i != j
            for p, t in zip(prediction, target, strict=True)
        ]
    )


def sinkhorn(scores, epsilon=0.05, iterations=3):
    """The codes `(N, K)` of SwAV, on the matrix itself as in its pseudocode."""
    codes = np.exp(scores / epsilon)
    for _ in range(iterations):
        codes = codes / codes.sum(0, keepdims=True)
        codes = codes / codes.sum(1, keepdims=True)
    return codes


def swav_loss(*scores, codes, temperature=0.1):
    """The swapped prediction for given codes of the first two views, row by row."""
    losses = []
    for i, code in enumerate(codes):
        for j, view in enumerate(scores):
            if i != j:
                for q, s in zip(code, view, strict=True):
                    probabilities = np.exp(s / temperature) / np.exp(s / temperature).sum()
                    losses.append(-(q * np.log(probabilities)).sum())
    return np.mean(losses)


def numeric_gradient(function, z, step=1e-5):
    """Central differences of a function of several float64 arrays, one array per argument."""
    gradients = []
    for index in range(len(z)):
        gradient = np.zeros_like(z[index])
        for place in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                moved = [array.copy() for array in z]
                moved[index][place] += sign * step
                values.append(function(*moved))
            gradient[place] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def lars(weights, gradients, rates, vector_rates, momentum=0.9, trust=0.001, decay=1e-6):
    """Returns the weights after each step of the Barlow Twins reference code, for a sequence of gradients and rates."""

    def scaled(gradient, weight, rate):
        gradient = gradient + decay * weight
        norms = np.linalg.norm(weight), np.linalg.norm(gradient)
        return gradient * trust * norms[0] / norms[1] if all(norm > 0 for norm in norms) else gradient

    return _momentum_steps(weights, gradients, rates, vector_rates, momentum, scaled)


def clipped_lars(weights, gradients, rates, vector_rates, momentum=0.9, trust=0.001, decay=1e-6):
    """Returns the weights after each step of the LARS of solo-learn with `clip_lr` and `exclude_bias_n_norm`."""

    def scaled(gradient, weight, rate):
        norms = np.linalg.norm(weight), np.linalg.norm(gradient)
        if not all(norm > 0 for norm in norms):
            return gradient
        ratio = trust * norms[0] / (norms[1] + norms[0] * decay)
        return (gradient + decay * weight) * (min(ratio / rate, 1) if rate else 1)

    return _momentum_steps(weights, gradients, rates, vector_rates, momentum, scaled)


def _momentum_steps(weights, gradients, rates, vector_rates, momentum, scaled):
    weight, velocity, history = np.asarray(weights, "float64"), 0.0, []
    for gradient, matrix_rate, vector_rate in zip(gradients, rates, vector_rates, strict=True):
        rate = matrix_rate if weight.ndim > 1 else vector_rate
        gradient = scaled(gradient, weight, rate) if weight.ndim > 1 else gradient
        velocity = momentum * velocity + gradient
        weight = weight - rate * velocity
        history.append(weight)
    return history


def xla_keeps_nan():
    """Returns whether XLA clips NaN to NaN, as the views need. In TensorFlow 2.18, it clips NaN to the lower bound."""
    import keras
    import tensorflow as tf

    clip = tf.function(lambda x: keras.ops.clip(x, 0.0, 255.0), jit_compile=True)
    return bool(np.isnan(clip(tf.constant([np.nan, 1.0]))[0]))
