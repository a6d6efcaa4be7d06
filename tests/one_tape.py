"""The methods once more: one tape, one device, the whole batch, plain TensorFlow, losses written in another way.

Every function of `LOSSES` takes what it needs from a `State` and returns the loss; `train` takes SGD steps with it.
"""

import keras
import numpy as np
import tensorflow as tf

RATE, WEIGHT_DECAY = 2**-8, 2**-7


class State:
    """Copies of the networks of a model, and what the method keeps besides them."""

    def __init__(self, model):
        self.model, self.step = model, 0
        self.encoder = clone(model.encoder)
        self.projector = clone(model.projector)
        self.predictor = clone(getattr(model, "predictor", None))
        self.slow = [clone(network) for network in getattr(model, "target", None) or ()]
        self.queue = [*model.queue.numpy()] if hasattr(model, "queue") else None
        self.prototypes = tf.Variable(model.prototypes.numpy()) if hasattr(model, "prototypes") else None

    @property
    def variables(self):
        networks = [network for network in (self.encoder, self.projector, self.predictor) if network is not None]
        variables = [variable.value for network in networks for variable in network.trainable_variables]
        frozen = self.prototypes is None or self.step < self.model.frozen_steps
        return variables if frozen else [*variables, self.prototypes]

    def z(self, view):
        return self.projector(self.encoder(view))

    def p(self, view):
        return self.predictor(self.z(view))

    def target(self, view):
        encoder, projector = self.slow
        return tf.stop_gradient(projector(encoder(view)))

    def result(self):
        """Everything that training changes, by name."""
        networks = {"encoder": self.encoder, "projector": self.projector, "predictor": self.predictor}
        networks.update(zip(("slow encoder", "slow projector"), self.slow, strict=False))
        arrays = {
            f"{name} {index}": weight.numpy()
            for name, network in networks.items()
            if network is not None
            for index, weight in enumerate(network.weights)
        }
        if self.queue is not None:
            arrays["queue"] = np.stack(self.queue)
        if self.prototypes is not None:
            arrays["prototypes"] = self.prototypes.numpy()
        return arrays


def clone(network):
    if network is None:
        return None
    copy = network.__class__.from_config(network.get_config())
    copy.build(network.input_shape if isinstance(network, keras.Model) else (None, network.kernel.shape[0]))
    copy.set_weights(network.get_weights())
    return copy


def unit(x):
    return x / tf.norm(x, axis=1, keepdims=True)


def vicreg(state, view_a, view_b):
    z = [state.z(view_a), state.z(view_b)]
    loss = 25 * tf.reduce_mean((z[0] - z[1]) ** 2)
    for x in z:
        rows, features = x.shape
        x -= tf.reduce_mean(x, 0)
        covariance = tf.einsum("ni,nj->ij", x, x) / (rows - 1)
        deviation = tf.sqrt(tf.linalg.diag_part(covariance) + 1e-4)
        loss += 25 * tf.reduce_mean(tf.maximum(0.0, 1 - deviation)) / 2
        loss += tf.reduce_sum(tf.linalg.set_diag(covariance, tf.zeros(features, x.dtype)) ** 2) / features
    return loss


def simclr(state, view_a, view_b):
    a, b = unit(state.z(view_a)), unit(state.z(view_b))
    rows = a.shape[0]
    loss = 0.0
    for queries, partners in ((a, b), (b, a)):
        for row in range(rows):
            positive = tf.reduce_sum(queries[row] * partners[row])
            same = tf.boolean_mask(queries, np.arange(rows) != row)
            negatives = tf.boolean_mask(partners, np.arange(rows) != row)
            similarities = tf.concat([[positive], tf.linalg.matvec(same, queries[row])], 0)
            similarities = tf.concat([similarities, tf.linalg.matvec(negatives, queries[row])], 0)
            loss -= tf.math.log(tf.exp(positive / 0.5) / tf.reduce_sum(tf.exp(similarities / 0.5)))
    return loss / (2 * rows)


def byol(state, view_a, view_b):
    a, b = unit(state.p(view_a)), unit(state.p(view_b))
    distances = [(a - unit(state.target(view_b))) ** 2, (b - unit(state.target(view_a))) ** 2]
    return sum(tf.reduce_mean(tf.reduce_sum(distance, 1)) for distance in distances)


