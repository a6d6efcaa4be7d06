import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import oracles, shared

SIZE, ROWS = 8, 8


def images(rows=ROWS, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, SIZE, SIZE, 3), dtype="uint8")


def pairs(rows=ROWS):
    return images(rows), images(rows, seed=1)


def encoder():
    return kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=6)


def small_encoder():
    """One convolution with synchronized statistics; small, because four replicas are traced four times."""
    layers = keras.layers
    chain = [keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 64, offset=-1), layers.Conv2D(6, 3)]
    chain += [kb.layers.BatchNormalization(synchronized=True), layers.ReLU(), layers.GlobalAveragePooling2D()]
    return keras.Sequential(chain)


def build(views=True, optimizer=None, synchronized=False, accumulation_steps=1, **compile_arguments):
    keras.utils.set_random_seed(1)
    if views == "paper":
        views = kb.views.barlow_twins(SIZE, seed=2)
    model = kb.BarlowTwins(
        small_encoder() if synchronized else encoder(),
        kb.Projector((10, 12), synchronized=synchronized),
        views=small_views() if views is True else views or None,
        loss=kb.losses.BarlowTwinsLoss(0.05),
        accumulation_steps=accumulation_steps,
    )
    model.compile(keras.optimizers.SGD(0.01) if optimizer is None else optimizer, **compile_arguments)
    return model


def compiled(views=True):
    """`build` with default arguments, from the models that tests share."""
    return shared.model(("barlow_twins", views), lambda: build(views))


def weights_of(model):
    return [weight.numpy() for weight in model.weights]


def largest_difference(model, other):
    return max(np.abs(a - b).max() for a, b in zip(weights_of(model), weights_of(other), strict=True))


class TestTrainStep:
    @pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, kb.optimizers.LARS])
    def test_weights_match_a_plain_autodiff_step(self, optimizer):
        """The oracle uses Keras' batch normalization, the formula of the paper, and one tape."""
        view_a, view_b = pairs()
        model, twin = (build(views=False, optimizer=optimizer(0.1)) for _ in range(2))
        kb_fused = kb.layers.BatchNormalization.call
        model.train_on_batch((view_a, view_b))

        kb.layers.BatchNormalization.call = keras.layers.BatchNormalization.call
        try:
            with tf.GradientTape() as tape:
                z = [twin.projector(twin.encoder(view, training=True), training=True) for view in (view_a, view_b)]
                a, b = ((x - tf.reduce_mean(x, 0)) / tf.sqrt(tf.math.reduce_variance(x, 0) + 1e-5) for x in z)
                c = tf.matmul(a, b, transpose_a=True) / ROWS
                off = tf.square(c) * (1 - tf.eye(12))
                loss = tf.reduce_sum((1 - tf.linalg.diag_part(c)) ** 2) + 0.05 * tf.reduce_sum(off)
        finally:
            kb.layers.BatchNormalization.call = kb_fused
        variables = [weight.value for weight in twin.trainable_weights]
        twin.optimizer.apply(tape.gradient(loss, variables), twin.trainable_weights)
        assert largest_difference(model, twin) < 2e-5
        assert largest_difference(model, build(views=False)) > 1e-3

    def test_the_logs_match_the_numpy_loss(self):
        model = build(views=False)
        view_a, view_b = pairs()
        z = [model.project(view, training=True) for view in (view_a, view_b)]
        model = build(views=False)
        logs = model.train_on_batch((view_a, view_b), return_dict=True)
        expected = oracles.barlow_twins_loss(*z, 0.05)
        np.testing.assert_allclose([logs[n] for n in ("loss", "invariance", "redundancy")], expected, rtol=2e-5)

    def test_regularizers_enter_the_gradient_and_the_loss(self):
        plain, decayed = build(views=False), build(views=False)
        kernel = decayed.projector._chain[0]
        kernel.kernel.regularizer = keras.regularizers.L2(0.01)
        before = np.asarray(kernel.kernel)
        logs = [model.train_on_batch(pairs(), return_dict=True) for model in (plain, decayed)]
        np.testing.assert_allclose(logs[1]["loss"] - logs[0]["loss"], 0.01 * (before**2).sum(), rtol=1e-3)
        shift = np.asarray(plain.projector._chain[0].kernel) - np.asarray(kernel.kernel)
        np.testing.assert_allclose(shift, 0.01 * 2 * 0.01 * before, atol=1e-6)

    def test_replicas_match_one_device_with_views_and_uneven_rows(self, strategy):
        rows = 10
        dataset = tf.data.Dataset.from_tensor_slices(images(rows)).batch(rows)
        single = build(synchronized=True)
        single.fit(dataset, epochs=3, verbose=0)
        with strategy.scope():
            mirrored = build(synchronized=True)
        history = mirrored.fit(dataset, epochs=3, verbose=0)
        assert largest_difference(single, mirrored) < 3e-5
        np.testing.assert_allclose(history.history["loss"], single.history.history["loss"], rtol=1e-4)


