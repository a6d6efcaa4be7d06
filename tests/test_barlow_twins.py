import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import oracles

SIZE, ROWS = 8, 8


def images(rows=ROWS, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, SIZE, SIZE, 3), dtype="uint8")


def pairs(rows=ROWS):
    return images(rows), images(rows, seed=1)


def encoder(synchronized=False):
    return kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=6, synchronized=synchronized)


def build(views=True, optimizer=None, synchronized=False, **compile_arguments):
    keras.utils.set_random_seed(1)
    model = kb.BarlowTwins(
        encoder(synchronized),
        kb.Projector((10, 12), synchronized=synchronized),
        views=kb.views.barlow_twins(SIZE, seed=2) if views else None,
        loss=kb.losses.BarlowTwinsLoss(0.05),
    )
    model.compile(keras.optimizers.SGD(0.01) if optimizer is None else optimizer, **compile_arguments)
    return model


def weights_of(model):
    return [weight.numpy() for weight in model.weights]


def largest_difference(model, other):
    return max(np.abs(a - b).max() for a, b in zip(weights_of(model), weights_of(other), strict=True))


class TestTrainStep:
    @pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, kb.optimizers.LARS])
    def test_weights_agree_with_a_plain_autodiff_step(self, optimizer):
        """The oracle: Keras' batch normalisation, the paper's formula in autodiff, one tape."""
        view_a, view_b = pairs()
        model, twin = (build(views=False, optimizer=optimizer(0.1)) for _ in range(2))
        kb_fused = kb.normalization.BatchNormalization.call
        model.train_on_batch((view_a, view_b))

        kb.normalization.BatchNormalization.call = keras.layers.BatchNormalization.call
        try:
            with tf.GradientTape() as tape:
                z = [twin.projector(twin.encoder(view, training=True), training=True) for view in (view_a, view_b)]
                a, b = ((x - tf.reduce_mean(x, 0)) / tf.sqrt(tf.math.reduce_variance(x, 0) + 1e-5) for x in z)
                c = tf.matmul(a, b, transpose_a=True) / ROWS
                off = tf.square(c) * (1 - tf.eye(12))
                loss = tf.reduce_sum((1 - tf.linalg.diag_part(c)) ** 2) + 0.05 * tf.reduce_sum(off)
        finally:
            kb.normalization.BatchNormalization.call = kb_fused
        variables = [weight.value for weight in twin.trainable_weights]
        twin.optimizer.apply(tape.gradient(loss, variables), twin.trainable_weights)
        assert largest_difference(model, twin) < 2e-5
        assert largest_difference(model, build(views=False)) > 1e-3

    def test_the_logs_are_the_numpy_loss(self):
        model = build(views=False)
        view_a, view_b = pairs()
        z = [model.project(view, training=True) for view in (view_a, view_b)]
        model = build(views=False)
        logs = model.train_on_batch((view_a, view_b), return_dict=True)
        expected = oracles.barlow_twins_loss(*z, 0.05)
        np.testing.assert_allclose([logs[n] for n in ("loss", "invariance", "redundancy")], expected, rtol=2e-5)

    def test_regularisers_enter_the_gradient_and_the_loss(self):
        plain, decayed = build(views=False), build(views=False)
        kernel = decayed.projector._chain[0]
        kernel.kernel.regularizer = keras.regularizers.L2(0.01)
        before = np.asarray(kernel.kernel)
        logs = [model.train_on_batch(pairs(), return_dict=True) for model in (plain, decayed)]
        np.testing.assert_allclose(logs[1]["loss"] - logs[0]["loss"], 0.01 * (before**2).sum(), rtol=1e-3)
        shift = np.asarray(plain.projector._chain[0].kernel) - np.asarray(kernel.kernel)
        np.testing.assert_allclose(shift, 0.01 * 2 * 0.01 * before, atol=1e-6)

    @pytest.mark.parametrize("rows", [8, 10])
    def test_replicas_take_the_step_of_one_device(self, strategy, rows):
        dataset = tf.data.Dataset.from_tensor_slices(images(rows)).batch(rows)
        single = build(synchronized=True)
        single.fit(dataset, epochs=3, verbose=0)
        with strategy.scope():
            mirrored = build(synchronized=True)
        history = mirrored.fit(dataset, epochs=3, verbose=0)
        assert largest_difference(single, mirrored) < 3e-5
        np.testing.assert_allclose(history.history["loss"], single.history.history["loss"], rtol=1e-4)

    def test_regularisers_count_once_over_all_replicas(self, strategy):
        def decayed():
            model = build(synchronized=True)
            model.projector._chain[0].kernel.regularizer = keras.regularizers.L2(0.1)
            return model

        single = decayed()
        with strategy.scope():
            mirrored = decayed()
        for model in (single, mirrored):
            model.fit(tf.data.Dataset.from_tensor_slices(images()).batch(ROWS), verbose=0)
        assert largest_difference(single, mirrored) < 3e-5


