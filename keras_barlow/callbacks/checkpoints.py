"""Checkpoints for exact resume, and clean interruption of a run."""

import pathlib
import signal
import threading
import time

import keras
import numpy as np

from keras_barlow import checkpoint, distribution
from keras_barlow.callbacks import resuming, settings


class Interrupted(Exception):
    """Raised to end training after a step. `BarlowTwins.fit` catches it and returns."""


class Checkpoints(keras.callbacks.Callback):
    """Saves the complete state of a run, and resumes it exactly.

    A checkpoint holds the weights, moving statistics, metrics, the optimizer with its step and loss scale, the seed of
    the views, the epoch and batch, and the state of the other callbacks. `BarlowTwins.fit` resumes from the newest
    intact checkpoint in the folder, also in the middle of an epoch, and reaches the weights of an uninterrupted run.
    This requires data in a reproducible order: `data.Batches` (`images.batches(...)`), or a `tf.data.Dataset` that
    yields the same elements in every epoch.

    The class of the optimizer must not change, but its hyperparameters may. If the `learning_rate`, `weight_decay` or
    another setting differs from that of the original run, the new value is used and a warning lists the changes. A
    learning rate that a callback has changed during the run is resumed as it was.

    The state of Keras' callbacks (`EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, `SwapEMAWeights`,
    `TensorBoard`, `History`) and of `LinearProbe` is saved. A run that `EarlyStopping` has ended stays ended. For your
    own callbacks, all attributes made of numbers, text, arrays and containers of them are saved, except those named
    like a constructor argument, which are settings. A warning names attributes that cannot be saved. To control what is
    saved, give the class the methods `get_state()` and `set_state(state)`.

    With several workers, the chief reads and writes checkpoints and sends them to the others, so the folder need not be
    shared. A resumed run may use a different number of workers and replicas.

    On SIGTERM, or after `max_seconds`, the current step finishes, a checkpoint is saved, and `fit` returns with
    `interrupted` set. If the disk is full, OSError is raised and earlier checkpoints stay intact.

    Args:
        folder: Local folder for the files `step-<number>.npz`, created if necessary. `~` is the home folder.
        every: Number of steps between two checkpoints; None saves at the end of each epoch only. The end of an epoch is
            always saved. With `steps_per_execution > 1`, a checkpoint is saved at the end of the execution.
        keep: Number of newest checkpoints to keep.
        resume: Whether to resume. If False, the folder must not contain checkpoints.
        max_seconds: Number of seconds from the construction of this callback after which to stop; None for no limit.
        exact: Whether to refuse datasets that differ between passes, such as shuffled ones. If False, a resumed run on
            such a dataset trains for the right number of steps, but on other images.

    Attributes:
        last: Path of the newest checkpoint of this run, or None.
        interrupted: Reason why `fit` returned before the last epoch, a string; or None.
        ended: Whether `EarlyStopping` had already ended the resumed run.
        first_epoch: Epoch in which the run started to read its dataset.

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
                "`folder` must be a local path, because a checkpoint is renamed once it is complete. "
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
        """Restores the model from the newest checkpoint. `BarlowTwins.fit` calls it.

        Args:
            model: Compiled `BarlowTwins`.
            order: Dictionary of the settings that determine the order of the data.
            callbacks: Other callbacks of the run, whose state is saved too.
            initial_epoch: Epoch to start with if there is no checkpoint.

        Returns:
            The pair `(epoch, batch)` to start with, `(initial_epoch, 0)` if there is no checkpoint.

        Raises:
            ValueError: If the checkpoint belongs to another model, optimizer or dataset, or all are damaged.
            OSError: If the folder is not writable.
        """
        strategy = distribution.strategy_of(model)
        self.interrupted = self.last = self._restored = None
        self.ended, self.first_epoch = False, initial_epoch
        self._order = order
        self._settings = settings.settings_of(model)
        self._peers = resuming.Peers(callbacks, model)
        # Warn before training about everything that cannot be saved.
        resuming.warn_about_foreign_draws(model)
        self._peers.read()
        newest = None
        if distribution.is_chief(strategy):
            checkpoint.check_writable(self.folder)
            newest = checkpoint.latest(self.folder)
        content = distribution.from_chief(strategy, newest[1] if newest else b"")
        if not content:
            return initial_epoch, 0
        if not self.resume:
            raise ValueError(
                "With resume=False, the folder must not contain checkpoints. "
                f"Received: {self.folder}. Resume, or choose another folder."
            )
        self._restored = resuming.Restored(model, checkpoint.read(content), self._peers)
        self._restored.check(order, self._settings, initial_epoch)
        self._restored.apply_to_model()
        self._restored.continue_tables()
        self.first_epoch = self._restored.meta.get("first_epoch", 0)
        self.ended = self._restored.ended_early()
        self.last = newest[0] if newest else None
        return self._restored.epoch, self._restored.batch

    def on_train_begin(self, logs=None):
        self._on_any_worker = distribution.agreement(distribution.strategy_of(self.model))
        self._signaled = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._on_signal)
        if self._restored:
            self._restored.check_epochs(self.params["epochs"])
            # `on_train_begin` has just reset the other callbacks.
            self._restored.apply()

    def on_train_end(self, logs=None):
        if self._settings:
            settings.record_end_of_run(self._peers.model, self._settings)
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._steps_done = 0
        if self._restored and self._restored.epoch == epoch and self._restored.batch:
            # `fit` has just reset the metrics, and the other callbacks have seen the start of this epoch again.
            self._restored.apply()
            self._steps_done = self._restored.batch
        self._restored = None

    def on_train_batch_begin(self, batch, logs=None):
        # The argument of `on_train_batch_end` is the first batch of the execution in Keras 3.10, the last in 3.15.
        self._execution_start = batch

    def on_train_batch_end(self, batch, logs=None):
        before, self._steps_done = self._steps_done, self._execution_start + self.model.steps_per_execution
        if self.params["steps"]:
            self._steps_done = min(self._steps_done, self.params["steps"])
        offset = self._epoch * self.params["steps"]
        due = self.every is not None and (offset + self._steps_done) // self.every > (offset + before) // self.every
        reason = None
        if self._on_any_worker(self._stop_reason() is not None):
            reason = self._stop_reason() or "another worker received a request to stop"
        if (due or reason) and np.isfinite(float(logs["loss"])):
            self._save(self._epoch, self._steps_done)
        if reason:
            self.interrupted = reason
            raise Interrupted(reason)

    def on_epoch_end(self, epoch, logs=None):
        if self._steps_done < self.params["steps"]:
            # A callback has stopped training in the middle of the epoch.
            self._save(epoch, self._steps_done)
        else:
            self._save(epoch + 1, 0)

    def _on_signal(self, number, frame):
        self._signaled = True

    def _stop_reason(self):
        if self._signaled:
            return "SIGTERM"
        if self.max_seconds is not None and time.monotonic() - self._started >= self.max_seconds:
            return f"the limit of {self.max_seconds:g} seconds"
        return None

    def _save(self, epoch, batch):
        arrays = checkpoint.state_of(self.model)
        step = epoch * self.params["steps"] + batch
        nonfinite = [
            name for name, array in arrays.items() if array.dtype.kind in "fV" and not np.isfinite(array).all()
        ]
        if nonfinite:
            raise FloatingPointError(
                f"The weights are no longer finite at step {step}, starting with {nonfinite[0]}. Nothing was saved; "
                f"the last good checkpoint is {self.last}. Lower the learning rate, or use a longer warmup."
            )
        if not distribution.is_chief(distribution.strategy_of(self.model)):
            return
        callback_states, callback_arrays = self._peers.read()
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
            "callbacks": callback_states,
        }
        path = self.folder / checkpoint.name_of(step)
        try:
            checkpoint.write(path, {**arrays, **callback_arrays}, meta)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The checkpoint of step {step} could not be written ({error.strerror}). The last good checkpoint is "
                f"{self.last}. Free disk space or choose another folder, then resume",
                str(path),
            ) from error
        self.last = path
        checkpoint.keep_newest(self.folder, self.keep)
