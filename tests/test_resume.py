"""An interrupted run ends like an uninterrupted one, or is refused before it starts."""

import collections
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from keras_barlow import checkpoint
from keras_barlow.callbacks import memory, settings
from tests import shared

STEPS = 5
EPOCHS = 3
IMAGES = np.random.default_rng(0).integers(0, 256, (2 * STEPS, 8, 8, 3), dtype="uint8")


def small_model(optimizer=None, scrambled=False, **arguments):
    """A model as if it had just been made. Equal ones are one and the same, but for those of another seed."""
    if "seed" in arguments:
        return new_model(optimizer, **arguments)
    settings = [optimizer, arguments]
    key = json.dumps(settings, sort_keys=True, default=keras.saving.serialize_keras_object)
    model = shared.model(("resume", key), lambda: new_model(optimizer, **arguments), scrambled)
    if optimizer is None:
        model.optimizer.learning_rate = 1e-2
    return model


def new_model(optimizer=None, steps_per_execution=1, seed=3, dropout=0.0, **arguments):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    encoder = keras.Sequential([*layers, keras.layers.Dense(4), keras.layers.Dropout(dropout)])
    views = kb.views.Views([kb.augmentations.RandomFlip()], [kb.augmentations.RandomSolarization()], seed=seed)
    model = kb.BarlowTwins(encoder, kb.Projector((4,)), views, **arguments)
    optimizer = keras.optimizers.SGD(1e-2, momentum=0.9) if optimizer is None else optimizer
    model.compile(optimizer, steps_per_execution=steps_per_execution, jit_compile=False)
    return model


def batches():
    return kb.data.ArrayImages(IMAGES).batches(2, seed=1)


def dataset(kind="finite"):
    finite = tf.data.Dataset.from_tensor_slices(IMAGES).batch(2)
    return {
        "finite": lambda: finite,
        "repeated": finite.repeat,
        "unknown": lambda: finite.filter(lambda images: True),
        "unknown, repeated": lambda: finite.filter(lambda images: True).repeat(),
        "shuffled": lambda: tf.data.Dataset.from_tensor_slices(IMAGES).shuffle(10).batch(2),
        "shuffled once": lambda: (
            tf.data.Dataset.from_tensor_slices(IMAGES).shuffle(10, seed=1, reshuffle_each_iteration=False).batch(2)
        ),
    }[kind]()


class Crash(keras.callbacks.Callback):
    """Stops the run after some executions, or before an epoch."""

    def __init__(self, executions=None, epoch=None):
        super().__init__()
        self.executions = executions
        self.epoch = epoch

    def get_state(self):
        return None

    def set_state(self, state):
        pass

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError

    def on_train_batch_end(self, batch, logs=None):
        if self.executions is not None:
            self.executions -= 1
            if self.executions == 0:
                raise InterruptedError


def fit(model, folder=None, x=None, callbacks=(), epochs=EPOCHS, **arguments):
    extra = [] if folder is None else [kb.callbacks.Checkpoints(folder, every=1)]
    model.fit(batches() if x is None else x, epochs=epochs, verbose=0, callbacks=[*callbacks, *extra], **arguments)
    return model


def interrupt(model, folder, crash, callbacks=(), **arguments):
    with pytest.raises(InterruptedError):
        fit(model, folder, callbacks=[*callbacks, crash], **arguments)


def meta_of(path):
    return checkpoint.read(path.read_bytes())[1]


def state(model):
    return checkpoint.state_of(model)


def same(first, second):
    second = state(second)
    assert first.keys() == second.keys()
    for name in first:
        rtol = 1e-6 if name.startswith("metrics/") else 0
        np.testing.assert_allclose(first[name], second[name], rtol=rtol, atol=0, err_msg=name)


# Data


