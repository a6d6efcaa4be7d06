"""Each use of a private name of Keras: it still works, and Keras still offers no public way.

When a test named `..._still_needed` fails, Keras has gained a public way: use it, and delete the function.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import keras_internals, optimizers


class Doubled(keras.layers.Layer):
    """A plain layer with a layer inside, an `add_loss` term and a weight regularizer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l2", name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        self.add_loss(keras.ops.sum(inputs))
        return self.inner(inputs)


class OtherReLU(keras.layers.ReLU):
    """A class without additional state."""

    def call(self, inputs):
        return inputs + 1.0


def nested():
    return keras.Sequential([keras.Input((2,)), keras.Sequential([keras.Input((2,)), Doubled(name="doubled")])])


def public_names(item, word):
    return {name for name in dir(item) if word in name and not name.startswith("_")}


def test_flat_layers_reaches_every_depth():
    model = nested()
    layers = keras_internals.flat_layers(model)
    assert layers[0] is model and len(set(map(id, layers))) == len(layers)
    assert {"doubled", "inner"} <= {layer.name for layer in layers}


def test_flat_layers_is_still_needed():
    assert "doubled" not in [layer.name for layer in nested().layers]
    assert not public_names(keras.layers.Layer, "layers")
    assert public_names(keras.Model, "layers") == {"layers"}


def test_losses_of_the_last_call_are_those_of_one_layer():
    layer = Doubled()
    for scale in (1.0, 3.0):
        layer(scale * np.ones((1, 2), "float32"))
        (term,) = keras_internals.losses_of_last_call(layer)
        assert float(term) == 2 * scale
        # The activity regularizer of the inner layer, without the regularizer of its kernel.
        assert len(keras_internals.losses_of_last_call(layer.inner)) == 1
    assert keras_internals.losses_of_last_call(keras.layers.ReLU()) == []


def test_losses_of_the_last_call_are_still_needed():
    layer = Doubled()
    layer(np.ones((1, 2), "float32"))
    # The term of the layer, and the activity and weight regularizers of the layer inside.
    assert len(layer.losses) == 3
    assert public_names(keras.layers.Layer, "loss") == {"add_loss", "losses"}


def test_change_class_keeps_the_layer_in_its_model():
    images = keras.Input((2,))
    layer = keras.layers.ReLU(name="rectified")
    model = keras.Model(images, layer(keras.layers.Dense(2, use_bias=False)(images)))
    before = model(np.ones((1, 2), "float32"))
    keras_internals.change_class(layer, OtherReLU)
    assert model.get_layer("rectified") is layer and isinstance(layer, OtherReLU)
    features = model.layers[1](np.ones((1, 2), "float32"))
    np.testing.assert_allclose(model(np.ones((1, 2), "float32")), features + 1.0)
    keras_internals.change_class(layer, keras.layers.ReLU)
    np.testing.assert_array_equal(model(np.ones((1, 2), "float32")), before)


def test_change_class_is_still_needed():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.ReLU()])
    clone = keras.models.clone_model(model, clone_function=lambda layer: layer)
    # The public way can replace layers of a new model only.
    assert clone is not model
    assert not public_names(keras.Model, "replace") and not public_names(keras.Model, "set_layer")