def simsiam(state, view_a, view_b):
    pairs = ((view_a, view_b), (view_b, view_a))
    cosines = [tf.reduce_sum(unit(state.p(x)) * unit(tf.stop_gradient(state.z(y))), 1) for x, y in pairs]
    return -tf.reduce_mean(cosines[0] + cosines[1]) / 2


def moco(state, view_a, view_b):
    query, key = unit(state.z(view_a)), unit(state.target(view_b))
    state.keys = key.numpy()
    positive = tf.exp(tf.reduce_sum(query * key, 1) / 0.2)
    negatives = [tf.exp(tf.linalg.matvec(query, old) / 0.2) for old in state.queue]
    return -tf.reduce_mean(tf.math.log(positive / (positive + sum(negatives))))


def swav(state, view_a, view_b):
    scores = [tf.matmul(unit(state.z(view)), state.prototypes) for view in (view_a, view_b)]
    loss = 0.0
    for own, other in (scores, scores[::-1]):
        codes = np.exp(own.numpy() / 0.05).T
        codes /= codes.sum()
        for _ in range(3):
            codes /= codes.sum(1, keepdims=True) * codes.shape[0]
            codes /= codes.sum(0, keepdims=True) * codes.shape[1]
        codes = (codes * codes.shape[1]).T
        loss -= tf.reduce_mean(tf.reduce_sum(codes * tf.nn.log_softmax(other / 0.1), 1)) / 2
    return loss


def mixed_barlow_twins(state, view_a, view_b):
    """Five times the regularizer of the published code, with the next row as the other image."""
    share = float(state.model.mixing(tf.constant(state.step, tf.int64)))
    mixed = share * view_a + (1 - share) * tf.concat([view_b[1:], view_b[:1]], 0)
    z = [state.z(view) for view in (view_a, view_b, mixed)]
    a, b, m = [(x - tf.reduce_mean(x, 0)) / tf.sqrt(tf.math.reduce_variance(x, 0) + 1e-5) for x in z]
    rows, other = a.shape[0], tf.concat([b[1:], b[:1]], 0)

    def correlation(x, y):
        return tf.matmul(x, y, transpose_a=True) / rows

    c = correlation(a, b)
    diagonal = tf.linalg.diag_part(c)
    off_diagonal = tf.reduce_sum(tf.linalg.set_diag(c, tf.zeros_like(diagonal)) ** 2)
    targets = [share * correlation(a, x) + (1 - share) * correlation(other, x) for x in (a, b)]
    errors = [correlation(m, x) - target for x, target in zip((a, b), targets, strict=True)]
    weight = state.model.loss.redundancy_weight
    mixup = sum(tf.reduce_sum(error**2) for error in errors)
    return tf.reduce_sum((1 - diagonal) ** 2) + weight * off_diagonal + 5 * weight * mixup


LOSSES = {"VICReg": vicreg, "SimCLR": simclr, "BYOL": byol, "SimSiam": simsiam, "MoCo": moco, "SwAV": swav}
LOSSES["BarlowTwins"] = mixed_barlow_twins


def train(model, batches):
    """Trains copies of the networks of a model.

    Args:
        model: The model before training.
        batches: List of pairs of views.

    Returns:
        Dictionary of arrays, see `State.result`.
    """
    state = State(model)
    for state.step, (view_a, view_b) in enumerate(batches):
        with tf.GradientTape() as tape:
            tape.watch(state.variables)
            kernel = state.encoder.layers[1].kernel
            loss = LOSSES[type(model).__name__](state, view_a, view_b) + WEIGHT_DECAY * tf.reduce_sum(kernel**2)
        variables = state.variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)
        after(state)
    return state.result()


def after(state):
    momentum = getattr(state.model, "momentum", None)
    if getattr(state.model, "total_steps", None):
        momentum = 1 - (1 - momentum) * (np.cos(np.pi * state.step / state.model.total_steps) + 1) / 2
    for copy, network in zip(state.slow, (state.encoder, state.projector), strict=False):
        for target, weight in zip(copy.weights, network.weights, strict=True):
            target.assign(momentum * target + (1 - momentum) * weight)
    if state.queue is not None:
        state.queue = [*state.keys, *state.queue][: len(state.queue)]
    if state.prototypes is not None:
        state.prototypes.assign(state.prototypes / tf.norm(state.prototypes, axis=0))
