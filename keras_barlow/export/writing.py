"""Atomic writing of exported files and folders, which replace nothing but an earlier export."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from keras_barlow.export.card import is_unchanged_card

_ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "README.md"}


def local_path(path):
    """Expands `~` in a path.

    Args:
        path: String or path.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If the path is an address of remote storage, or a name that TensorFlow cannot write.
    """
    path = os.fspath(path)
    if "://" in str(path):
        raise ValueError(f"`path` must be local. Received: path={path!r}. Write a local file and copy it there.")
    path = pathlib.Path(os.path.expanduser(os.fsdecode(path)))
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"`path` must be valid UTF-8. Received: path={str(path)!r}. Rename the folder.") from None
    return path


def check_folder(path):
    """Raises ValueError unless the folder is new or empty, or holds only an export of `save_encoder`."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"`path` must be a folder. Received: path={str(path)!r}, a file. Choose another path.")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if not names:
        return
    reason = None
    if names - _ENTRIES or "saved_model.pb" not in names:
        reason = f"which holds {min(names - _ENTRIES or names)!r}"
    elif "README.md" not in names or not is_unchanged_card((path / "README.md").read_bytes()):
        reason = "whose README.md is missing, changed, or not from save_encoder"
    if reason:
        raise ValueError(
            "`path` must be a new or empty folder, or hold only an earlier export, so that no other file is lost. "
            f"Received: path={str(path)!r}, {reason}. Choose another path, or move these files away."
        )


@contextlib.contextmanager
def whole_folder(path):
    """Yields a new folder to write to. It replaces `path` if the block ends without an error."""
    path = pathlib.Path(os.path.realpath(path))
    with _scratch(path) as scratch:
        new = scratch / "new"
        new.mkdir()
        yield new
        if path.exists() and any(path.iterdir()) and scratch.parent != path:
            os.rename(path, scratch / "old")
        try:
            os.rename(new, path)
        except OSError:
            if (scratch / "old").exists():
                os.rename(scratch / "old", path)
                raise
            # An empty folder that cannot be replaced, such as a mount point.
            for entry in new.iterdir():
                shutil.move(entry, path / entry.name)


@contextlib.contextmanager
def whole_file(path):
    """Yields the path of a new file to write. It replaces `path` if the block ends without an error.

    Unlike the file of `whole_files.replacing`, it has the suffix of `path`, which some writers depend on.
    """
    if path.is_dir():
        raise ValueError(f"`path` must be a file. Received: path={str(path)!r}, a folder. Add a file name to it.")
    path = pathlib.Path(os.path.realpath(path))
    with _scratch(path) as scratch:
        yield scratch / path.name
        os.replace(scratch / path.name, path)


@contextlib.contextmanager
def _scratch(path):
    """Yields a hidden folder next to `path`, on the same file system, or inside it if its parent is not writable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch = tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent)
        except OSError:
            if not path.is_dir() or any(path.iterdir()):
                raise
            scratch = tempfile.mkdtemp(prefix=".unfinished-", dir=path)
    except OSError as error:
        raise ValueError(f"`path` must be writable. Received: {error}. Choose another path.") from error
    try:
        yield pathlib.Path(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
