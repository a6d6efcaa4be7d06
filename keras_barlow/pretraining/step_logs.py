"""The logs of a step: means of the loss terms over an epoch, and the number of skipped steps."""

import keras
from keras import ops

from keras_barlow import distribution


class StepLogs:
    """Averages the terms of the loss over the steps of an epoch.

    Every replica adds its share, so that the sums in a checkpoint do not depend on the number of replicas.

    Args:
        names: Names of the terms.
        skips: Whether steps may be skipped, which the log `skipped` counts.

    Attributes:
        metrics: List of `keras.metrics.Metric`.
    """

    def __init__(self, names, skips):
        self._trackers = [keras.metrics.Mean(name=name) for name in names]
        self._skipped = [keras.metrics.Sum(name="skipped")] if skips else []
        self.metrics = self._trackers + self._skipped

    def update(self, terms, penalty, finite=None):
        """Adds a step.

        Args:
            terms: Dictionary of the terms of the global batch.
            penalty: This replica's share of the penalties, or None.
            finite: Scalar boolean: whether the step was not skipped; None if no step is ever skipped.
        """
        values = dict(terms)
        if penalty is not None:
            # The trackers take a mean over the replicas, of penalties that add up.
            values["loss"] += penalty * distribution.replica_count()
        share = ops.convert_to_tensor(1.0 / distribution.replica_count())
        if finite is not None:
            values = {name: ops.where(finite, value, 0.0) for name, value in values.items()}
            for tracker in self._skipped:
                tracker.update_state(ops.where(finite, 0.0, share))
            share = ops.where(finite, share, 0.0)
        for tracker in self._trackers:
            tracker.update_state(values[tracker.name], sample_weight=share)
