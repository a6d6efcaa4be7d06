"""Atomic replacement of files."""

import contextlib
import os
import pathlib

UNFINISHED = ".unfinished"


@contextlib.contextmanager
def replacing(path, flush=False):
    """Writes a file under a temporary name and renames it at the end, so an interruption leaves `path` unchanged.

    Args:
        path: File to write or replace.
        flush: Whether to flush the file and its new name to disk, so that they survive a power failure.

    Yields:
        `pathlib.Path` of the temporary file to write, in the same folder. It is deleted if the block raises an error.

    Example:

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "results.json")
    >>> with replacing(path) as unfinished:
    ...     _ = unfinished.write_text("{}")
    >>> path.read_text()
    '{}'
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f"{path.name}{UNFINISHED}")
    try:
        yield unfinished
        if flush:
            with open(unfinished, "r+b") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
        if flush:
            _flush_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _flush_folder(folder):
    """Flushes the entries of a folder to disk. Only POSIX systems need it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
