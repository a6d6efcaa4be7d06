"""What a run takes from a checkpoint, and whether it may."""

import pathlib

import keras
from absl import logging

from keras_barlow import checkpoint, keras_internals
from keras_barlow.callbacks import memory, settings
from keras_barlow.whole_files import replacing

_CALLBACKS = "callbacks/"
_REMEDY = "Resume with the same, or choose another folder."


class Peers:
    """The other callbacks of a run and what they remember.

    Args:
        callbacks: List of Keras callbacks.
        model: The model that is trained.
    """

    def __init__(self, callbacks=(), model=None):
        self.callbacks = list(callbacks)
        self.model = model
        self._memories = {name: memory.Memory(one, model) for name, one in memory.by_name(self.callbacks).items()}
        self._named = set()

    def read(self):
        """What they all remember.

        Returns:
            The pair `(states, arrays)`: a dictionary that JSON can hold, and one of arrays by their name in the file.

        Raises:
            TypeError: If the `get_state` of one gives what a file cannot hold.
        """
        states, arrays, left_out = {}, {}, []
        for name, one in self._memories.items():
            try:
                states[name], found, missing = one.read()
            except memory.NotPlain as error:
                raise TypeError(
                    "`get_state()` must give numbers, text, arrays and containers of them. "
                    f"Received: {error}, from {type(one.callback).__name__}."
                ) from error
            arrays.update({f"{_CALLBACKS}{name}/{number:04d}": array for number, array in enumerate(found)})
            left_out += missing
        self._name_once(left_out)
        return states, arrays

    def write(self, states, arrays):
        """Gives them what they have remembered, as far as they were there.

        Args:
            states: Dictionary of `read`.
            arrays: Dictionary of `read`.
        """
        for name, one in self._memories.items():
            if name in states:
                prefix = f"{_CALLBACKS}{name}/"
                found = [arrays[key] for key in sorted(key for key in arrays if key.startswith(prefix))]
                one.write(states[name], found)

    def _name_once(self, left_out):
        new = [name for name in left_out if name not in self._named]
        self._named.update(new)
        if new:
            logging.warning(
                "Checkpoints save numbers, text and arrays of callbacks. Not saved: %s. After a resume they begin anew "
                "unless you give the callback get_state() and set_state(state).",
                ", ".join(new),
            )


