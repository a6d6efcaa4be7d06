"""Checkpoint files: written atomically, and verified when they are read.

A checkpoint is an ordinary `.npz` file. Its last 64 bytes, the comment of the zip archive, are the SHA-256 of all bytes
before them, so any later damage is detected. The file is written under a temporary name, flushed to disk and renamed,
so an interrupted write leaves earlier checkpoints intact.
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
    """The checksum does not match the contents of the checkpoint."""


def write(path, arrays, meta):
    """Writes a checkpoint atomically.

    Args:
        path: File to write.
        arrays: Dictionary of NumPy arrays.
        meta: Dictionary that can be serialized to JSON.

    Raises:
        OSError: If the disk is full or read-only. No existing file changes.

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
                    # NumPy has no name for bfloat16 and writes it as raw bytes.
                    np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
        file.seek(-_DIGEST, os.SEEK_END)
        end = file.tell()
        file.seek(0)
        digest = hashlib.sha256()
        while file.tell() < end:
            digest.update(file.read(min(2**20, end - file.tell())))
        file.write(digest.hexdigest().encode())


def read(content):
    """Reads a checkpoint and verifies its checksum.

    Args:
        content: Bytes of the file.

    Returns:
        The pair `(arrays, meta)`.

    Raises:
        DamagedCheckpoint: If any byte has changed or is missing.
    """
    _check(content)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop(_META)))


def latest(folder):
    """Finds the newest intact checkpoint.

    Damaged checkpoints that are newer are renamed to `*.damaged`, with a warning.

    Args:
        folder: Folder that contains the checkpoints.

    Returns:
        The pair `(path, bytes)`, or None if the folder has no checkpoint.

    Raises:
        ValueError: If all checkpoints are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        content = path.read_bytes()
        try:
            _check(content)
            return path, content
        except DamagedCheckpoint as error:
            damaged = path.with_name(f"{path.name}.damaged")
            path.rename(damaged)
            logging.warning("The checkpoint %s is damaged: %s. Renamed it to %s.", path, error, damaged.name)
    if paths:
        raise ValueError(
            f"Resuming needs an intact checkpoint. Received: {len(paths)} in {folder}, all of them damaged. "
            "Choose another folder to start a new run."
        )
    return None


def list_checkpoints(folder):
    """Lists the checkpoints in a folder.

    Args:
        folder: Folder that contains the checkpoints.

    Returns:
        A list of paths, oldest first.
    """
    return sorted(pathlib.Path(folder).glob("step-*.npz"))


def check_writable(folder):
    """Creates a folder for checkpoints if it is missing, and checks that files can be written to it.

    Args:
        folder: `pathlib.Path` of the folder.

    Raises:
        OSError: If the folder cannot be created or written to.
    """
    trial = folder / f"step-{os.getpid()}{UNFINISHED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"0")
    except OSError as error:
        raise OSError(
            error.errno,
            f"Checkpoints cannot be written to this folder ({error.strerror}). Make it writable, free some space, or "
            "choose another folder",
            str(folder),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


def name_of(step):
    """Returns the file name of the checkpoint after a number of steps.

    Args:
        step: Number of completed training steps.

    Returns:
        A string. File names sort in the order of their steps.
    """
    return f"step-{step:012d}.npz"


def keep_newest(folder, count):
    """Deletes all but the newest checkpoints, and the leftovers of interrupted writes.

    Args:
        folder: Folder that contains the checkpoints.
        count: Number of checkpoints to keep.
    """
    for path in [*list_checkpoints(folder)[:-count], *pathlib.Path(folder).glob(f"step-*{UNFINISHED}")]:
        path.unlink(missing_ok=True)


def _check(content):
    if hashlib.sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
        raise DamagedCheckpoint(f"the checksum of its {len(content)} bytes is wrong")