class MeanOfPair(keras.Model):
    """Trains one weight on pairs of batches, and has no `build` for them."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 2))

    def build(self, input_shape):
        pass

    def train_step(self, data):
        first, second = data[0]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(self.dense(first) - self.dense(second)))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class BuiltMeanOfPair(keras_internals.BuiltBeforeFit, MeanOfPair):
    """The same model, complete after its constructor."""


def fit_on_replicas(model_class, strategy):
    """Trains on replicas whose batches of pairs have different numbers of rows."""
    rows = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
    with strategy.scope():
        model = model_class()
        model.compile("sgd")
    dataset = tf.data.Dataset.from_tensor_slices(((rows, rows[::-1]),)).batch(7)
    model.fit(dataset, shuffle=False, verbose=0)
    return model


def test_a_model_that_is_built_before_fit_trains_on_uneven_replicas(strategy):
    model = fit_on_replicas(BuiltMeanOfPair, strategy)
    assert model.optimizer.built and int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 1


def test_built_before_fit_is_still_needed(strategy):
    with pytest.raises((ValueError, TypeError, tf.errors.OpError, RuntimeError)):
        fit_on_replicas(MeanOfPair, strategy)


def test_validation_of_fit_is_told_from_other_evaluation():
    received = []

    class Recorder(keras.Sequential):
        def evaluate(self, *args, **kwargs):
            received.append((keras_internals.is_validation_of_fit(kwargs), set(kwargs)))
            kwargs = {**kwargs, "return_dict": True}
            return super().evaluate(*args, **kwargs)

    model = Recorder([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((2, 2), "float32"), np.ones((2, 1), "float32")
    model.fit(x, y, validation_data=(x, y), verbose=0)
    model.evaluate(x, y, verbose=0)
    (in_fit, keywords), (alone, _) = received
    assert in_fit and not alone
    # Still needed: all the other keywords are public arguments, which a user may pass as well.
    assert keywords - {"_use_cached_eval_dataset"} <= set(inspect.signature(keras.Model.evaluate).parameters)


class Looked(keras.layers.Layer):
    """Tells whether its call could see values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, inputs):
        self.seen.append(hasattr(inputs, "numpy"))
        return inputs


def test_predict_of_one_model_has_its_inputs_prepared(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    x = np.ones((3, 2), "float32")
    assert keras_internals.prepare_inputs_of_predict(model, lambda inputs: 2 * inputs) is model
    np.testing.assert_array_equal(model.predict(x, verbose=0, batch_size=2), 2 * x)
    np.testing.assert_array_equal(model(x), x)
    model.save(tmp_path / "model.keras")
    for other in (keras.models.clone_model(model), keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_array_equal(other.predict(x, verbose=0), x)


def test_prepared_inputs_of_predict_are_still_needed():
    layer = Looked()
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.seen.clear()
    model.predict(np.ones((3, 2), "float32"), verbose=0)
    assert layer.seen and not any(layer.seen)
    assert public_names(keras.Model, "predict") == {
        "make_predict_function",
        "predict",
        "predict_on_batch",
        "predict_step",
    }


def test_keras_callbacks_keep_their_state_in_the_listed_attributes(tmp_path):
    callbacks = {
        "EarlyStopping": keras.callbacks.EarlyStopping(),
        "History": keras.callbacks.History(),
        "ModelCheckpoint": keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        "ReduceLROnPlateau": keras.callbacks.ReduceLROnPlateau(),
        "SwapEMAWeights": keras.callbacks.SwapEMAWeights(),
        "TensorBoard": keras.callbacks.TensorBoard(tmp_path),
    }
    assert callbacks.keys() == keras_internals.CALLBACK_STATE.keys()
    assert set(vars(keras.callbacks.Callback())) <= {*keras_internals.CALLBACK_ATTRIBUTES, "validation_data"}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for name, callback in callbacks.items():
        callback.set_model(model)
        if name != "SwapEMAWeights":
            callback.on_train_begin()
        for attribute in keras_internals.CALLBACK_STATE[name]:
            assert hasattr(callback, attribute), f"{name}.{attribute}"
        # A public way to save the state would replace the table.
        assert not hasattr(callback, "get_state")
    callbacks["TensorBoard"].on_train_end()


def test_decay_in_update_step_is_still_needed():
    class Plain(keras.optimizers.Optimizer):
        def update_step(self, gradient, variable, learning_rate):
            pass

    for optimizer, expected in ((Plain(0.5, weight_decay=0.1), 0.95), (optimizers.LARS(0.5, weight_decay=0.1), 1)):
        weight = keras.Variable(np.ones((1, 1), "float32"), name="kernel")
        optimizer.build([weight])
        optimizer._apply_weight_decay([weight])
        np.testing.assert_allclose(weight, [[expected]], rtol=1e-6)
