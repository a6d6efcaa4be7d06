"""Keras callbacks: online probes, checkpoints, guards and logs."""

from keras_barlow import moved
from keras_barlow.callbacks.checkpoints import Checkpoints, Interrupted
from keras_barlow.callbacks.guards import StopOnNonFiniteLoss
from keras_barlow.callbacks.metrics_log import MetricsLog
from keras_barlow.callbacks.probes import CollapseMonitor, KNNProbe, LinearProbe

__all__ = [
    "Checkpoints",
    "CollapseMonitor",
    "Interrupted",
    "KNNProbe",
    "LinearProbe",
    "MetricsLog",
    "StopOnNonFiniteLoss",
]


def __getattr__(name):
    return moved.attribute(f"callbacks.{name}")
