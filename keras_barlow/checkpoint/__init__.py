"""Exact resume: checkpoint files, and the training state that they hold."""

from keras_barlow.checkpoint.checkpoint_file import (
    DamagedCheckpoint,
    check_writable,
    keep_newest,
    latest,
    list_checkpoints,
    name_of,
    read,
    write,
)
from keras_barlow.checkpoint.training_state import hyperparameter_names, restore_state, state_of

__all__ = [
    "DamagedCheckpoint",
    "check_writable",
    "hyperparameter_names",
    "keep_newest",
    "latest",
    "list_checkpoints",
    "name_of",
    "read",
    "restore_state",
    "state_of",
    "write",
]
