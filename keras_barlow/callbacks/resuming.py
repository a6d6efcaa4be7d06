"""Checks and restores the parts of a checkpoint."""

import pathlib

import keras
from absl import logging

from keras_barlow import checkpoint, keras_internals
from keras_barlow.callbacks import memory, settings
from keras_barlow.whole_files import replacing

_CALLBACKS = "callbacks/"
_REMEDY = "Resume with the original data, or choose another folder."


class Peers:
    """Saves and restores the state of the other callbacks of a run.

    Args:
        callbacks: List of Keras callbacks.
        model: `keras.Model` that is trained.
    """

    def __init__(self, callbacks=(), model=None):
        self.callbacks = list(callbacks)
        self.model = model
        self._memories = {
            name: memory.Memory(callback, model) for name, callback in memory.by_name(self.callbacks).items()
        }
        self._warned = set()

    def read(self):
        """Returns the state of all callbacks.

        Returns:
            The pair `(states, arrays)`: a JSON-serializable dictionary by callback, and a dictionary of arrays by their
            names in the file.

        Raises:
            TypeError: If `get_state` of a callback returns a value that cannot be saved.
        """
        states, arrays, left_out = {}, {}, []
        for name, callback_memory in self._memories.items():
            try:
                states[name], own_arrays, missing = callback_memory.read()
            except memory.NotPlain as error:
                raise TypeError(
                    "`get_state()` must return numbers, text, arrays and containers of them. "
                    f"Received: {error}, from {type(callback_memory.callback).__name__}. Convert the value."
                ) from error
            arrays.update({f"{_CALLBACKS}{name}/{number:04d}": array for number, array in enumerate(own_arrays)})
            left_out += missing
        self._warn_once(left_out)
        return states, arrays

    def write(self, states, arrays):
        """Restores the callbacks that have a saved state.

        Args:
            states: Dictionary of states that `read` returned.
            arrays: Dictionary of arrays that `read` returned.
        """
        for name, callback_memory in self._memories.items():
            if name in states:
                prefix = f"{_CALLBACKS}{name}/"
                keys = sorted(key for key in arrays if key.startswith(prefix))
                callback_memory.write(states[name], [arrays[key] for key in keys])

    def _warn_once(self, left_out):
        new = [name for name in left_out if name not in self._warned]
        self._warned.update(new)
        if new:
            logging.warning(
                "Checkpoints save the numbers, text and arrays of callbacks. Not saved: %s. To keep these attributes "
                "in a resumed run, add get_state() and set_state(state) to the callback.",
                ", ".join(new),
            )


