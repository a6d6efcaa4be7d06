"""Exact resume: the state of a training run in one file that is either whole or not there.

A checkpoint is an ordinary `.npz` file whose last 64 bytes, the comment of the archive, are the SHA-256 of all bytes
before them. It is written under another name, flushed to the disk and renamed, so that an interrupted write leaves the
checkpoints before it as they were; and what was damaged afterwards is recognised.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import zipfile

import keras
import numpy as np
from absl import logging

_DIGEST = 64
_META = "meta"
_UNFINISHED = ".unfinished"
_BATCHES = "batches/0000"


class DamagedCheckpoint(ValueError):
    """The file is not what was written."""


def write(path, arrays, meta):
    """Writes a checkpoint, or leaves everything as it was.

    Args:
        path: File to write.
        arrays: Dictionary of NumPy arrays.
        meta: Dictionary that JSON can hold.

    Raises:
        OSError: If the disk is full or read-only.

    Example:

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "step-000000007.npz"
    >>> write(path, {"weight": np.arange(3.0)}, {"step": 7})
    >>> arrays, meta = read(path.read_bytes())
    >>> arrays["weight"].tolist(), meta
    ([0.0, 1.0, 2.0], {'step': 7})
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
    try:
        with open(unfinished, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.comment = b"0" * _DIGEST
                for name, array in {_META: np.array(json.dumps(meta)), **arrays}.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        # What NumPy has no name for, bfloat16, it keeps as bytes.
                        np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            file.seek(-_DIGEST, os.SEEK_END)
            end = file.tell()
            file.seek(0)
            digest = hashlib.sha256()
            while file.tell() < end:
                digest.update(file.read(min(2**20, end - file.tell())))
            file.write(digest.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _flush_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read(content):
    """What a checkpoint holds.

    Args:
        content: Its bytes.

    Returns:
        The pair `(arrays, meta)`.

    Raises:
        DamagedCheckpoint: If a byte is not as it was written, or missing.
    """
    _check(content)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop(_META)))


