"""Guards against losses and weights that are NaN or infinite."""

import keras
import numpy as np

_MAX_SKIPPED_STEPS = 10
# The smallest normal float16 number. Gradients that overflow at this scale are not finite at any scale.
_MIN_LOSS_SCALE = 2.0**-14


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises FloatingPointError as soon as training produces NaN or infinite values.

    It checks the loss after every step, and the weights and moving statistics after every epoch, because the loss can
    stay finite while the statistics for inference are not. A model that skips non-finite steps (`skip_nonfinite=True`)
    is stopped after ten skipped steps in a row. A run whose loss scale has collapsed is stopped at the end of the
    epoch. `BarlowTwins.fit` adds this callback. With `steps_per_execution > 1`, the error names the last step of the
    execution.

    Args:
        checkpoints: `Checkpoints` callback of the run, so that the error names the last checkpoint; or None.
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
        if np.isfinite(loss) and self._in_a_row < _MAX_SKIPPED_STEPS:
            return
        problem = f"The loss is {loss}" if self._in_a_row == 0 else f"{self._in_a_row} steps in a row were skipped"
        self._stop(f"{problem} at step {int(self.model.batch_count.numpy())}")

    def on_epoch_end(self, epoch, logs=None):
        broken = [variable.path for variable in self.model.variables if not _is_finite(variable)]
        if broken:
            names = ", ".join(broken[:3]) + (f" and {len(broken) - 3} others" if len(broken) > 3 else "")
            self._stop(f"{len(broken)} weights or statistics are not finite after epoch {epoch + 1}: {names}")
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
            if scale < _MIN_LOSS_SCALE:
                self._stop(f"The loss scale has fallen to {scale} in epoch {epoch + 1}: no gradient is finite")

    def _stop(self, problem):
        last = self.checkpoints.last if self.checkpoints else None
        checkpoint = f"The last good checkpoint is {last}. " if last else ""
        raise FloatingPointError(
            f"{problem}. Training has stopped; discard these weights. {checkpoint}"
            "Lower the learning rate, use a longer warmup, or check the images for NaN."
        )


def _is_finite(variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    return bool(keras.ops.all(keras.ops.isfinite(variable)))