@pytest.mark.parametrize(
    "kind, steps, crash",
    [
        ("finite", None, {"executions": 7}),
        pytest.param("finite", 5, {"executions": 7}, marks=pytest.mark.full),
        ("finite", 5, {"epoch": 1}),
        pytest.param("finite", 1, {"epoch": 2}, marks=pytest.mark.full),
        pytest.param("repeated", 5, {"executions": 7}, marks=pytest.mark.full),
        ("repeated", 3, {"executions": 5}),
        pytest.param("repeated", 3, {"epoch": 1}, marks=pytest.mark.full),
        pytest.param("repeated", 3, {"epoch": 2}, marks=pytest.mark.full),
        ("repeated", 7, {"epoch": 1}),
        ("unknown, repeated", 3, {"epoch": 2}),
        ("shuffled once", None, {"executions": 7}),
    ],
)
def test_a_dataset_is_resumed_at_its_place(tmp_path, kind, steps, crash):
    arguments = {"x": dataset(kind), "steps_per_epoch": steps}
    whole = state(fit(small_model(), **arguments))
    interrupt(small_model(), tmp_path, Crash(**crash), **arguments)
    again = fit(small_model(scrambled=True), tmp_path, **arguments)
    assert int(again.optimizer.iterations) == EPOCHS * (steps or STEPS)
    same(whole, again)


@pytest.mark.parametrize(
    "kind, steps, message",
    [
        ("finite", 3, r"cuts one short.*steps_per_epoch=3 and a dataset of 5 batches.*dataset.repeat\(\)"),
        ("finite", 10, "cuts one short"),
        ("unknown", 3, "an unknown number of batches"),
        ("unknown", None, "number of steps in an epoch is known"),
        ("repeated", None, "number of steps in an epoch is known"),
        ("shuffled", None, "same in every pass.*exact=False"),
    ],
)
def test_a_dataset_that_cannot_be_resumed_is_refused_at_the_first_run(tmp_path, kind, steps, message):
    with pytest.raises(ValueError, match=message):
        fit(small_model(), tmp_path, dataset(kind), steps_per_epoch=steps)


def test_the_remedies_for_a_shuffled_dataset(tmp_path):
    checkpoints = kb.callbacks.Checkpoints(tmp_path, exact=False)
    model = fit(small_model(), x=dataset("shuffled"), callbacks=[checkpoints])
    assert int(model.optimizer.iterations) == EPOCHS * STEPS


def test_a_run_that_began_later_is_resumed_at_its_place(tmp_path):
    arguments = {"x": dataset("repeated"), "steps_per_epoch": 3, "initial_epoch": 1}
    whole = state(fit(small_model(), **arguments))
    interrupt(small_model(), tmp_path, Crash(executions=4), **arguments)
    again = small_model(scrambled=True)
    fit(again, tmp_path, **arguments)
    same(whole, again)
    with pytest.raises(ValueError, match="must not be beyond the checkpoint"):
        fit(small_model(), tmp_path, **{**arguments, "initial_epoch": 4}, epochs=9)


# Executions of several steps


@pytest.mark.parametrize("size", shared.few([2, 3, 4, 7], 2))
def test_an_epoch_has_all_its_steps_for_any_size_of_executions(size):
    for arguments in (
        {"x": batches()},
        {"x": dataset("finite")},
        {"x": dataset("repeated"), "steps_per_epoch": STEPS},
    ):
        model = fit(small_model(steps_per_execution=size), **arguments, epochs=2)
        assert int(model.optimizer.iterations) == 2 * STEPS
        assert model.steps_per_execution == size
    same(state(fit(small_model())), fit(small_model(steps_per_execution=size)))


@pytest.mark.parametrize(
    "first, then, executions, every",
    shared.few(
        [(1, 2, 4, 1), (1, 4, 4, 1), (2, 2, 2, 1), (4, 1, 2, 1), (4, 4, 2, 1), (3, 2, 4, 3), (2, 7, 5, 4)],
        *[(1, 4, 4, 1), (4, 1, 2, 1), (2, 7, 5, 4)],
    ),
)
def test_executions_of_another_size_resume_at_the_same_step(tmp_path, first, then, executions, every):
    whole = state(fit(small_model()))
    checkpoints = kb.callbacks.Checkpoints(tmp_path, every=every)
    interrupt(small_model(steps_per_execution=first), None, Crash(executions), [checkpoints])
    meta = meta_of(checkpoints.last)
    assert meta["step"] == meta["epoch"] * STEPS + meta["batch"] <= EPOCHS * STEPS and meta["batch"] < STEPS + 1
    again = fit(small_model(steps_per_execution=then, seed=5), tmp_path)
    same(whole, again)