def latest(folder):
    """The newest checkpoint that is whole. A damaged one is put aside, with a warning.

    Args:
        folder: Where the checkpoints are.

    Returns:
        The pair `(path, bytes)`, or None if there is none.

    Raises:
        ValueError: If there are checkpoints and none of them is whole.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        content = path.read_bytes()
        try:
            _check(content)
            return path, content
        except DamagedCheckpoint as error:
            aside = path.with_name(f"{path.name}.damaged")
            path.rename(aside)
            logging.warning("The checkpoint %s is damaged: %s. It is now %s.", path, error, aside.name)
    if paths:
        raise ValueError(
            f"There must be a checkpoint that is whole. Received: {len(paths)} in {folder}, all of them damaged. "
            "Choose another folder to start afresh."
        )
    return None


def list_checkpoints(folder):
    """The checkpoints of a folder, the newest last.

    Args:
        folder: Where the checkpoints are.

    Returns:
        A list of paths.
    """
    return sorted(pathlib.Path(folder).glob("step-*.npz"))


def check_writable(folder):
    """Creates a folder for checkpoints if need be, and writes a byte to it.

    Args:
        folder: `pathlib.Path`.

    Raises:
        OSError: If that fails.
    """
    trial = folder / f"step-{os.getpid()}{_UNFINISHED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"0")
    except OSError as error:
        raise OSError(
            error.errno,
            f"Checkpoints cannot be written to this folder ({error.strerror}). Make it writable, make room, or choose "
            "another folder",
            str(folder),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


def name_of(step):
    """The file name of the checkpoint after a number of steps.

    Args:
        step: Integer.

    Returns:
        A string; the names are in the order of the steps.
    """
    return f"step-{step:012d}.npz"


def keep_newest(folder, count):
    """Deletes all checkpoints but the newest, and what an interrupted write has left.

    Args:
        folder: Where the checkpoints are.
        count: How many to keep.
    """
    for path in [*list_checkpoints(folder)[:-count], *pathlib.Path(folder).glob(f"step-*{_UNFINISHED}")]:
        path.unlink(missing_ok=True)


def state_of(model):
    """The numbers that a training step can change: weights, statistics, seeds, metrics, and the optimizer's.

    Under a strategy all workers must call it, since metrics are summed over the replicas.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary of NumPy arrays.
    """
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(model).items()}


def restore_state(model, arrays, names=None, kept=(), changes=""):
    """Gives a model the numbers of `state_of`.

    Args:
        model: Compiled `keras.Model` of the same architecture and optimizer, under any strategy.
        arrays: Dictionary of NumPy arrays.
        names: Which of the arrays are hyperparameters, `hyperparameter_names` of the model that they come from. None
            for those of this model.
        kept: Names of hyperparameters that stay as they are in the model.
        changes: What else differs between the two, in words, for the error.

    Raises:
        ValueError: If they are of another model, or of an optimizer that keeps other numbers.
    """
    variables = _variables(model)
    own = hyperparameter_names(model)
    names = own if names is None else names
    pairs = _pairs_of_weights(variables, arrays)
    pairs += _pairs_of_slots(variables, arrays, own.values(), names.values(), changes)
    pairs += [(own[name], names[name]) for name in own if name in names and name not in kept]
    # Metrics may come or go, with `skip_nonfinite` for one, and are reset at the next epoch.
    pairs += [(name, name) for name in variables if name.startswith("metrics/") and name in arrays]
    for ours, theirs in pairs:
        _assign(variables[ours], arrays[theirs])
    if _BATCHES in arrays and _BATCHES in variables:
        _assign(variables[_BATCHES], arrays[_BATCHES])
    elif _BATCHES in variables:
        # Before there was a count of batches, the optimizer's steps were taken for it.
        variables[_BATCHES].assign(keras.ops.cast(model.optimizer.iterations, variables[_BATCHES].dtype))


def hyperparameter_names(model):
    """The names under which `state_of` has the hyperparameters that are variables.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary from the optimizer's argument, such as `learning_rate`, to a name. Without `learning_rate` if that is
        a schedule.
    """
    numbers = {id(variable): name for name, variable in _variables(model).items()}
    return {name: numbers[id(variable)] for name, variable in _hyperparameters(model.optimizer)}


def _hyperparameters(optimizer, prefix=""):
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return [(f"{prefix}initial_scale", optimizer.dynamic_scale), *_hyperparameters(inner, prefix)]
    several = getattr(optimizer, "optimizers", None)
    if several is not None:
        return [pair for number, one in enumerate(several) for pair in _hyperparameters(one, f"{prefix}{number}.")]
    rate = optimizer.learning_rate
    return [(f"{prefix}learning_rate", rate)] if isinstance(rate, keras.Variable) else []


def _pairs_of_weights(variables, arrays):
    ours = {name: variable for name, variable in variables.items() if name.startswith("model/")}
    theirs = [name for name in arrays if name.startswith("model/")]
    rule = "A checkpoint belongs to one model and one optimizer. Received: "
    remedy = "Train with the model that the run was started with, or in another folder."
    if len(ours) != len(theirs):
        raise ValueError(f"{rule}{len(theirs)} weights in the checkpoint and {len(ours)} in the model. {remedy}")
    for name, variable in ours.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{rule}a weight of shape {arrays[name].shape} in the checkpoint where the model has "
                f"{getattr(variable, 'path', name)} of shape {tuple(variable.shape)}. {remedy}"
            )
    return [(name, name) for name in ours]


def _pairs_of_slots(variables, arrays, own, theirs, changes):
    """Everything of the optimizer but its hyperparameters, matched in their order."""
    own = [name for name in variables if name.startswith("optimizer/") and name not in own]
    theirs = [name for name in arrays if name.startswith("optimizer/") and name not in theirs]
    if [tuple(variables[name].shape) for name in own] != [arrays[name].shape for name in theirs]:
        raise ValueError(
            "A checkpoint belongs to one model and one optimizer. Received: an optimizer that keeps other numbers than "
            f"that of the checkpoint ({len(own)} arrays and {len(theirs)}"
            f"{f'; changed: {changes}' if changes else ''}). Train with what the run was started with, or in another "
            "folder."
        )
    return list(zip(own, theirs, strict=True))


def _check(content):
    if hashlib.sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
        raise DamagedCheckpoint(f"the checksum of its {len(content)} bytes is wrong")


def _assign(variable, array):
    variable.assign(array.view(variable.dtype) if array.dtype.kind == "V" else array)


def _variables(model):
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    count = getattr(model, "batch_count", None)
    groups = {
        "model": [variable for variable in model.variables if variable is not count],
        "metrics": model.metrics_variables,
        "optimizer": model.optimizer.variables,
        "batches": [] if count is None else [count],
    }
    # By number: two layers may have one name, and Keras counts its names on from model to model.
    return {
        f"{group}/{number:04d}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }


def _flush_folder(folder):
    """The new name must be on the disk too."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