class Restored:
    """A checkpoint from which a run resumes.

    Args:
        model: Compiled `BarlowTwins`.
        content: The pair `(arrays, meta)` of `checkpoint.read`.
        peers: `Peers` of the run.

    Attributes:
        epoch: Epoch to resume from.
        batch: Batch of that epoch to resume from.
        meta: Dictionary of the metadata of the checkpoint.
    """

    def __init__(self, model, content, peers):
        arrays, self.meta = content
        self.epoch, self.batch = self.meta["epoch"], self.meta["batch"]
        self._model = model
        self._peers = peers
        self._arrays = {name: array for name, array in arrays.items() if not name.startswith(_CALLBACKS)}
        self._callback_arrays = {name: array for name, array in arrays.items() if name.startswith(_CALLBACKS)}
        self._states = self.meta.get("callbacks", {})
        self._changes = {}

    def check(self, order, own, initial_epoch):
        """Compares the settings of the run with those in the checkpoint, and warns about differences.

        Args:
            order: Dictionary of the settings that determine the order of the data.
            own: Return value of `settings.settings_of` for the model.
            initial_epoch: Argument `initial_epoch` of `fit`.

        Raises:
            ValueError: If the run cannot resume from this checkpoint.
        """
        if self.meta["order"] != order:
            raise ValueError(
                "A run must resume with the data that it was started with. Received: "
                f"{order}, but {self.meta['order']} in the checkpoint. {_REMEDY}"
            )
        if initial_epoch > self.epoch:
            raise ValueError(
                "`initial_epoch` must not be beyond the checkpoint, where the run resumes. Received: "
                f"initial_epoch={initial_epoch}, and a checkpoint of epoch {self.epoch}. Remove the argument, or "
                "choose another folder."
            )
        saved = self.meta.get("settings")
        if saved is None:
            self._warn_about_kept_rates()
        else:
            self._compare(saved, own)
        self._compare_callbacks()

    def check_epochs(self, epochs):
        """Checks that the end of the original run has not replaced the weights by their averages.

        Args:
            epochs: Argument `epochs` of `fit`.

        Raises:
            ValueError: If `SwapEMAWeights` has replaced the weights of a completed run.
        """
        swaps = any(callback.swap_on_epoch for callback in self._swapping())
        if swaps and self.batch == 0 and self.meta.get("epochs") == self.epoch < epochs:
            raise ValueError(
                "In the last epoch, SwapEMAWeights replaces the weights by their averages, so the run cannot be "
                f"extended exactly. Received: a run of {self.epoch} epochs that has ended, and epochs={epochs}. Train "
                "for all epochs from the start, in another folder."
            )

    def apply_to_model(self):
        """Restores the model and its optimizer."""
        names = self.meta.get("hyperparameters")
        text = ", ".join(f"{name}: {change}" for name, change in self._changes.items())
        checkpoint.restore_state(self._model, self._arrays, names, kept=self._changes, changes=text)
        if self.meta["views_seed"] not in (None, self._model.views.seed):
            self._model.views.seed = self.meta["views_seed"]
            # The graphs of a model that has been trained contain the seed as a constant.
            self._model.train_function = self._model.test_function = None

    def continue_tables(self):
        """Makes `CSVLogger` append to its file, and drops the rows of epochs that are repeated."""
        for callback in self._peers.callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger):
                _drop_rows_from(self.epoch, pathlib.Path(callback.filename), callback.sep)
                callback.append = True

    def apply(self):
        """Restores the model, its optimizer and the other callbacks."""
        self.apply_to_model()
        self._peers.write(self._states, self._callback_arrays)

    def ended_early(self):
        """Returns whether `EarlyStopping` has ended the run, also by its current `patience`."""
        for name, callback in memory.by_name(self._peers.callbacks).items():
            state = self._states.get(name, {})
            stopped = isinstance(callback, keras.callbacks.EarlyStopping) and state.get("stopped_epoch")
            if stopped and state["wait"] >= callback.patience:
                logging.warning(
                    "EarlyStopping had ended this run after epoch %d; nothing is trained. Raise its patience to "
                    "continue.",
                    self.epoch,
                )
                return True
        return False

    def _compare(self, saved, own):
        if saved["optimizer"] != own["optimizer"]:
            raise ValueError(
                "A checkpoint belongs to one model and one optimizer. Received: the optimizer "
                f"{own['optimizer']}, and {saved['optimizer']} in the checkpoint. Compile with "
                f"{saved['optimizer']}, with any learning rate, or choose another folder."
            )
        self._changes = settings.changes(saved["optimizer_config"], own["optimizer_config"])
        changes = {**self._changes, **settings.changes(saved["model"], own["model"])}
        if changes:
            logging.warning(
                "The run resumes with settings other than those it was started with: %s.",
                ", ".join(f"{name}: {change}" for name, change in changes.items()),
            )

    def _warn_about_kept_rates(self):
        """Warns that rates are resumed as saved, because an older checkpoint does not hold the original settings."""
        for name, key in checkpoint.hyperparameter_names(self._model).items():
            now = checkpoint.state_of(self._model)[key]
            if key in self._arrays and self._arrays[key].shape == () and self._arrays[key] != now:
                logging.warning(
                    "An older checkpoint does not hold the settings of its run, so its %s is kept: %g, not %g. Use "
                    "keras.callbacks.LearningRateScheduler to change it.",
                    name,
                    self._arrays[key],
                    now,
                )

    def _compare_callbacks(self):
        present = memory.by_name(self._peers.callbacks)
        missing = [name for name in self._states if name not in present]
        if any(
            name.startswith("SwapEMAWeights#") and self._states[name][keras_internals.AVERAGES_IN_MODEL]
            for name in missing
        ):
            raise ValueError(
                "The checkpoint holds averages instead of weights, and only SwapEMAWeights can swap them back. "
                "Received: callbacks without SwapEMAWeights. Add SwapEMAWeights(swap_on_epoch=True), or choose another "
                "folder."
            )
        if (
            "callbacks" not in self.meta
            and self.batch == 0
            and any(callback.swap_on_epoch for callback in self._swapping())
        ):
            raise ValueError(
                "An older checkpoint may hold averages instead of weights. Received: "
                "SwapEMAWeights(swap_on_epoch=True). Choose another folder."
            )
        states, _ = self._peers.read()
        new = [name for name, state in states.items() if state and name not in self._states]
        for names, text in (
            (missing, "was removed"),
            (new, "starts afresh, because the checkpoint has no state for it"),
        ):
            for kind in sorted({name.split("#")[0] for name in names if self._states.get(name, True)}):
                if kind not in memory.UNIMPORTANT:
                    logging.warning("The callbacks have changed since the checkpoint: %s %s.", kind, text)

    def _swapping(self):
        return [callback for callback in self._peers.callbacks if isinstance(callback, keras.callbacks.SwapEMAWeights)]


def _drop_rows_from(epoch, path, separator):
    if not path.exists():
        return
    rows = path.read_text(encoding="utf-8").splitlines(True)
    numbers = [row.split(separator)[0] for row in rows]
    kept = [row for row, number in zip(rows, numbers, strict=True) if not number.isdigit() or int(number) < epoch]
    with replacing(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def warn_about_foreign_draws(model):
    """Warns about layers whose random numbers cannot be resumed: keras-cv keeps its generators outside the model.

    Args:
        model: Compiled `BarlowTwins`.
    """
    layers = keras_internals.flat_layers(model.views) if isinstance(model.views, keras.Layer) else []
    names = sorted({type(layer).__name__ for layer in layers if type(layer).__module__.split(".")[0] == "keras_cv"})
    if names:
        logging.warning(
            "Layers of keras-cv use their own random generators, so a resumed run sees the right images in other "
            "views: %s. Layers of Keras and keras_barlow.views.barlow_twins are resumed exactly.",
            ", ".join(names),
        )