class TestKerasModel:
    @pytest.mark.parametrize(
        "arguments",
        [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
        ids=lambda a: next(iter(a)),
    )
    def test_ways_to_execute_give_the_same_weights(self, arguments):
        models = build(), build(**arguments)
        for model in models:
            model.fit(tf.data.Dataset.from_tensor_slices(images(16)).batch(4), verbose=0)
        assert largest_difference(*models) < 1e-4

    def test_the_cpu_step_is_not_compiled_with_xla_unless_asked(self):
        assert build().jit_compile is False
        assert build(jit_compile=True).jit_compile is True

    @pytest.mark.parametrize("kind", ["array", "array+labels", "dataset", "dataset+labels", "pairs", "pairs+labels"])
    def test_fit_takes_what_keras_users_pass_and_labels_change_nothing(self, kind):
        single, (view_a, view_b), labels = images(), pairs(), np.arange(ROWS)
        model, reference = (build(views="pairs" not in kind) for _ in range(2))
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
        history = model.fit(*data, epochs=2, verbose=0, **sizes)
        reference.fit(plain, epochs=2, verbose=0)
        assert set(history.history) == {"loss", "invariance", "redundancy"}
        # An array has a static batch size and a dataset may not: the same numbers, rounded differently.
        assert largest_difference(model, reference) < 1e-5

    def test_evaluate_gives_the_same_logs_twice_and_changes_no_weight(self):
        model = build()
        before = weights_of(model)
        first = model.evaluate(images(), batch_size=4, verbose=0, return_dict=True)
        assert first == model.evaluate(images(), batch_size=4, verbose=0, return_dict=True)
        assert set(first) == {"loss", "invariance", "redundancy"}
        assert all((a == b).all() for a, b in zip(before, weights_of(model), strict=True))

    def test_validation_data(self):
        history = build().fit(images(), batch_size=4, validation_data=(images(),), verbose=0)
        assert {"val_loss", "val_invariance", "val_redundancy"} <= set(history.history)

    def test_call_and_predict_give_the_representation_and_project_the_embedding(self):
        model = build()
        features = model.encoder(images(), training=False)
        np.testing.assert_allclose(model(images()), features, rtol=1e-6)
        np.testing.assert_allclose(model.predict(images(), verbose=0), features, rtol=1e-5)
        np.testing.assert_allclose(model.project(images()), model.projector(features), rtol=1e-6)

    def test_save_and_load_go_on_with_the_same_training(self, tmp_path):
        model = build(optimizer=keras.optimizers.Adam(1e-3))
        dataset = tf.data.Dataset.from_tensor_slices(images()).batch(4)
        model.fit(dataset, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert largest_difference(model, again) == 0
        for both in (model, again):
            both.fit(dataset, verbose=0)
        assert largest_difference(model, again) == 0
        assert json.dumps(again.get_config()) == json.dumps(model.get_config())

    def test_summary_counts_encoder_and_projector(self):
        lines = []
        build().summary(print_fn=lambda line, **_: lines.append(line))
        assert "projector" in "\n".join(lines)

    def test_gradients_reach_a_pair_of_arrays(self):
        build(views=False).fit(pairs(), batch_size=4, verbose=0)

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision_trains_close_to_float32(self, policy):
        def optimizer():
            return keras.optimizers.Adam(1e-3)

        exact = build(optimizer=optimizer()).fit(images(), batch_size=ROWS, epochs=30, verbose=0).history["loss"]
        keras.config.set_dtype_policy(policy)
        model = build(optimizer=optimizer())
        mixed = model.fit(images(), batch_size=ROWS, epochs=30, verbose=0).history["loss"]
        assert np.isfinite(mixed).all()
        np.testing.assert_allclose(mixed[0], exact[0], rtol=0.02)
        np.testing.assert_allclose(np.mean(mixed[-10:]), np.mean(exact[-10:]), rtol=0.15)
        assert all(weight.dtype == "float32" for weight in model.trainable_weights)
        assert model(images()).dtype == "float32"


class TestBadInput:
    def test_compile_refuses_a_loss_and_metrics(self):
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            with pytest.raises(ValueError, match=rf"compile\({name}=...\).*Received"):
                build(**{name: "mse"})

    @pytest.mark.parametrize("call", ["fit", "evaluate"])
    @pytest.mark.parametrize("rows, batch_size", [(1, 4), (5, 4), (4, 1), (33, None)])
    def test_a_last_batch_of_one_image_is_refused_before_training(self, call, rows, batch_size):
        model = build()
        with pytest.raises(ValueError, match=r"A batch of 1 image.*Received"):
            getattr(model, call)(images(rows), batch_size=batch_size, verbose=0)
        assert int(model.optimizer.iterations) == 0

    def test_a_dataset_of_single_images_is_refused(self):
        with pytest.raises(ValueError, match=r"A batch of 1 image.*Received"):
            build().fit(tf.data.Dataset.from_tensor_slices(images()).batch(1, drop_remainder=True), verbose=0)
        with pytest.raises(tf.errors.InvalidArgumentError, match="drop_remainder=True"):
            build().fit(tf.data.Dataset.from_tensor_slices(images(5)).batch(4), verbose=0)

    def test_views_of_different_shapes(self):
        model = build(views=False)
        with pytest.raises(ValueError, match=r"two views must have one shape.*Received"):
            model.fit(tf.data.Dataset.from_tensors(((images(), images()[:, :4]),)), verbose=0)
        model.views = kb.views.Views(
            [kb.augmentations.RandomResizedCrop(8, 8)], [kb.augmentations.RandomResizedCrop(6, 6)]
        )
        with pytest.raises(ValueError, match=r"two views must have one shape.*Received"):
            model.fit(images(), batch_size=4, verbose=0)

    def test_single_images_without_views_and_pairs_with_views(self):
        with pytest.raises(ValueError, match=r"With views=None.*single images.*barlow_twins\(image_size\)"):
            build(views=False).fit(images(), batch_size=4, verbose=0)
        with pytest.raises(ValueError, match=r"draws the views by itself.*Pass views=None"):
            build().fit(pairs(), batch_size=4, verbose=0)

    @pytest.mark.parametrize(
        "data, message",
        [
            (np.zeros((8, 8, 3), "uint8"), r"shape \(batch, height, width, channels\)"),
            (np.zeros((8, 8, 8, 1), "uint8"), "need RGB images"),
        ],
    )
    def test_images_of_another_rank_or_without_colour(self, data, message):
        with pytest.raises(ValueError, match=message):
            build().fit(data, batch_size=4, verbose=0)

    def test_an_encoder_that_is_not_built_or_gives_a_map(self):
        with pytest.raises(ValueError, match=r"built keras.Model.*keras.Input"):
            kb.BarlowTwins(keras.Sequential([keras.layers.Flatten()]), kb.Projector((4,)))
        maps = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
        with pytest.raises(ValueError, match=r"features of shape \(batch, features\).*Received"):
            kb.BarlowTwins(maps, kb.Projector((4,)))

    def test_a_nan_loss_stops_the_run_and_names_the_step(self):
        bad = np.zeros((4, 4, SIZE, SIZE, 3), "float32") + images(4)
        bad[2, 0] = np.nan
        model = build()
        with pytest.raises(FloatingPointError, match="The loss is nan at step 3"):
            model.fit(tf.data.Dataset.from_tensor_slices(bad), epochs=2, verbose=0)
