"""Logging of metrics to a file."""

import json
import pathlib

import keras

from keras_barlow import distribution
from keras_barlow.whole_files import replacing


class MetricsLog(keras.callbacks.Callback):
    """Writes one line of JSON per epoch with the number of the epoch, from 1, and its logs.

    With several workers, only the chief writes.

    Args:
        path: File to write. Lines are appended to an existing file, and lines of epochs that are repeated are replaced.

    Example:

    >>> log = MetricsLog("metrics.jsonl")
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self._trimmed = False

    def on_train_begin(self, logs=None):
        self._trimmed = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._trimmed and distribution.is_chief(distribution.strategy_of(self.model)):
            self._drop_lines_after(epoch)
        self._trimmed = True

    def on_epoch_end(self, epoch, logs=None):
        if not distribution.is_chief(distribution.strategy_of(self.model)):
            return
        line = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _drop_lines_after(self, epoch):
        path = pathlib.Path(self.path)
        if not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines(True) if _epoch_of(line) <= epoch]
        with replacing(path) as unfinished:
            unfinished.write_text("".join(kept), encoding="utf-8")


def _epoch_of(line):
    try:
        return json.loads(line)["epoch"]
    # The process was killed while writing this line.
    except (ValueError, KeyError, TypeError):
        return float("inf")