def test_callbacks_see_every_batch_once(tmp_path):
    class Listener(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.begun, self.ended = [], []

        def on_train_batch_begin(self, batch, logs=None):
            self.begun.append(batch)

        def on_train_batch_end(self, batch, logs=None):
            self.ended.append(batch)

    interrupt(small_model(), tmp_path, Crash(executions=4), [Listener()], epochs=1)
    again = Listener()
    fit(small_model(), tmp_path, callbacks=[again], epochs=1)
    assert again.begun == again.ended == list(range(STEPS))


# The optimizer and other settings


def test_another_learning_rate_is_taken_and_named(tmp_path, caplog):
    fit(small_model(keras.optimizers.SGD(0.5, momentum=0.9)), tmp_path, epochs=1)
    model = small_model(keras.optimizers.SGD(0.001, momentum=0.5, weight_decay=1e-4))
    fit(model, tmp_path, epochs=2)
    assert float(model.optimizer.learning_rate) == np.float32(0.001)
    assert int(model.optimizer.iterations) == 2 * STEPS
    text = "started with: learning_rate: 0.5 -> 0.001, momentum: 0.9 -> 0.5, weight_decay: None -> 1e-04."
    assert caplog.text.count(text) == 1
    # This is now the rate of the run.
    caplog.clear()
    model = fit(small_model(keras.optimizers.SGD(0.001, momentum=0.5, weight_decay=1e-4)), tmp_path)
    assert float(model.optimizer.learning_rate) == np.float32(0.001) and "resumes with settings" not in caplog.text


class Halve(keras.callbacks.Callback):
    """Halves the learning rate after each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


@pytest.mark.parametrize(
    "wrapped, in_one_process",
    shared.few([(False, False), (False, True), (True, False), (True, True)], (False, True), (True, False)),
)
def test_a_rate_that_a_callback_has_changed_is_resumed(tmp_path, caplog, in_one_process, wrapped):
    def model():
        inner = keras.optimizers.SGD(0.01, momentum=0.9)
        return small_model(keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0) if wrapped else inner)

    whole = state(fit(model(), callbacks=[Halve()]))
    first = model()
    interrupt(first, tmp_path, Crash(executions=7), [Halve()])
    first.optimizer.learning_rate = float(first.optimizer.learning_rate)
    again = fit(first if in_one_process else model(), tmp_path, callbacks=[Halve()])
    same(whole, again)
    assert "resumes with settings" not in caplog.text
    other = small_model(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=8.0))
    if wrapped:
        fit(other, tmp_path, callbacks=[Halve()])
        assert float(other.optimizer.learning_rate) == np.float32(0.1) and float(other.optimizer.dynamic_scale) == 8.0


@pytest.mark.parametrize(
    "optimizer, name",
    [
        (lambda: kb.optimizers.LARS(0.01), "LARS"),
        (lambda: keras.optimizers.Lion(0.01), "Lion"),
        (lambda: keras.optimizers.RMSprop(0.01), "RMSprop"),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01, momentum=0.9)), r"LossScale.*\(SGD\)"),
    ],
)
def test_an_optimizer_of_another_class_is_refused(tmp_path, optimizer, name):
    fit(small_model(), tmp_path, epochs=1)
    with pytest.raises(ValueError, match=f"the optimizer {name}, and SGD in the checkpoint. Compile with SGD"):
        fit(small_model(optimizer()), tmp_path)


def test_other_slots_are_refused_with_what_has_changed(tmp_path):
    fit(small_model(keras.optimizers.SGD(0.01)), tmp_path, epochs=1)
    for arguments, change in (
        ({"momentum": 0.9}, "momentum: 0.0 -> 0.9"),
        ({"use_ema": True}, "use_ema: False -> True"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps: None -> 2"),
    ):
        with pytest.raises(ValueError, match=f"an optimizer whose variables differ.*changed: {change}"):
            fit(small_model(keras.optimizers.SGD(0.01, **arguments)), tmp_path)


def test_a_schedule_takes_the_place_of_a_rate_and_back(tmp_path, caplog):
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 50)
    fit(small_model(), tmp_path, epochs=1)
    model = fit(small_model(keras.optimizers.SGD(schedule, momentum=0.9)), tmp_path, epochs=2)
    assert "learning_rate: 0.01 -> CosineDecay(initial_learning_rate=0.02, decay_steps=50" in caplog.text
    np.testing.assert_allclose(model.optimizer.learning_rate, schedule(2 * STEPS))
    model = fit(small_model(keras.optimizers.SGD(0.03, momentum=0.9)), tmp_path, epochs=3)
    assert float(model.optimizer.learning_rate) == np.float32(0.03) and int(model.optimizer.iterations) == 3 * STEPS
    longer = keras.optimizers.schedules.CosineDecay(0.02, 70)
    settled = settings.changes(
        *({"learning_rate": keras.saving.serialize_keras_object(one)} for one in (schedule, longer))
    )
    assert settled == {"learning_rate.decay_steps": "50 -> 70"}


def test_the_vector_rate_of_lars_is_resumed_and_may_change(tmp_path):
    """A callback has set it in the first run; a new run with other rates has those."""

    def lars(rate=0.2, vector_rate=0.01):
        return kb.optimizers.LARS(rate, vector_learning_rate=vector_rate)

    class SetVectorRate(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 0:
                self.model.optimizer.vector_learning_rate = 0.03

    def resumed(optimizer, epochs):
        return float(fit(small_model(optimizer), tmp_path, epochs=epochs).optimizer.vector_learning_rate)

    fit(small_model(lars()), tmp_path, epochs=1, callbacks=[SetVectorRate()])
    np.testing.assert_allclose(resumed(lars(), 2), 0.03, rtol=1e-6)
    np.testing.assert_allclose(resumed(lars(rate=0.1), 3), 0.01, rtol=1e-6)
    schedule = keras.optimizers.schedules.CosineDecay(0.2, 50)
    np.testing.assert_allclose(resumed(lars(schedule), 4), 0.01, rtol=1e-6)
    np.testing.assert_allclose(resumed(lars(schedule, 0.02), 5), 0.02, rtol=1e-6)


def test_other_changed_settings_are_named(tmp_path, caplog):
    fit(small_model(), tmp_path, epochs=1)
    changed = {
        "loss": kb.losses.BarlowTwinsLoss(redundancy_weight=0.5),
        "skip_nonfinite": True,
        "accumulation_steps": 2,
    }
    del changed["accumulation_steps"]
    history = small_model(**changed)
    fit(history, tmp_path, epochs=2)
    assert "loss.redundancy_weight: 0.005 -> 0.5" in caplog.text or "redundancy_weight" in caplog.text
    assert "skip_nonfinite: False -> True" in caplog.text
    # The metric of skipped steps is removed again.
    fit(small_model(), tmp_path)
    with pytest.raises(ValueError, match=r"belongs to one model.*weights in the checkpoint and"):
        fit(small_model(moving_average=0.9), tmp_path)


@pytest.mark.parametrize(
    "arguments", [{"use_ema": True, "ema_overwrite_frequency": 3}, {"gradient_accumulation_steps": 2}]
)
def test_averages_and_accumulated_gradients_are_resumed(tmp_path, arguments):
    def model():
        return small_model(keras.optimizers.SGD(0.01, momentum=0.9, **arguments), dropout=0.5)

    whole = state(fit(model()))
    interrupt(model(), tmp_path, Crash(executions=8))
    same(whole, fit(model(), tmp_path))


def test_a_checkpoint_of_an_older_version_is_resumed(tmp_path, caplog):
    whole = state(fit(small_model()))
    interrupt(small_model(), tmp_path, Crash(executions=8))
    path = checkpoint.list_checkpoints(tmp_path)[-1]
    arrays, meta = checkpoint.read(path.read_bytes())
    kept = {"epoch", "batch", "step", "order", "views_seed"}
    arrays = {name: array for name, array in arrays.items() if not name.startswith(("callbacks/", "batches/"))}
    checkpoint.write(path, arrays, {name: meta[name] for name in kept})
    other = small_model(keras.optimizers.SGD(0.5, momentum=0.9))
    again = fit(other, tmp_path, callbacks=[keras.callbacks.EarlyStopping("loss", patience=99)])
    same(whole, again)
    assert "its learning_rate is kept: 0.01, not 0.5" in caplog.text
    assert "EarlyStopping starts afresh" in caplog.text


def test_the_count_of_batches_is_resumed_or_taken_from_the_optimizer():
    model = small_model()
    if getattr(model, "batch_count", None) is None:
        model.batch_count = keras.Variable(0, dtype="int64", trainable=False)
    model.optimizer.build(model.trainable_variables)
    model.batch_count.assign(7)
    arrays = checkpoint.state_of(model)
    assert arrays["batches/0000"] == 7
    assert sum(name.startswith("model/") for name in arrays) == len(
        [v for v in model.variables if v is not model.batch_count]
    )
    model.batch_count.assign(0)
    checkpoint.restore_state(model, arrays)
    assert int(model.batch_count) == 7
    model.optimizer.iterations.assign(5)
    older = {name: array for name, array in checkpoint.state_of(model).items() if name != "batches/0000"}
    checkpoint.restore_state(model, older)
    assert int(model.batch_count) == 5


# Callbacks


class Quality(keras.callbacks.Callback):
    """Logs a metric that keeps getting worse."""

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = 1.0 + epoch


class Counter(keras.callbacks.Callback):
    """A user's callback with counts, averages and a list."""

    def __init__(self, limit=10):
        super().__init__()
        self.limit = limit
        self.count = 0
        self.recent = collections.deque(maxlen=3)
        self.per_epoch = collections.defaultdict(int)
        self.mean = np.zeros(2)
        self.variable = keras.Variable(0.0)

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        self.limit -= 1
        self.recent.append((batch, self.count))
        self.per_epoch[self._epoch] += 1
        self.mean += self.count
        self.variable.assign_add(2.0)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def seen(self):
        variable = float(keras.ops.convert_to_numpy(self.variable))
        return self.limit, self.count, list(self.recent), dict(self.per_epoch), self.mean.tolist(), variable


class Own(keras.callbacks.Callback):
    """A user's callback that manages its own state."""

    def __init__(self):
        super().__init__()
        self.inside = {"object": object()}
        self.total = 0

    def on_train_batch_end(self, batch, logs=None):
        self.total += 1

    def get_state(self):
        return {"total": self.total}

    def set_state(self, state):
        self.total = state["total"]


LABELS = np.arange(len(IMAGES)) % 2
MEMORIES = {
    "EarlyStopping": (
        lambda path: keras.callbacks.EarlyStopping("quality", mode="min", patience=9, restore_best_weights=True),
        lambda one: (one.wait, one.best, one.best_epoch, [weight.tolist() for weight in one.best_weights]),
    ),
    "ReduceLROnPlateau": (
        lambda path: keras.callbacks.ReduceLROnPlateau("quality", mode="min", patience=2, factor=0.5, min_delta=0.1),
        lambda one: (one.wait, one.best, one.cooldown_counter),
    ),
    "ModelCheckpoint": (
        lambda path: keras.callbacks.ModelCheckpoint(
            path / "best.weights.h5", "quality", save_best_only=True, save_weights_only=True, mode="min"
        ),
        lambda one: (one.best, one._batches_seen_since_last_saving),
    ),
    "TensorBoard": (lambda path: keras.callbacks.TensorBoard(path / "board"), lambda one: one._global_train_batch),
    "History": (
        lambda path: keras.callbacks.History(),
        lambda one: (one.epoch, sorted(one.history), one.history["quality"]),
    ),
    "LearningRateScheduler": (
        lambda path: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        lambda one: float(one.model.optimizer.learning_rate),
    ),
    "SwapEMAWeights": (
        lambda path: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        lambda one: one._ema_weights_in_model,
    ),
    "LinearProbe": (
        lambda path: kb.callbacks.LinearProbe((IMAGES, LABELS), (IMAGES, LABELS), passes=2),
        lambda one: (one._head.steps, one._head.weights.tolist(), [moment.tolist() for moment in one._head.moments]),
    ),
    "a user's own": (lambda path: Counter(), Counter.seen),
    "with get_state": (lambda path: Own(), lambda one: one.total),
    "CSVLogger": (
        lambda path: keras.callbacks.CSVLogger(path / "log.csv"),
        lambda one: [line.split(",")[0] for line in pathlib.Path(one.filename).read_text().splitlines()],
    ),
}


# In the middle of an epoch, and between two.
CRASHES = [(name, crash) for name in MEMORIES for crash in ({"executions": 8}, {"epoch": 2})]


@pytest.mark.parametrize(
    "name, crash",
    shared.few(
        CRASHES,
        *[(name, crash) for name, crash in CRASHES if "executions" in crash or name in ("EarlyStopping", "CSVLogger")],
    ),
)
def test_the_state_of_callbacks_is_resumed(tmp_path, name, crash):
    make, seen = MEMORIES[name]
    (tmp_path / "whole").mkdir()
    (tmp_path / "again").mkdir()

    def model():
        averaged = keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True)
        return small_model(averaged if name == "SwapEMAWeights" else None)

    def run(how, path, *arguments, listed=None):
        listed = [Quality(), make(path)] if listed is None else listed
        return how(model(), path / "checkpoints", *arguments, callbacks=listed), listed[-1]

    model_of_whole, expected = run(fit, tmp_path / "whole")
    whole, expected = state(model_of_whole), json.dumps(seen(expected))
    _, crashed = run(interrupt, tmp_path / "again", Crash(**crash))
    if name == "CSVLogger":
        crashed.csv_file.close()
    again, resumed = run(fit, tmp_path / "again")
    same(whole, again)
    assert expected == json.dumps(seen(resumed))