def group_normalized(accumulation_steps=1, views=True, dropout=0.0):
    """A model without batch statistics, for which micro-batches are exact."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    chain = [
        keras.Input((SIZE, SIZE, 3)),
        layers.Rescaling(1 / 128, offset=-1),
        layers.Conv2D(8, 3, strides=2, kernel_regularizer=keras.regularizers.L2(0.01)),
        layers.GroupNormalization(4),
        layers.ReLU(),
        layers.Dropout(dropout, seed=4),
        layers.GlobalAveragePooling2D(),
    ]
    model = kb.BarlowTwins(
        keras.Sequential(chain),
        keras.Sequential([keras.Input((8,)), layers.Dense(12), layers.ReLU(), layers.Dense(10)]),
        views=small_views() if views else None,
        loss=kb.losses.BarlowTwinsLoss(0.05),
        accumulation_steps=accumulation_steps,
    )
    model.compile(keras.optimizers.SGD(0.02))
    return model


def small_views():
    """Views that use the whole table of random numbers, with a small graph on many replicas and micro-batches."""
    layers = kb.augmentations
    return kb.views.Views(
        [layers.RandomFlip(0.5), layers.RandomGrayscale(0.5)],
        [layers.RandomSolarization(threshold=64, probability=0.5), layers.RandomFlip(0.5)],
        seed=2,
    )


class TestMicroBatches:
    @pytest.mark.parametrize(
        "views, run_eagerly", shared.few([(True, False), (False, False), (True, True)], (True, False))
    )
    def test_weights_match_the_whole_batch(self, views, run_eagerly, accumulation_steps=4, rows=10):
        model, whole = group_normalized(accumulation_steps, views), group_normalized(views=views)
        start = weights_of(whole)
        # Run both the same way: eager and traced views round differently, and solarization jumps at its threshold.
        model.run_eagerly = whole.run_eagerly = run_eagerly
        data = images(rows) if views else (pairs(rows),)
        logs = [m.fit(tf.data.Dataset.from_tensors(data), epochs=4, verbose=0).history for m in (model, whole)]
        assert largest_difference(model, whole) < 1e-5
        for name in logs[0]:
            np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
        assert max(np.abs(a - b).max() for a, b in zip(start, weights_of(whole), strict=True)) > 1e-2

    @pytest.mark.full
    def test_replicas_and_micro_batches_together(self, strategy):
        dataset = tf.data.Dataset.from_tensor_slices(images(18)).batch(18)
        whole = group_normalized()
        whole.fit(dataset, epochs=4, verbose=0)
        with strategy.scope():
            model = group_normalized(accumulation_steps=2)
        model.fit(dataset, epochs=4, verbose=0)
        assert largest_difference(model, whole) < 1e-5

    @pytest.mark.full
    def test_synchronized_statistics_over_replicas_and_micro_batches(self, strategy):
        """Statistics of a micro-batch over all replicas match one device whose micro-batches have the same rows."""
        with strategy.scope():
            model = build(synchronized=True, views=False, accumulation_steps=2)
        rows = np.arange(16)
        # Four replicas with four rows each; the first two rows of each form the first micro-batch.
        first = rows.reshape(4, 2, 2).transpose(1, 0, 2).ravel()
        single = build(synchronized=True, views=False, accumulation_steps=2)
        data = pairs(16)
        model.fit(tf.data.Dataset.from_tensors((data,)).unbatch().batch(16), epochs=2, verbose=0)
        single.fit(tf.data.Dataset.from_tensors((tuple(view[first] for view in data),)), epochs=2, verbose=0)
        assert largest_difference(single, model) < 3e-5

    def test_moving_statistics_are_updated_once_per_view_and_micro_batch(self):
        model, by_hand = build(views=False, accumulation_steps=2), build(views=False)
        view_a, view_b = pairs()
        model.train_on_batch((view_a, view_b))
        for rows in (slice(0, 4), slice(4, 8)):
            for view in (view_a, view_b):
                by_hand.project(view[rows], training=True)
        for layer, expected in zip(model.encoder.layers, by_hand.encoder.layers, strict=True):
            for weight, other in zip(layer.non_trainable_weights, expected.non_trainable_weights, strict=True):
                np.testing.assert_allclose(weight, other, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("foreign", [False, True])
    def test_dropout_and_foreign_layers_repeat_in_the_second_pass(self, foreign):
        """A layer at the end of the encoder records its inputs in both passes."""
        seen = []

        class Witness(keras.layers.Layer):
            def call(self, x):
                seen.append(np.asarray(x))
                return x

        model = group_normalized(2, dropout=0.5)
        if foreign:
            contrast = [keras.layers.RandomContrast(0.5, value_range=(0, 255), seed=seed) for seed in (1, 2)]
            model.views = kb.views.Views([contrast[0]], [contrast[1]], seed=0)
        layers = model.encoder.layers
        model.encoder = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers, Witness()])
        model.compile("sgd", run_eagerly=True)
        seen.clear()
        model.train_on_batch(images())
        assert len(seen) == 8
        for first, second in zip(seen[:4], seen[4:], strict=True):
            np.testing.assert_array_equal(first, second)
        assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(seen[:4], 2))
        model.train_on_batch(images())
        assert np.abs(seen[8] - seen[0]).max() > 1e-3

    def test_a_step_is_deterministic_to_the_bit(self):
        """TensorFlow's dependency optimizer broke one step in 20; see `distribution.rows_after`."""
        model = group_normalized(4, views=False)
        model.optimizer.build(model.trainable_variables)
        step = tf.function(lambda a, b: model.train_step(((a, b),)))
        data, start, results = [tf.constant(view) for view in pairs()], weights_of(model), set()
        for _ in range(100):
            for weight, value in zip(model.weights, start, strict=True):
                weight.assign(value)
            step(*data)
            results.add(b"".join(weight.tobytes() for weight in weights_of(model)))
        assert len(results) == 1

    def test_only_images_and_embeddings_exist_for_the_whole_batch(self):
        """Except for the data, no tensor of rank 4 has 16 rows, so memory is that of one micro-batch."""
        model = group_normalized(4, views=False)
        spec = tf.TensorSpec((16, SIZE, SIZE, 3), "uint8")
        graph = tf.function(lambda a, b: model.train_step(((a, b),))).get_concrete_function(spec, spec).graph
        of_16_rows = [
            output
            for node in graph.get_operations()
            for output in node.outputs
            if output.shape.rank == 4 and output.shape[0] == 16 and output.dtype != tf.uint8
        ]
        assert not of_16_rows

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match=r"at least 1\. Received: accumulation_steps=0"):
            group_normalized(0)
        with pytest.raises(ValueError, match=r"must be a keras_barlow.views.Views.*Received"):
            kb.BarlowTwins(encoder(), kb.Projector((4,)), views=keras.layers.Identity(), accumulation_steps=2)
        with pytest.raises(ValueError, match=r"4 micro-batches.*3 images"):
            group_normalized(4).fit(images(3), batch_size=3, verbose=0)


