"""Files that are either whole or not there."""

import contextlib
import os
import pathlib

UNFINISHED = ".unfinished"


@contextlib.contextmanager
def replacing(path):
    """Writes a file under another name and renames it at the end, so that an interruption leaves `path` as it was.

    Args:
        path: File to write or replace.

    Yields:
        `pathlib.Path` in the same folder to write to. It is deleted if the block raises an error.

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
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