def test_a_run_that_had_stopped_early_stays_stopped(tmp_path, caplog):
    def run(patience, epochs=9):
        stopping = keras.callbacks.EarlyStopping("quality", mode="min", patience=patience, restore_best_weights=True)
        model = small_model()
        model.fit(
            batches(), epochs=epochs, verbose=0, callbacks=[Quality(), stopping, kb.callbacks.Checkpoints(tmp_path)]
        )
        return model

    first = run(2)
    assert first.history.epoch == [0, 1, 2] and int(first.optimizer.iterations) == 3 * STEPS
    best = state(first)
    again = run(2)
    assert again.history.epoch == [0, 1, 2] and int(again.optimizer.iterations) == 3 * STEPS
    assert "EarlyStopping had ended this run after epoch 3; nothing is trained" in caplog.text
    # The best weights, those of the first epoch, are restored too.
    same(best, again)
    assert run(4).history.epoch == [0, 1, 2, 3, 4]


def test_a_run_stopped_in_an_epoch_resumes_in_it(tmp_path):
    class StopAt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    whole = state(fit(small_model()))
    fit(small_model(), tmp_path, callbacks=[StopAt()])
    assert checkpoint.list_checkpoints(tmp_path)[-1].name == checkpoint.name_of(3)
    same(whole, fit(small_model(), tmp_path))


