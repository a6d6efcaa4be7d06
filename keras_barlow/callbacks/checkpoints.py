"""Exact resume, and interruptions that lose nothing."""

import pathlib
import signal
import threading
import time

import keras
import numpy as np

from keras_barlow import checkpoint, distribution
from keras_barlow.callbacks import resuming, settings


class Interrupted(Exception):
    """Ends the training loop after a step. `BarlowTwins.fit` catches it and returns."""


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole state of a run, and goes on from it.

    A checkpoint holds weights, optimizer (its loss scale and step too), moving statistics, metrics, the seed of the
    views, epoch and batch, and what the other callbacks remember. `BarlowTwins.fit` begins at the newest one in the
    folder that is whole, in the middle of an epoch if it must, so that the interrupted run has the weights of the
    uninterrupted one. It trains on `data.Batches` (`images.batches(...)`), whose order can be found again; or on a
    `tf.data.Dataset` that is the same in every epoch.

    The optimizer must be of the class it was. Hyperparameters are those of the new run: a `learning_rate` or
    `weight_decay` other than the one that the run was started with is taken, and a warning says what has changed. A
    rate that a callback has lowered since is resumed as it was.

    The memory of Keras' callbacks (`EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, `SwapEMAWeights`,
    `TensorBoard`, `History`) and of `LinearProbe` is saved. A run that `EarlyStopping` had ended stays ended. Of
    callbacks of your own, all attributes that are numbers, text, arrays or containers of them are saved, but for
    those with the name of a constructor's argument, which are settings; what else they hold is named in a warning.
    Give a class `get_state()` and `set_state(state)` to decide by itself; the state may be made of anything plain.

    Under several workers the chief writes, and at the start sends what it has read to the others: the folder may be
    its own, and the number of workers and replicas another one.

    SIGTERM, or the end of `max_seconds`, lets the step finish, saves, and makes `fit` return, with `interrupted` set.
    A full disk raises OSError and leaves the checkpoints before it whole.

    Args:
        folder: Where to write `step-<number>.npz`; created if need be. A local path; `~` is the home folder.
        every: Steps between two checkpoints; None for the end of each epoch only, which is always saved. With
            `steps_per_execution` the checkpoint comes at the end of the execution.
        keep: How many checkpoints to keep, the newest.
        resume: False to begin with the model as it is; then the folder must hold no checkpoint.
        max_seconds: Time after which to stop, from the construction of this callback; None for no limit.
        exact: False to train on a dataset that is another one in every pass, such as a shuffled one. A resumed run then
            takes the right number of steps, on other images. True refuses it before training.

    Attributes:
        last: Path of the newest checkpoint of this run, or None.
        interrupted: Why `fit` returned before the last epoch, a string; or None.
        ended: True if the run that was resumed had been ended by `EarlyStopping`.
        first_epoch: Epoch in which the run began to read its dataset.

    Raises:
        ValueError: If `every`, `keep` or `max_seconds` is not positive, or `folder` is a URL.

    Example:

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp(), every=500)
    """

    def __init__(self, folder, every=None, keep=3, resume=True, max_seconds=None, exact=True):
        super().__init__()
        for name, value in (("every", every), ("keep", keep), ("max_seconds", max_seconds)):
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        if "://" in str(folder):
            raise ValueError(
                "`folder` must be a local path, since a checkpoint is renamed once it is whole. "
                f"Received: folder={str(folder)!r}. Mount the bucket, or copy the folder after training."
            )
        self.folder = pathlib.Path(folder).expanduser()
        self.every = every
        self.keep = keep
        self.resume = resume
        self.max_seconds = max_seconds
        self.exact = exact
        self.last = None
        self.interrupted = None
        self.ended = False
        self.first_epoch = 0
        self._started = time.monotonic()
        self._order = {}
        self._settings = {}
        self._peers = resuming.Peers()
        self._restored = None
        self._handler = None

    def restore(self, model, order, callbacks=(), initial_epoch=0):
        """Gives the model the state of the newest checkpoint. `BarlowTwins.fit` calls it.

        Args:
            model: Compiled `BarlowTwins`.
            order: Dictionary of what the order of the data depends on.
            callbacks: The other callbacks of the run, whose memory is saved too.
            initial_epoch: Epoch to begin with if there is nothing to resume.

        Returns:
            The pair `(epoch, batch)` to begin with; `(initial_epoch, 0)` if there is nothing to resume.

        Raises:
            ValueError: If the checkpoint is of another model, another optimizer or other data, or all are damaged.
            OSError: If the folder cannot be written to.
        """
        strategy = model.distribute_strategy
        self.interrupted = self.last = self._restored = None
        self.ended, self.first_epoch = False, initial_epoch
        self._order = order
        self._settings = settings.settings_of(model)
        self._peers = resuming.Peers(callbacks, model)
        # What cannot be saved is said before training.
        resuming.name_foreign_draws(model)
        self._peers.read()
        found = None
        if distribution.is_chief(strategy):
            checkpoint.check_writable(self.folder)
            found = checkpoint.latest(self.folder)
        content = distribution.from_chief(strategy, found[1] if found else b"")
        if not content:
            return initial_epoch, 0
        if not self.resume:
            raise ValueError(
                "Without resume=True the folder must hold no checkpoint. "
                f"Received: {self.folder}. Resume, or choose another folder."
            )
        self._restored = resuming.Restored(model, checkpoint.read(content), self._peers)
        self._restored.check(order, self._settings, initial_epoch)
        self._restored.apply_to_model()
        self._restored.continue_tables()
        self.first_epoch = self._restored.meta.get("first_epoch", 0)
        self.ended = self._restored.ended_early()
        self.last = found[0] if found else None
        return self._restored.epoch, self._restored.batch

    def on_train_begin(self, logs=None):
        self._on_any_worker = distribution.agreement(self.model.distribute_strategy)
        self._signalled = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._on_signal)
        if self._restored:
            self._restored.check_epochs(self.params["epochs"])
            # The other callbacks have just been set up, as for a run that begins.
            self._restored.apply()

    def on_train_end(self, logs=None):
        if self._settings:
            settings.leave(self._peers.model, self._settings)
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._done = 0
        if self._restored and self._restored.epoch == epoch and self._restored.batch:
            # `fit` has just reset the metrics, and the other callbacks have begun this epoch a second time.
            self._restored.apply()
            self._done = self._restored.batch
        self._restored = None

    def on_train_batch_begin(self, batch, logs=None):
        # On Keras 3.10 the end of a batch says where its execution began, on Keras 3.15 where it was to end.
        self._begun = batch

    def on_train_batch_end(self, batch, logs=None):
        before, self._done = self._done, self._begun + self.model.steps_per_execution
        if self.params["steps"]:
            self._done = min(self._done, self.params["steps"])
        offset = self._epoch * self.params["steps"]
        due = self.every is not None and (offset + self._done) // self.every > (offset + before) // self.every
        reason = None
        if self._on_any_worker(self._stop_reason() is not None):
            reason = self._stop_reason() or "another worker was told to stop"
        if (due or reason) and np.isfinite(float(logs["loss"])):
            self._save(self._epoch, self._done)
        if reason:
            self.interrupted = reason
            raise Interrupted(reason)

    def on_epoch_end(self, epoch, logs=None):
        if self._done < self.params["steps"]:
            # A callback has stopped the training in the middle of the epoch.
            self._save(epoch, self._done)
        else:
            self._save(epoch + 1, 0)

    def _on_signal(self, number, frame):
        self._signalled = True

    def _stop_reason(self):
        if self._signalled:
            return "SIGTERM"
        if self.max_seconds is not None and time.monotonic() - self._started >= self.max_seconds:
            return f"the limit of {self.max_seconds:g} seconds"
        return None

    def _save(self, epoch, batch):
        arrays = checkpoint.state_of(self.model)
        step = epoch * self.params["steps"] + batch
        broken = [name for name, array in arrays.items() if array.dtype.kind in "fV" and not np.isfinite(array).all()]
        if broken:
            raise FloatingPointError(
                f"The weights are no longer finite at step {step}, first of all {broken[0]}. Nothing was saved; the "
                f"last good checkpoint is {self.last}. Lower the learning rate, or warm it up for longer."
            )
        if not distribution.is_chief(self.model.distribute_strategy):
            return
        remembered, kept = self._peers.read()
        meta = {
            "epoch": epoch,
            "batch": batch,
            "step": step,
            "order": self._order,
            "views_seed": getattr(self.model.views, "seed", None),
            "epochs": self.params["epochs"],
            "first_epoch": self.first_epoch,
            "settings": self._settings,
            "hyperparameters": checkpoint.hyperparameter_names(self.model),
            "callbacks": remembered,
        }
        path = self.folder / checkpoint.name_of(step)
        try:
            checkpoint.write(path, {**arrays, **kept}, meta)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The checkpoint of step {step} could not be written ({error.strerror}). The last good one is "
                f"{self.last}. Make room, or choose another folder, and resume",
                str(path),
            ) from error
        self.last = path
        checkpoint.keep_newest(self.folder, self.keep)
