"""A step equals that of one device on the global batch for any optimizer, penalty and last batch, or is rejected."""

import contextlib
import inspect

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow.pretraining import penalties
from tests import shared

layers = keras.layers
SIZE, ROWS = 8, 16


def images(rows=ROWS, seed=0):
    """Random images that get brighter with the row, so that replicas get different data."""
    noise = np.random.default_rng(seed).integers(0, 128, (rows, SIZE, SIZE, 3))
    return (noise + np.linspace(0, 127, rows).reshape(-1, 1, 1, 1)).astype("uint8")


def pairs(rows=ROWS):
    return images(rows), images(rows, seed=1)


def network(activity=None):
    """An encoder without batch statistics, for which micro-batches are exact.

    Keras rounds the factor of a regularizer to float32, so all factors are powers of two.
    """
    chain = [
        keras.Input((SIZE, SIZE, 3)),
        layers.Rescaling(1 / 64, offset=-1),
        layers.Conv2D(6, 3, activity_regularizer=activity, kernel_regularizer=keras.regularizers.L2(2**-7)),
        layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential(chain)


def build(optimizer, encoder=None, projector=None, views=None, compile_arguments=None, **arguments):
    keras.utils.set_random_seed(1)
    model = kb.BarlowTwins(
        network() if encoder is None else encoder(),
        layers.Dense(8) if projector is None else projector(),
        views,
        kb.losses.BarlowTwinsLoss(0.05),
        **arguments,
    )
    model.compile(optimizer, **(compile_arguments or {}))
    return model


def normalized(optimizer="sgd", synchronized=True, **arguments):
    def encoder():
        shape = (SIZE, SIZE, 3)
        return kb.encoders.resnet((1,), input_shape=shape, stem="small", width=4, synchronized=synchronized)

    return build(optimizer, encoder, lambda: kb.Projector((8, 8), synchronized=synchronized), **arguments)


def flips():
    return kb.views.Views([kb.augmentations.RandomFlip(0.5)], [kb.augmentations.RandomFlip(0.5)], seed=0)


def dataset(data, rows=ROWS):
    return tf.data.Dataset.from_tensor_slices(data).batch(rows)


def weights(model):
    return [weight.numpy() for weight in model.weights]


def assert_same(model, other, tolerance):
    for got, expected, variable in zip(weights(model), weights(other), model.weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=variable.path)


OPTIMIZERS = {
    "clipnorm": lambda: keras.optimizers.SGD(1.0, clipnorm=0.01),
    "global_clipnorm": lambda: keras.optimizers.SGD(1.0, global_clipnorm=0.01),
    "clipvalue": lambda: keras.optimizers.SGD(1.0, clipvalue=0.001),
    "LARS and clipnorm": lambda: kb.optimizers.LARS(1.0, clipnorm=0.01),
    "weight decay": lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.1, epsilon=1e-3),
    "averages": lambda: keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5),
}