def test_swapped_weights_are_recognized(tmp_path):
    def model():
        return small_model(keras.optimizers.SGD(0.01, use_ema=True))

    fit(model(), tmp_path, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], epochs=1)
    with pytest.raises(ValueError, match="callbacks without SwapEMAWeights"):
        fit(model(), tmp_path)
    with pytest.raises(ValueError, match="a run of 1 epochs that has ended, and epochs=3"):
        fit(model(), tmp_path, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])


def test_state_that_cannot_be_saved_is_named_once(tmp_path, caplog):
    class Holder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.generator = np.random.default_rng(0)
            self.function = len
            self.head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

        def on_train_begin(self, logs=None):
            self.encoder = self.model.encoder

    fit(small_model(), tmp_path, callbacks=[Holder()])
    assert caplog.text.count("Not saved: Holder.generator (Generator), Holder.head (Sequential).") == 1
    assert caplog.text.count("Not saved") == 1

    class Half(keras.callbacks.Callback):
        def get_state(self):
            return 0

    with pytest.raises(ValueError, match="needs both `get_state"):
        fit(small_model(), tmp_path / "half", callbacks=[Half()])

    class Wrong(Own):
        def get_state(self):
            return object()

    with pytest.raises(TypeError, match=r"`get_state\(\)` must return numbers.*object.*from Wrong"):
        fit(small_model(), tmp_path / "wrong", callbacks=[Wrong()])


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("inf"),
        "text",
        b"bytes",
        np.float32(0.1),
        np.arange(6).reshape(2, 3),
        {"a": [1, (2, {3})], 4: np.ones(2)},
        collections.deque([1, 2], 2),
        tf.constant([1, 2], "bfloat16"),
    ],
    ids=str,
)
def test_plain_values_survive_a_file(tmp_path, value):
    arrays = []
    text = json.dumps(memory.encode(value, arrays))
    path = tmp_path / "values.npz"
    checkpoint.write(path, {str(number): array for number, array in enumerate(arrays)}, {})
    saved = checkpoint.read(path.read_bytes())[0]
    again = memory.decode(json.loads(text), [saved[str(number)] for number in range(len(arrays))])
    assert type(again) is type(value) and getattr(again, "dtype", None) == getattr(value, "dtype", None)
    if isinstance(value, tf.Tensor):
        again, value = again.numpy().tolist(), value.numpy().tolist()
    np.testing.assert_equal(again, value)


