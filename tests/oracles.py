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


def lars(weights, gradients, learning_rate, vector_learning_rate, momentum=0.9, trust=0.001, decay=1e-6):
    """Returns the weights after each step, for a sequence of gradients."""
    weight, velocity, history = np.asarray(weights, "float64"), 0.0, []
    for gradient in gradients:
        rate = learning_rate
        if weight.ndim > 1:
            gradient = gradient + decay * weight
            norms = np.linalg.norm(weight), np.linalg.norm(gradient)
            if all(norm > 0 for norm in norms):
                gradient = gradient * trust * norms[0] / norms[1]
        else:
            rate = vector_learning_rate
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