class Restored:
    """A checkpoint that a run goes on from.

    Args:
        model: Compiled `BarlowTwins`.
        content: The pair `(arrays, meta)` of `checkpoint.read`.
        peers: `Peers`.

    Attributes:
        epoch: Epoch to begin with.
        batch: Batch of that epoch to begin with.
        meta: What the checkpoint says besides its arrays.
    """

    def __init__(self, model, content, peers):
        arrays, self.meta = content
        self.epoch, self.batch = self.meta["epoch"], self.meta["batch"]
        self._model = model
        self._peers = peers
        self._arrays = {name: array for name, array in arrays.items() if not name.startswith(_CALLBACKS)}
        self._remembered = {name: array for name, array in arrays.items() if name.startswith(_CALLBACKS)}
        self._states = self.meta.get("callbacks", {})
        self._changes = {}

    def check(self, order, own, initial_epoch):
        """Compares what the run was started with with what it is now, and says what differs.

        Args:
            order: Dictionary of what the order of the data depends on.
            own: `settings_of` the model.
            initial_epoch: As for `fit`.

        Raises:
            ValueError: If the run cannot go on with it.
        """
        if self.meta["order"] != order:
            raise ValueError(
                "A run must resume with the data that it was started with. Received: "
                f"{order}, and {self.meta['order']} in the checkpoint. {_REMEDY}"
            )
        if initial_epoch > self.epoch:
            raise ValueError(
                "`initial_epoch` must not be beyond the checkpoint, which says where to begin. Received: "
                f"initial_epoch={initial_epoch}, and a checkpoint of epoch {self.epoch}. Leave it out, or choose "
                "another folder."
            )
        saved = self.meta.get("settings")
        if saved is None:
            self._say_what_is_kept()
        else:
            self._compare(saved, own)
        self._compare_callbacks()

    def check_epochs(self, epochs):
        """Refuses to go on with weights that the end of the run has replaced.

        Args:
            epochs: As for `fit`.
        """
        swaps = any(one.swap_on_epoch for one in self._swapping())
        if swaps and self.batch == 0 and self.meta.get("epochs") == self.epoch < epochs:
            raise ValueError(
                "At its last epoch SwapEMAWeights replaces the weights by their averages, so that the run cannot go "
                f"on exactly. Received: a run of {self.epoch} epochs that has ended, and epochs={epochs}. Start with "
                "all epochs, in another folder."
            )

    def apply_to_model(self):
        """Gives the model and its optimizer what they had."""
        names = self.meta.get("hyperparameters")
        text = ", ".join(f"{name}: {change}" for name, change in self._changes.items())
        checkpoint.restore_state(self._model, self._arrays, names, kept=self._changes, changes=text)
        if self.meta["views_seed"] not in (None, self._model.views.seed):
            self._model.views.seed = self.meta["views_seed"]
            # A model that has trained before holds the seed as a constant of its graphs.
            self._model.train_function = self._model.test_function = None

    def continue_tables(self):
        """Lets a `CSVLogger` go on with its file, which it would empty, without the rows of what is trained again."""
        for one in self._peers.callbacks:
            if isinstance(one, keras.callbacks.CSVLogger):
                _keep_rows_until(self.epoch, pathlib.Path(one.filename), one.sep)
                one.append = True

    def apply(self):
        """Gives the model, its optimizer and the other callbacks what they had."""
        self.apply_to_model()
        self._peers.write(self._states, self._remembered)

    def ended_early(self):
        """Whether `EarlyStopping` had ended the run, and would with its new arguments too."""
        for name, one in memory.by_name(self._peers.callbacks).items():
            state = self._states.get(name, {})
            stops = isinstance(one, keras.callbacks.EarlyStopping) and state.get("stopped_epoch")
            if stops and state["wait"] >= one.patience:
                logging.warning(
                    "EarlyStopping had ended this run after epoch %d; nothing is trained. Raise its patience to go on.",
                    self.epoch,
                )
                return True
        return False

    def _compare(self, saved, own):
        if saved["optimizer"] != own["optimizer"]:
            raise ValueError(
                "A checkpoint belongs to one model and one optimizer. Received: the optimizer "
                f"{own['optimizer']}, and {saved['optimizer']} in the checkpoint. Compile with "
                f"{saved['optimizer']}, whose learning rate may be another one, or choose another folder."
            )
        self._changes = settings.changes(saved["optimizer_config"], own["optimizer_config"])
        changes = {**self._changes, **settings.changes(saved["model"], own["model"])}
        if changes:
            logging.warning(
                "The run resumes with settings other than it was started with: %s.",
                ", ".join(f"{name}: {change}" for name, change in changes.items()),
            )

    def _say_what_is_kept(self):
        """An older checkpoint does not say what its run was started with."""
        for name, key in checkpoint.hyperparameter_names(self._model).items():
            now = checkpoint.state_of(self._model)[key]
            if key in self._arrays and self._arrays[key].shape == () and self._arrays[key] != now:
                logging.warning(
                    "An older checkpoint does not say what its run was started with, so that its %s is kept: %g, not "
                    "%g. keras.callbacks.LearningRateScheduler sets another one.",
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
                "The checkpoint holds averages instead of the weights, and SwapEMAWeights swaps them back. Received: "
                "callbacks without SwapEMAWeights. Add SwapEMAWeights(swap_on_epoch=True), or choose another folder."
            )
        if "callbacks" not in self.meta and self.batch == 0 and any(one.swap_on_epoch for one in self._swapping()):
            raise ValueError(
                "An older checkpoint does not say whether it holds weights or their averages. Received: "
                "SwapEMAWeights(swap_on_epoch=True). Choose another folder."
            )
        remembered, _ = self._peers.read()
        new = [name for name, state in remembered.items() if state and name not in self._states]
        for names, text in ((missing, "is no longer there"), (new, "begins anew, since the checkpoint knows none")):
            for kind in sorted({name.split("#")[0] for name in names if self._states.get(name, True)}):
                if kind not in memory.UNIMPORTANT:
                    logging.warning("Callbacks have changed since the checkpoint: %s %s.", kind, text)

    def _swapping(self):
        return [one for one in self._peers.callbacks if isinstance(one, keras.callbacks.SwapEMAWeights)]


def _keep_rows_until(epoch, path, separator):
    if not path.exists():
        return
    rows = path.read_text(encoding="utf-8").splitlines(True)
    numbers = [row.split(separator)[0] for row in rows]
    kept = [row for row, number in zip(rows, numbers, strict=True) if not number.isdigit() or int(number) < epoch]
    with replacing(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def name_foreign_draws(model):
    """Says once a run which views cannot be drawn again: keras-cv's random numbers are in no variable of the model.

    Args:
        model: Compiled `BarlowTwins`.
    """
    layers = keras_internals.flat_layers(model.views) if isinstance(model.views, keras.Layer) else []
    names = sorted({type(one).__name__ for one in layers if type(one).__module__.split(".")[0] == "keras_cv"})
    if names:
        logging.warning(
            "The layers of keras-cv draw from their own generators, so a resumed run sees other views of the right "
            "images: %s. Keras' own layers and keras_barlow.views.barlow_twins are resumed exactly.",
            ", ".join(names),
        )