# Arguments of `fit`


def test_a_callback_list_is_taken_and_does_not_grow(tmp_path):
    model = small_model()
    callbacks = keras.callbacks.CallbackList(
        [kb.callbacks.Checkpoints(tmp_path)],
        add_history=True,
        add_progbar=True,
        model=model,
        epochs=1,
        steps=STEPS,
        verbose=0,
    )
    for epochs in range(1, 4):
        model.fit(batches(), epochs=epochs, verbose=0, callbacks=callbacks)
        assert len(callbacks.callbacks) == 3 and int(model.optimizer.iterations) == epochs * STEPS
    same(state(fit(small_model())), model)
    images = IMAGES.astype("float32")
    images[3] = np.nan
    with pytest.raises(FloatingPointError, match="at step 2"):
        small_model().fit(
            tf.data.Dataset.from_tensor_slices(images).batch(2), verbose=0, callbacks=keras.callbacks.CallbackList([])
        )

    class Mine(keras.callbacks.CallbackList):
        pass

    with pytest.raises(ValueError, match=r"callbacks=Mine\. Pass a list"):
        small_model().fit(batches(), verbose=0, callbacks=Mine([]))


def test_folders_are_checked_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(small_model(), callbacks=[kb.callbacks.Checkpoints("~/run")], epochs=1)
    assert len(checkpoint.list_checkpoints(tmp_path / "run")) == 1 and len(list((tmp_path / "run").iterdir())) == 1
    with pytest.raises(ValueError, match=r"must be a local path.*gs://bucket/run"):
        kb.callbacks.Checkpoints("gs://bucket/run")
    (tmp_path / "file").write_text("a file where the folder should be")
    model = small_model()
    with pytest.raises(OSError, match="cannot be written to this folder"):
        fit(model, callbacks=[kb.callbacks.Checkpoints(tmp_path / "file" / "run")])
    assert int(model.optimizer.iterations) == 0


