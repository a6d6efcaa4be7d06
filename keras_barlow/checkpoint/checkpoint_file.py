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

import numpy as np
from absl import logging

from keras_barlow.whole_files import UNFINISHED, replacing

_DIGEST = 64
_META = "meta"


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
    with replacing(path, flush=True) as unfinished, open(unfinished, "w+b") as file:
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
    trial = folder / f"step-{os.getpid()}{UNFINISHED}"
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
    for path in [*list_checkpoints(folder)[:-count], *pathlib.Path(folder).glob(f"step-*{UNFINISHED}")]:
        path.unlink(missing_ok=True)


def _check(content):
    if hashlib.sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
        raise DamagedCheckpoint(f"the checksum of its {len(content)} bytes is wrong")