class TestOptimizers:
    @pytest.mark.parametrize("name", shared.few(OPTIMIZERS, "LARS and clipnorm"))
    def test_replicas_match_one_device(self, name, strategy, float64):
        data = dataset((pairs(),))
        single = build(OPTIMIZERS[name]())
        start = weights(single)
        single.fit(data, epochs=3, verbose=0)
        with strategy.scope():
            mirrored = build(OPTIMIZERS[name]())
        mirrored.fit(data, epochs=3, verbose=0)
        assert_same(mirrored, single, 1e-10)
        assert max(np.abs(a - b).max() for a, b in zip(start, weights(single), strict=True)) > 1e-3

    def test_clipping_with_a_loss_scale(self, strategy, float64):
        """The thresholds apply to the unscaled gradient on every replica."""

        def optimizer():
            return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0, global_clipnorm=0.01), 1024.0)

        single = build(optimizer())
        single.fit(dataset((pairs(),)), epochs=3, verbose=0)
        with strategy.scope():
            mirrored = build(optimizer())
        mirrored.fit(dataset((pairs(),)), epochs=3, verbose=0)
        assert_same(mirrored, single, 1e-10)

    @pytest.mark.parametrize(
        "arguments, remedy",
        [
            ({"gradient_accumulation_steps": 2}, "accumulation_steps=k"),
            ({"use_ema": True, "ema_overwrite_frequency": 1}, "Remove it"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_compile_rejects_what_keras_does_not_support_on_replicas(self, arguments, remedy, strategy):
        build(keras.optimizers.SGD(0.1, **arguments)).fit(dataset((pairs(),)), verbose=0)
        for wrap in (lambda one: one, keras.optimizers.LossScaleOptimizer):
            with strategy.scope(), pytest.raises(ValueError, match=rf"on 4 replicas.*{remedy}"):
                build(wrap(keras.optimizers.SGD(0.1, **arguments)))

    @pytest.mark.full
    def test_constraints_apply_on_replicas(self, strategy, float64):
        def constrained():
            model = build(keras.optimizers.SGD(0.1))
            for weight in model.trainable_weights:
                weight.constraint = keras.constraints.MaxNorm(0.1)
            return model

        single = constrained()
        single.fit(dataset((pairs(),)), verbose=0)
        with strategy.scope():
            mirrored = constrained()
        mirrored.fit(dataset((pairs(),)), verbose=0)
        assert_same(mirrored, single, 1e-10)

    def test_a_skipped_overflow_lowers_the_loss_scale(self):
        """`skip_nonfinite` used to undo the lower scale too, so the overflow repeated forever."""
        keras.config.set_dtype_policy("mixed_float16")
        runs = []
        for skip in (False, True):
            optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=2.0**40)
            model = build(optimizer, skip_nonfinite=skip)
            history = model.fit(dataset((pairs(),)).repeat(40), verbose=0).history
            runs.append((int(model.optimizer.iterations), float(model.optimizer.dynamic_scale.numpy())))
            assert int(model.batch_count) == 40
        assert runs[0] == runs[1] and 0 < runs[0][0] < 40 and runs[0][1] < 2.0**40
        assert history["skipped"] == [0.0]

    def test_a_nonfinite_batch_is_skipped_with_a_loss_scale(self):
        keras.config.set_dtype_policy("mixed_float16")
        data = np.stack([images().astype("float32")] * 3)
        data[1, 0] = np.nan
        batches = tf.data.Dataset.from_tensor_slices(((data, data),))
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=2.0)
        model = build(optimizer, skip_nonfinite=True)
        assert model.fit(batches, verbose=0).history["skipped"] == [1.0]
        assert (int(model.optimizer.iterations), float(model.optimizer.dynamic_scale.numpy())) == (2, 2.0)

    def test_a_vanishing_loss_scale_ends_the_run(self):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3), initial_scale=2.0**-20)
        with pytest.raises(FloatingPointError, match="The loss scale has fallen to"):
            build(optimizer).fit(dataset((pairs(),)), verbose=0)


class MeanPenalty(layers.Layer):
    """Adds the mean square of its inputs to the loss with `add_loss`."""

    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x


def summed_as_keras(x):
    """Penalty of `activity_regularizer=L2(2**-10)` in this version of Keras."""
    total = 2**-10 * keras.ops.sum(keras.ops.square(x))
    return total if penalties._activities_are_summed() else total / x.shape[0]


def penalized(kind):
    encoder = network(activity=keras.regularizers.L2(2**-10) if kind == "activity" else None)
    if kind == "add_loss":
        encoder = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *encoder.layers, MeanPenalty()])
    return encoder


