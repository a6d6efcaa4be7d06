"""The contract of methods: a new loss and a new method of a few lines have the exact step on any devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_barlow as kb
from keras_barlow.pretraining import momentum
from tests import shared
from tests.test_exact_step import ROWS, SIZE, dataset, network, pairs


@pytest.fixture(autouse=True)
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


class Contrast(kb.losses.Loss):
    """A cross-entropy over the whole batch: every row is compared with all rows of all replicas."""

    log_names = ("loss", "agreement")

    def __init__(self, temperature=0.5):
        self.temperature = temperature

    def terms(self, z_a, z_b, target):
        agreement = ops.mean(ops.sum(z_a * target, axis=1))
        logits = ops.matmul(z_a, ops.transpose(z_b)) / self.temperature
        entropy = ops.mean(ops.logsumexp(logits, axis=1) - ops.diagonal(logits))
        return {"loss": entropy - 0.5 * agreement, "agreement": agreement}


class Method(kb.pretraining.JointEmbedding):
    """Three embeddings, one of them from a momentum copy."""

    def __init__(self, encoder, projector, views=None, loss=None, accumulation_steps=1, **kwargs):
        super().__init__(encoder, projector, views, loss or Contrast(), accumulation_steps, **kwargs)
        self.slow = momentum.slow_copy(self.encoder, self.encoder.input_shape)

    def embeddings(self, views, training):
        target = self.projector(self.slow(views[1], training=training), training=training)
        return *(self.project(view, training=training) for view in views), ops.stop_gradient(target)

    def after_step(self, embeddings):
        momentum.follow([self.slow], [self.encoder], 0.9)


def build(**arguments):
    keras.utils.set_random_seed(1)
    model = Method(network(activity=keras.regularizers.L2(2**-5)), keras.layers.Dense(8), **arguments)
    model.compile(keras.optimizers.SGD(0.1))
    return model


def one_tape(steps):
    """The plain step of an independent implementation, on one device and the whole batch."""
    keras.utils.set_random_seed(1)
    encoder, projector = network(activity=keras.regularizers.L2(2**-5)), keras.layers.Dense(8)
    projector.build(encoder.output_shape)
    slow = keras.models.clone_model(encoder)
    slow.set_weights(encoder.get_weights())
    variables = [*encoder.trainable_variables, *projector.trainable_variables]
    view_a, view_b = (tf.constant(view, "float64") for view in pairs())
    for _ in range(steps):
        with tf.GradientTape() as tape:
            z, losses = [], []
            for view in (view_a, view_b):
                z.append(projector(encoder(view)))
                losses += encoder.losses
            target = tf.stop_gradient(projector(slow(view_b)))
            logits = tf.matmul(z[0], z[1], transpose_b=True) / 0.5
            entropy = tf.reduce_mean(tf.reduce_logsumexp(logits, 1) - tf.linalg.diag_part(logits))
            loss = entropy - 0.5 * tf.reduce_mean(tf.reduce_sum(z[0] * target, 1))
            # `encoder.losses` has the kernel regularizer once per pass; the step has it once.
            kernel = encoder.layers[1].kernel
            loss += tf.add_n(losses) - kernel.regularizer(kernel)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        for target, weight in zip(slow.weights, encoder.weights, strict=True):
            target.assign(0.9 * target + 0.1 * weight)
    return [weight.numpy() for part in (encoder, projector, slow) for weight in part.weights]


@pytest.mark.parametrize("replicas, accumulation_steps", shared.few([(1, 1), (1, 4), (4, 1), (4, 2)], (1, 4)))
def test_the_step_is_the_plain_step_on_the_whole_batch(strategy, replicas, accumulation_steps):
    scope = strategy.scope() if replicas > 1 else tf.distribute.get_strategy().scope()
    with scope:
        model = build(accumulation_steps=accumulation_steps)
    history = model.fit(dataset((pairs(),)), epochs=3, verbose=0).history
    assert set(history) == {"loss", "agreement"}
    for weight, expected in zip(model.weights, one_tape(3), strict=True):
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-10, atol=1e-10, err_msg=weight.path)


def test_the_config_comes_from_the_constructor():
    model = build(accumulation_steps=2)
    config = model.get_config()
    assert {"encoder", "projector", "views", "loss", "accumulation_steps"} <= set(config)
    again = Method.from_config(config, custom_objects={"Contrast": Contrast})
    assert again.accumulation_steps == 2 and again.loss.get_config() == {"temperature": 0.5}
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in model.weights]


def test_a_loss_of_another_class_is_refused():
    with pytest.raises(ValueError, match=r"`loss` must be a keras_barlow.losses.Loss.*Received.*define `terms`"):
        build(loss="mse")


def test_what_a_method_must_define_is_said():
    keras.utils.set_random_seed(1)
    model = kb.pretraining.JointEmbedding(network(), keras.layers.Dense(8), None, kb.losses.Loss())
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(NotImplementedError, match=r"JointEmbedding must define `embeddings\(views, training\)`"):
        model.fit(dataset((pairs(),)), verbose=0)
    with pytest.raises(NotImplementedError, match=r"Loss must define `terms\(\*z\)`"):
        kb.losses.Loss()(np.zeros((ROWS, SIZE)), np.zeros((ROWS, SIZE)))
