"""A guard against losses that are no numbers."""

import keras
import numpy as np

_SKIPPED_IN_A_ROW = 10


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises FloatingPointError at the first step whose loss is NaN or infinite.

    `BarlowTwins.fit` adds it by itself. With `steps_per_execution > 1` the step named is the last of the
    execution that went wrong. A model that skips such steps (`skip_nonfinite=True`) is stopped after ten in a row.

    Args:
        checkpoints: `Checkpoints` of the same run, whose last one the message names, or None.
    """

    def __init__(self, checkpoints=None):
        super().__init__()
        self.checkpoints = checkpoints
        self._skipped = 0
        self._in_a_row = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._skipped = 0

    def on_train_batch_end(self, batch, logs=None):
        loss, skipped = float(logs["loss"]), float(logs.get("skipped", 0))
        self._in_a_row = self._in_a_row + 1 if skipped > self._skipped else 0
        self._skipped = skipped
        if np.isfinite(loss) and self._in_a_row < _SKIPPED_IN_A_ROW:
            return
        step = int(self.model.optimizer.iterations.numpy())
        found = f"The loss is {loss}" if self._in_a_row == 0 else f"{self._in_a_row} steps in a row were skipped"
        last = self.checkpoints.last if self.checkpoints else None
        kept = f"The last good checkpoint is {last}. " if last else ""
        raise FloatingPointError(
            f"{found} at step {step}. Training has stopped; the weights are not to be used. {kept}"
            "Lower the learning rate, warm it up for longer, or check the images for NaN."
        )