class TestPenalties:
    @pytest.mark.parametrize(
        "kind, replicas, micro_batches",
        shared.few(
            [(kind, *parts) for kind in ("activity", "add_loss") for parts in [(1, 1), (1, 3), (4, 1), (4, 2)]],
            *[("add_loss", 1, 1), ("activity", 1, 3), ("add_loss", 4, 1), ("activity", 4, 2)],
        ),
    )
    def test_penalties_of_views_and_micro_batches_add_up(self, kind, replicas, micro_batches, strategy, float64):
        """The oracle is one tape over the whole batch with an explicit penalty. 4 replicas share 14 rows unevenly."""
        rows = 14
        view_a, view_b = pairs(rows)
        reference = build(keras.optimizers.SGD(0.01), lambda: penalized(kind))
        with tf.GradientTape() as tape:
            loss = 0.0
            z = []
            for view in (view_a, view_b):
                x = view
                for layer in reference.encoder.layers:
                    x = layer(x)
                    if kind == "activity" and isinstance(layer, layers.Conv2D):
                        loss += summed_as_keras(x)
                    if isinstance(layer, MeanPenalty):
                        loss += 0.1 * tf.reduce_mean(tf.square(x))
                z.append(reference.projector(x))
            kernel = next(layer for layer in reference.encoder.layers if isinstance(layer, layers.Conv2D)).kernel
            loss += 2**-7 * tf.reduce_sum(tf.square(kernel)) + reference.loss(*z)
        variables = [weight.value for weight in reference.trainable_weights]
        gradient = tape.gradient(loss, variables)
        for weight, slope in zip(variables, gradient, strict=True):
            weight.assign_sub(0.01 * slope)

        with strategy.scope() if replicas > 1 else contextlib.nullcontext():
            model = build(keras.optimizers.SGD(0.01), lambda: penalized(kind), accumulation_steps=micro_batches)
        history = model.fit(dataset((pairs(rows),), rows), verbose=0).history
        np.testing.assert_allclose(history["loss"][0], float(loss), rtol=1e-6)
        assert_same(model, reference, 1e-10)

    @pytest.mark.parametrize(
        "kind, policy",
        shared.few(
            [(kind, policy) for kind in ("activity", "add_loss") for policy in ("mixed_bfloat16", "mixed_float16")],
            ("add_loss", "mixed_bfloat16"),
        ),
    )
    def test_penalties_in_half_precision(self, kind, policy):
        data = dataset((pairs(),))
        exact = build(keras.optimizers.SGD(0.01), lambda: penalized(kind)).fit(data, verbose=0).history["loss"][0]
        keras.config.set_dtype_policy(policy)
        model = build(keras.optimizers.SGD(0.01), lambda: penalized(kind), accumulation_steps=2)
        np.testing.assert_allclose(model.fit(data, verbose=0).history["loss"][0], exact, rtol=0.05)

    def test_the_validation_loss_includes_penalties(self, float64):
        plain = build("sgd").evaluate(dataset((pairs(),)), verbose=0, return_dict=True)
        model = build("sgd", lambda: penalized("activity"))
        logs = model.evaluate(dataset((pairs(),)), verbose=0, return_dict=True)
        of_a_view = [float(summed_as_keras(model.encoder.layers[1](model.encoder.layers[0](view)))) for view in pairs()]
        np.testing.assert_allclose(logs["loss"] - plain["loss"], sum(of_a_view), rtol=1e-6)

    def test_a_moving_average_copy_is_not_penalized(self, float64):
        """Only the pass of view A is trained, so only its penalty counts."""
        plain, model = (
            build("sgd", lambda kind=kind: penalized(kind), moving_average=0.9) for kind in ("none", "activity")
        )
        logs = [one.evaluate(dataset((pairs(),)), verbose=0, return_dict=True)["loss"] for one in (plain, model)]
        of_view_a = float(summed_as_keras(model.encoder.layers[1](model.encoder.layers[0](pairs()[0]))))
        np.testing.assert_allclose(logs[1] - logs[0], of_view_a, rtol=1e-6)


class TestMicroBatches:
    @pytest.mark.parametrize(
        "kind, rows",
        shared.few(
            [(kind, rows) for kind in ("array", "dataset") for rows in (18, 19, 21)], ("array", 21), ("dataset", 19)
        ),
    )
    def test_a_last_batch_that_is_too_small_is_rejected_and_leaves_the_statistics_finite(self, rows, kind):
        """Batches of 8, 8, and 2, 3 or 5 images; some of the last 4 micro-batches would hold 0 or 1 image."""
        model = normalized(views=flips(), accumulation_steps=4)
        if kind == "array":
            with pytest.raises(ValueError, match=r"at least 2 images.*Received: 4 micro-batches.*drop the last"):
                model.fit(images(rows), batch_size=8, verbose=0)
            assert int(model.batch_count) == 0
            # The remedy that the error suggests.
            model.fit(images(rows)[: rows - rows % 8], batch_size=8, verbose=0)
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"at least 2 images.*drop_remainder=True"):
                model.fit(dataset(images(rows), 8), verbose=0)
            model.fit(tf.data.Dataset.from_tensor_slices(images(rows)).batch(8, drop_remainder=True), verbose=0)
        assert all(np.isfinite(weight).all() for weight in weights(model))

    def test_as_many_micro_batches_as_images(self, float64):
        with pytest.raises(ValueError, match="at least 2 images"):
            normalized(accumulation_steps=8).fit(dataset((pairs(8),), 8).map(_static(8)), verbose=0)
        # Without batch normalization a micro-batch of one image is exact.
        model = build(keras.optimizers.SGD(0.01), accumulation_steps=8)
        model.fit(dataset((pairs(8),), 8).map(_static(8)), verbose=0)
        whole = build(keras.optimizers.SGD(0.01))
        whole.fit(dataset((pairs(8),), 8), verbose=0)
        assert_same(model, whole, 1e-10)

    @pytest.mark.parametrize("layer", shared.few(["RandomContrast", "RandomFlip", "RandAugment"], "RandomContrast"))
    def test_layers_that_cannot_repeat_their_random_numbers_are_rejected(self, layer):
        made = {
            "RandomContrast": lambda: keras_cv.layers.RandomContrast((0, 255), 0.5),
            "RandomFlip": keras_cv.layers.RandomFlip,
            "RandAugment": lambda: keras_cv.layers.RandAugment((0, 255)),
        }[layer]
        views = kb.views.Views([kb.augmentations.RandomFlip(0.5)], [made()], seed=0)
        with pytest.raises(ValueError, match=rf"keras_cv.*{layer}.*keras.layers"):
            build("sgd", views=views, accumulation_steps=2)
        build("sgd", views=views)

    @pytest.mark.parametrize("layer", shared.few(["RandomContrast", "RandomFlip", "RandAugment"], "RandomContrast"))
    def test_keras_layers_of_the_same_name_are_accepted(self, layer):
        arguments = {} if layer == "RandomFlip" else {"value_range": (0, 255)}
        arguments |= {"factor": 0.5} if layer == "RandomContrast" else {}
        made = getattr(layers, layer)(**arguments)
        views = kb.views.Views([made], [layers.RandomFlip()], seed=0)
        # Keras 3.10 selects the transforms of RandAugment with Python's `random`.
        if "random.shuffle" in inspect.getsource(type(made)) or "random.sample" in inspect.getsource(type(made)):
            with pytest.raises(ValueError, match=r"RandAugment, which drew other numbers.*accumulation_steps=1"):
                build("sgd", views=views, accumulation_steps=2)
        else:
            build("sgd", views=views, accumulation_steps=2).train_on_batch(images())


