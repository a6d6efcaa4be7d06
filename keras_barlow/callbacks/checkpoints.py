"""Exact resume, and interruptions that lose nothing."""

import pathlib
import signal
import threading
import time

import keras
import numpy as np

from keras_barlow import checkpoint, distribution


class Interrupted(Exception):
    """Ends the training loop after a step. `BarlowTwins.fit` catches it and returns."""


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole state of a run, and goes on from it.

    A checkpoint holds weights, optimizer (its loss scale and step too), moving statistics, metrics, the seed of the
    views, epoch and batch. `BarlowTwins.fit` begins at the newest one in the folder that is whole, in the middle of an
    epoch if it must, so that the interrupted run has the weights of the uninterrupted one. It trains on `data.Batches`
    (`images.batches(...)`), whose order can be found again; or on a `tf.data.Dataset` that is the same in every epoch.

    Under several workers the chief writes, and at the start sends what it has read to the others: the folder may be
    its own, and the number of workers and replicas another one.

    SIGTERM, or the end of `max_seconds`, lets the step finish, saves, and makes `fit` return, with `interrupted` set.
    A full disk raises OSError and leaves the checkpoints before it whole.

    Args:
        folder: Where to write `step-<number>.npz`; created if need be.
        every: Steps between two checkpoints; None for the end of each epoch only, which is always saved.
        keep: How many checkpoints to keep, the newest.
        resume: False to begin with the model as it is; then the folder must hold no checkpoint.
        max_seconds: Time after which to stop, from the construction of this callback; None for no limit.

    Attributes:
        last: Path of the newest checkpoint of this run, or None.
        interrupted: Why `fit` returned before the last epoch, a string; or None.

    Raises:
        ValueError: If `every`, `keep` or `max_seconds` is not positive.

    Example:

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp(), every=500)
    """

    def __init__(self, folder, every=None, keep=3, resume=True, max_seconds=None):
        super().__init__()
        for name, value in (("every", every), ("keep", keep), ("max_seconds", max_seconds)):
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.folder = pathlib.Path(folder)
        self.every = every
        self.keep = keep
        self.resume = resume
        self.max_seconds = max_seconds
        self.last = None
        self.interrupted = None
        self._started = time.monotonic()
        self._order = {}
        self._restored = None
        self._handler = None

    def restore(self, model, order):
        """Gives the model the state of the newest checkpoint. `BarlowTwins.fit` calls it.

        Args:
            model: Compiled `BarlowTwins`.
            order: Dictionary of what the order of the data depends on.

        Returns:
            The pair `(epoch, batch)` to begin with; `(0, 0)` if there is nothing to resume.

        Raises:
            ValueError: If the checkpoint is of another model or of other data, or all are damaged.
        """
        strategy = model.distribute_strategy
        self.interrupted = self.last = self._restored = None
        self._order = order
        found = None
        if distribution.is_chief(strategy):
            self.folder.mkdir(parents=True, exist_ok=True)
            found = checkpoint.latest(self.folder)
        content = distribution.from_chief(strategy, found[1] if found else b"")
        if not content:
            return 0, 0
        if not self.resume:
            raise ValueError(
                "Without resume=True the folder must hold no checkpoint. "
                f"Received: {self.folder}. Resume, or choose another folder."
            )
        arrays, meta = checkpoint.read(content)
        if meta["order"] != order:
            raise ValueError(
                "A run goes on with the data that it was started with. Received: "
                f"{order}, and {meta['order']} in the checkpoint. Resume with the same, or choose another folder."
            )
        checkpoint.restore_state(model, arrays)
        if meta["views_seed"] is not None:
            model.views.seed = meta["views_seed"]
        self.last = found[0] if found else None
        self._restored = meta["epoch"], meta["batch"], arrays
        return meta["epoch"], meta["batch"]

    def on_train_begin(self, logs=None):
        self._on_any_worker = distribution.agreement(self.model.distribute_strategy)
        self._signalled = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._on_signal)

    def on_train_end(self, logs=None):
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._done = 0
        if self._restored and self._restored[0] == epoch and self._restored[1]:
            # `fit` has just reset them.
            checkpoint.restore_metrics(self.model, self._restored[2])
            self._done = self._restored[1]
        self._restored = None

    def on_train_batch_end(self, batch, logs=None):
        if batch < self._done:
            return
        before, self._done = self._done, batch + 1
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
        meta = {
            "epoch": epoch,
            "batch": batch,
            "step": step,
            "order": self._order,
            "views_seed": getattr(self.model.views, "seed", None),
        }
        path = self.folder / checkpoint.name_of(step)
        try:
            checkpoint.write(path, arrays, meta)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The checkpoint of step {step} could not be written ({error.strerror}). The last good one is "
                f"{self.last}. Make room, or choose another folder, and resume",
                str(path),
            ) from error
        self.last = path
        checkpoint.keep_newest(self.folder, self.keep)