class TestKerasModel:
    @pytest.mark.parametrize(
        "arguments",
        [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
        ids=lambda a: next(iter(a)),
    )
    def test_execution_modes_give_the_same_weights(self, arguments):
        # At a rate of 0.01, rounding errors of batches of 4 grow a hundredfold per step in any execution mode.
        models = [build(optimizer=keras.optimizers.SGD(1e-3), **kwargs) for kwargs in ({}, arguments)]
        for model in models:
            model.fit(tf.data.Dataset.from_tensor_slices(images(16)).batch(4), verbose=0)
        assert largest_difference(*models) < 2e-5
        assert largest_difference(models[0], build()) > 1e-3

    def test_xla_is_off_by_default_on_the_cpu(self):
        assert build().jit_compile is False
        assert build(jit_compile=True).jit_compile is True

    @pytest.mark.parametrize("kind", ["array", "array+labels", "dataset", "dataset+labels", "pairs", "pairs+labels"])
    def test_fit_accepts_all_kinds_of_data_and_ignores_labels(self, kind):
        single, (view_a, view_b), labels = images(), pairs(), np.arange(ROWS)
        slices = tf.data.Dataset.from_tensor_slices
        data = {
            "array": (single,),
            "array+labels": (single, labels),
            "dataset": (slices(single).batch(4),),
            "dataset+labels": (slices((single, labels)).batch(4),),
            "pairs": (slices(((view_a, view_b),)).batch(4),),
            "pairs+labels": (slices(((view_a, view_b), labels)).batch(4),),
        }[kind]
        plain = slices(((view_a, view_b),) if "pairs" in kind else single).batch(4)
        sizes = {"batch_size": 4, "shuffle": False} if "array" in kind else {}
        model = compiled("pairs" not in kind)
        model.fit(plain, epochs=2, verbose=0)
        expected = weights_of(model)
        model = compiled("pairs" not in kind)
        history = model.fit(*data, epochs=2, verbose=0, **sizes)
        assert set(history.history) == {"loss", "invariance", "redundancy"}
        # The batch size of an array is static and that of a dataset may not be, so rounding differs.
        assert max(np.abs(a - b).max() for a, b in zip(weights_of(model), expected, strict=True)) < 1e-5

    def test_evaluate_is_repeatable_and_changes_no_weight(self):
        model = compiled()
        before = weights_of(model)
        first = model.evaluate(images(), batch_size=4, verbose=0, return_dict=True)
        assert first == model.evaluate(images(), batch_size=4, verbose=0, return_dict=True)
        assert set(first) == {"loss", "invariance", "redundancy"}
        assert all((a == b).all() for a, b in zip(before, weights_of(model), strict=True))

    def test_validation_data(self):
        history = compiled().fit(images(), batch_size=4, validation_data=(images(),), verbose=0)
        assert {"val_loss", "val_invariance", "val_redundancy"} <= set(history.history)

    def test_call_and_predict_return_the_representation_and_project_the_embedding(self):
        model = compiled()
        features = model.encoder(images(), training=False)
        np.testing.assert_allclose(model(images()), features, rtol=1e-6)
        np.testing.assert_allclose(model.predict(images(), verbose=0), features, rtol=1e-5)
        np.testing.assert_allclose(model.project(images()), model.projector(features), rtol=1e-6)

    def test_a_saved_and_loaded_model_continues_the_same_training(self, tmp_path):
        model = build("paper", keras.optimizers.Adam(1e-3))
        dataset = tf.data.Dataset.from_tensor_slices(images()).batch(4)
        model.fit(dataset, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert largest_difference(model, again) == 0
        for both in (model, again):
            both.fit(dataset, verbose=0)
        assert largest_difference(model, again) == 0
        assert json.dumps(again.get_config()) == json.dumps(model.get_config())

    def test_the_summary_lists_the_projector(self):
        lines = []
        build().summary(print_fn=lambda line, **_: lines.append(line))
        assert "projector" in "\n".join(lines)

    def test_fit_accepts_a_pair_of_arrays(self):
        compiled(views=False).fit(pairs(), batch_size=4, verbose=0)

    @pytest.mark.full
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision_trains_close_to_float32(self, policy):
        """Trains for 200 steps. The first step agrees to 2 %; later steps of this small batch accumulate rounding."""
        one_step = tf.data.Dataset.from_tensors(images())

        def trained():
            model = build("paper", keras.optimizers.Adam(1e-3))
            first = model.fit(one_step, verbose=0).history["loss"]
            return model, first + model.fit(one_step.repeat(199), verbose=0).history["loss"]

        _, exact = trained()
        keras.config.set_dtype_policy(policy)
        model, mixed = trained()
        # `fit` stops at the first non-finite loss. float16 skips steps until it has found its scale.
        assert 200 - 10 * (policy == "mixed_float16") <= int(model.optimizer.iterations) <= 200
        np.testing.assert_allclose(mixed[0], exact[0], rtol=0.02)
        np.testing.assert_allclose(mixed[1], exact[1], rtol=0.1)
        assert all(np.isfinite(weight).all() for weight in weights_of(model))
        assert all(weight.dtype == "float32" for weight in model.trainable_weights)
        assert model(images()).dtype == "float32"


class Overflow(keras.layers.Layer):
    """Returns its features. The gradient of a row whose flag is above 1 is infinite."""

    def call(self, features, flags):
        @tf.custom_gradient
        def passed(features, flags):
            factor = tf.where(flags > 1, np.inf, 1.0)
            return features, lambda upstream: (upstream * tf.cast(factor, upstream.dtype), None)

        return passed(features, flags)


class TestLossScale:
    def model(self):
        keras.config.set_dtype_policy("mixed_float16")
        keras.utils.set_random_seed(1)
        view = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Rescaling(1 / 64)(view)
        features = keras.layers.Dense(6)(keras.layers.Flatten()(x))
        outputs = Overflow(dtype="float32")(features, x[:, 0, 0, :1])
        model = kb.BarlowTwins(keras.Model(view, outputs), kb.Projector((5,)), loss=kb.losses.BarlowTwinsLoss(0.05))
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=64.0))
        return model

    @pytest.mark.parametrize("row", shared.few([0, 3, 7], 7))
    def test_an_infinite_gradient_on_one_replica_is_skipped_by_all_and_lowers_the_scale(self, strategy, row):
        view_a, view_b = pairs()
        view_a[:, 0, 0] = view_b[:, 0, 0] = 0
        clean = tf.data.Dataset.from_tensors(((view_a, view_b),)).unbatch().batch(ROWS)
        flagged = view_b.copy()
        flagged[row, 0, 0] = 255
        broken = tf.data.Dataset.from_tensors(((view_a, flagged),)).unbatch().batch(ROWS)
        with strategy.scope():
            model = self.model()
        before = weights_of(model)
        model.fit(broken, verbose=0)
        assert all((a == b).all() for a, b in zip(before, weights_of(model), strict=True))
        assert float(model.optimizer.dynamic_scale.numpy()) == 32.0
        model.fit(clean, verbose=0)
        after = weights_of(model)
        assert all(np.isfinite(weight).all() for weight in after)
        assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-4
        assert float(model.optimizer.dynamic_scale.numpy()) == 32.0

    @pytest.mark.full
    def test_the_loss_scale_does_not_change_the_weights(self, strategy):
        data = tf.data.Dataset.from_tensors((pairs(),)).unbatch().batch(ROWS)
        single = self.model()
        with strategy.scope():
            model = self.model()
        for both in (single, model):
            both.fit(data, epochs=3, verbose=0)
        assert largest_difference(single, model) < 2e-3