def test_two_that_would_resume_are_refused(tmp_path):
    checkpoints = [kb.callbacks.Checkpoints(tmp_path / name) for name in "ab"]
    with pytest.raises(ValueError, match="2 Checkpoints"):
        fit(small_model(), callbacks=checkpoints)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "c")
    with pytest.raises(ValueError, match="BackupAndRestore with Checkpoints"):
        fit(small_model(), x=dataset(), callbacks=[checkpoints[0], backup])
    with pytest.raises(ValueError, match="BackupAndRestore with Batches"):
        fit(small_model(), callbacks=[backup])
    fit(small_model(), x=dataset(), callbacks=[backup], epochs=1)


def test_validation_and_fewer_epochs_change_nothing(tmp_path):
    arguments = {"validation_data": dataset()}
    model = fit(small_model(), **arguments)
    whole, losses = state(model), model.history.history["val_loss"]
    interrupt(small_model(), tmp_path, Crash(epoch=2), **arguments)
    fewer = fit(small_model(), tmp_path, epochs=1, **arguments)
    assert int(fewer.optimizer.iterations) == 2 * STEPS and fewer.history.epoch == [0, 1]
    again = fit(small_model(), tmp_path, **arguments)
    same(whole, again)
    np.testing.assert_allclose(again.history.history["val_loss"], losses, rtol=1e-6)