class TestRandomNumbers:
    @pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 3}])
    def test_every_batch_gets_different_views(self, arguments):
        """Keras does not advance `iterations` during gradient accumulation."""
        views = flips()
        drawn, draw = [], views.draw
        model = build(keras.optimizers.SGD(0.01, **arguments), views=views, compile_arguments={"run_eagerly": True})
        object.__setattr__(views, "draw", lambda *args: drawn.append(draw(*args)) or drawn[-1])
        model.fit(dataset(images(24), 4), verbose=0)
        assert len({table.numpy().tobytes() for pair in drawn for table in pair}) == 12
        assert int(model.batch_count) == 6

    def test_the_batch_count_is_saved_with_the_model(self, tmp_path):
        model = normalized(views=flips())
        model.fit(images(), batch_size=8, verbose=0)
        model.save(tmp_path / "model.keras")
        assert int(keras.models.load_model(tmp_path / "model.keras").batch_count) == 2

    def test_many_views_have_distinct_keys(self):
        keys = [kb.randomness.view_key(7, step, view) for step in range(-2, 5) for view in range(6)]
        assert len({key.numpy().tobytes() for key in keys}) == len(keys)
        # The keys of the first two views per step are unchanged from earlier releases.
        np.testing.assert_array_equal(kb.randomness.view_key(7, 3, 1), [7, 7])

    @pytest.mark.parametrize("seed", [2**32, -(2**40), 0.5])
    def test_seeds_that_could_share_a_key_are_rejected(self, seed):
        with pytest.raises(ValueError, match=r"between -2\^32 and 2\^32\. Received: seed="):
            kb.views.barlow_twins(SIZE, seed=seed)


def test_an_unsynchronized_predictor_is_rejected_on_uneven_rows(strategy):
    with strategy.scope():
        model = build("sgd", predictor=kb.Projector((8, 8)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="encoder, projector and predictor"):
        model.fit(dataset((pairs(10),), 10), verbose=0)
    with strategy.scope():
        model = build("sgd", predictor=kb.Projector((8, 8), synchronized=True))
    model.fit(dataset((pairs(10),), 10), verbose=0)


def test_nonfinite_statistics_end_the_run_even_with_a_finite_loss():
    model = normalized()
    model.encoder.get_layer("stem_normalization").moving_mean.assign(np.full(4, np.nan, "float32"))
    with pytest.raises(FloatingPointError, match=r"not finite after epoch 1: .*moving_mean.*discard these weights"):
        model.fit(dataset((pairs(),)), verbose=0)


def _static(rows):
    def shaped(pair):
        return (tuple(tf.ensure_shape(view, (rows, SIZE, SIZE, 3)) for view in pair),)

    return lambda *pair: shaped(pair[0])
