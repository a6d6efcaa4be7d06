"""Callbacks: online probes, checkpoints, and guards and records of a run."""

from keras_barlow.callbacks.checkpoints import Checkpoints, Interrupted
from keras_barlow.callbacks.guards import StopOnNonFiniteLoss
from keras_barlow.callbacks.probes import CollapseMonitor, KNNProbe, LinearProbe
from keras_barlow.callbacks.records import MetricsLog
from keras_barlow.callbacks.workers import for_this_worker

__all__ = [
    "Checkpoints",
    "CollapseMonitor",
    "Interrupted",
    "KNNProbe",
    "LinearProbe",
    "MetricsLog",
    "StopOnNonFiniteLoss",
    "for_this_worker",
]
