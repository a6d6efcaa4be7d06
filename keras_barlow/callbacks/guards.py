"""A guard against losses and weights that are no longer finite."""

import keras
import numpy as np

_SKIPPED_IN_A_ROW = 10
# float16 holds nothing smaller: gradients that overflow at this scale are not finite at all.
_LEAST_LOSS_SCALE = 2.0**-14


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises FloatingPointError where training has stopped making sense.

    That is the first step whose loss is NaN or infinite, and the end of an epoch after which a weight or a moving
    statistic is: a loss can be finite long after the statistics that inference uses. `BarlowTwins.fit` adds this
    callback. With `steps_per_execution > 1` the step named is the last of the execution that went wrong. A model that
    skips such steps (`skip_nonfinite=True`) is stopped after ten in a row, and a loss scale that falls to nothing stops
    the run at the end of the epoch.

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
        found = f"The loss is {loss}" if self._in_a_row == 0 else f"{self._in_a_row} steps in a row were skipped"
        self._stop(f"{found} at step {int(self.model.batch_count.numpy())}")

    def on_epoch_end(self, epoch, logs=None):
        broken = [variable.path for variable in self.model.variables if not _is_finite(variable)]
        if broken:
            names = ", ".join(broken[:3]) + (f" and {len(broken) - 3} others" if len(broken) > 3 else "")
            self._stop(f"{len(broken)} weights or statistics are not finite after epoch {epoch + 1}: {names}")
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
            if scale < _LEAST_LOSS_SCALE:
                self._stop(f"The loss scale has fallen to {scale} in epoch {epoch + 1}: no gradient is finite")

    def _stop(self, found):
        last = self.checkpoints.last if self.checkpoints else None
        kept = f"The last good checkpoint is {last}. " if last else ""
        raise FloatingPointError(
            f"{found}. Training has stopped; discard these weights. {kept}"
            "Lower the learning rate, warm it up for longer, or check the images for NaN."
        )


def _is_finite(variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    return bool(keras.ops.all(keras.ops.isfinite(variable)))
