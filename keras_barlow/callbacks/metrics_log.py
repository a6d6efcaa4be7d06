"""Records of a run."""

import json
import pathlib

import keras

from keras_barlow import distribution
from keras_barlow.whole_files import replacing


class MetricsLog(keras.callbacks.Callback):
    """Writes one JSON line an epoch: `epoch` (from 1) and the logs. Of several workers the chief writes.

    Args:
        path: File to write. An existing one is continued; the lines of epochs that are trained again are replaced.

    Example:

    >>> log = MetricsLog("metrics.jsonl")
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self._begun = False

    def on_train_begin(self, logs=None):
        self._begun = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._begun and distribution.is_chief(self.model.distribute_strategy):
            self._keep_lines_until(epoch)
        self._begun = True

    def on_epoch_end(self, epoch, logs=None):
        if not distribution.is_chief(self.model.distribute_strategy):
            return
        line = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _keep_lines_until(self, epoch):
        path = pathlib.Path(self.path)
        if not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines(True) if _epoch_of(line) <= epoch]
        with replacing(path) as unfinished:
            unfinished.write_text("".join(kept), encoding="utf-8")


def _epoch_of(line):
    try:
        return json.loads(line)["epoch"]
    # A line that was being written when its process was killed.
    except (ValueError, KeyError, TypeError):
        return float("inf")