class TestBadInput:
    def test_compile_rejects_a_loss_and_metrics(self):
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            with pytest.raises(ValueError, match=rf"`compile` takes no `{name}`.*Received"):
                build(**{name: "mse"})

    @pytest.mark.parametrize("call", ["fit", "evaluate"])
    @pytest.mark.parametrize("rows, batch_size", [(1, 4), (5, 4), (4, 1), (33, None)])
    def test_a_last_batch_of_one_image_is_rejected_before_training(self, call, rows, batch_size):
        model = build()
        with pytest.raises(ValueError, match=r"A batch needs at least 2 images.*Received"):
            getattr(model, call)(images(rows), batch_size=batch_size, verbose=0)
        assert int(model.optimizer.iterations) == 0

    def test_a_dataset_of_batches_of_one_image_is_rejected(self):
        with pytest.raises(ValueError, match=r"A batch needs at least 2 images.*Received"):
            build().fit(tf.data.Dataset.from_tensor_slices(images()).batch(1, drop_remainder=True), verbose=0)
        with pytest.raises(tf.errors.InvalidArgumentError, match="drop_remainder=True"):
            build().fit(tf.data.Dataset.from_tensor_slices(images(5)).batch(4), verbose=0)

    def test_views_of_different_shapes_are_rejected(self):
        model = build(views=False)
        with pytest.raises(ValueError, match=r"two views must have one shape.*Received"):
            model.fit(tf.data.Dataset.from_tensors(((images(), images()[:, :4]),)), verbose=0)
        model.views = kb.views.Views(
            [kb.augmentations.RandomResizedCrop(8, 8)], [kb.augmentations.RandomResizedCrop(6, 6)]
        )
        with pytest.raises(ValueError, match=r"input shape of the encoder.*Received: views of shape \(6, 6, 3\)"):
            model.fit(images(), batch_size=4, verbose=0)

    def test_single_images_without_views_and_pairs_with_views_are_rejected(self):
        with pytest.raises(ValueError, match=r"With views=None.*single images.*barlow_twins\(image_size\)"):
            build(views=False).fit(images(), batch_size=4, verbose=0)
        with pytest.raises(ValueError, match=r"draws its views.*Create the model with views=None"):
            build("paper").fit(pairs(), batch_size=4, verbose=0)

    @pytest.mark.parametrize(
        "data, message",
        [
            (np.zeros((8, 8, 3), "uint8"), r"shape \(batch, height, width, channels\)"),
            (np.zeros((8, 8, 8, 1), "uint8"), "need RGB images"),
        ],
    )
    def test_images_of_another_rank_or_with_one_channel_are_rejected(self, data, message):
        with pytest.raises(ValueError, match=message):
            build().fit(data, batch_size=4, verbose=0)

    def test_an_unbuilt_encoder_or_one_that_returns_a_map_is_rejected(self):
        with pytest.raises(ValueError, match=r"built keras.Model.*keras.Input"):
            kb.BarlowTwins(keras.Sequential([keras.layers.Flatten()]), kb.Projector((4,)))
        maps = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        with pytest.raises(ValueError, match=r"features of shape \(batch, features\).*Received"):
            kb.BarlowTwins(maps, kb.Projector((4,)))

    def test_a_nan_loss_stops_the_run_and_names_the_step(self):
        if not oracles.xla_keeps_nan():
            pytest.skip("XLA of this TensorFlow clips NaN pixels to black in the views")
        bad = np.zeros((4, 4, SIZE, SIZE, 3), "float32") + images(4)
        bad[2, 0] = np.nan
        model = build()
        with pytest.raises(FloatingPointError, match="The loss is nan at step 3"):
            model.fit(tf.data.Dataset.from_tensor_slices(bad), epochs=2, verbose=0)
