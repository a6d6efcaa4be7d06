"""Files and folders of an export: they appear whole or not at all, and replace nothing but an earlier export."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from keras_barlow.export.card import is_unchanged_card

_ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "README.md"}


def local_path(path):
    """The path with `~` expanded.

    Args:
        path: String or path.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If it is the address of remote storage, or has a name that TensorFlow cannot write.
    """
    path = os.fspath(path)
    if "://" in str(path):
        raise ValueError(f"`path` must be on this machine. Received: path={path!r}. Write it here and copy it there.")
    path = pathlib.Path(os.path.expanduser(os.fsdecode(path)))
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"`path` must be a name in UTF-8. Received: path={str(path)!r}. Rename the folder.") from None
    return path


def check_folder(path):
    """Raises ValueError unless the folder is new, empty or holds an export of `save_encoder` and nothing else."""
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
            "`path` must be a new or empty folder, or hold an earlier export and nothing else, so that no other file "
            f"is lost. Received: path={str(path)!r}, {reason}. Choose another path, or move these files away."
        )


@contextlib.contextmanager
def whole_folder(path):
    """Gives a new folder to write into, which takes the place of `path` when the block ends without an error."""
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
            # An empty folder that cannot be replaced, such as a mounted one.
            for entry in new.iterdir():
                shutil.move(entry, path / entry.name)


@contextlib.contextmanager
def whole_file(path):
    """Gives the path of a new file to write, which takes the place of `path` when the block ends without an error."""
    if path.is_dir():
        raise ValueError(f"`path` must be a file. Received: path={str(path)!r}, a folder. Add a file name to it.")
    path = pathlib.Path(os.path.realpath(path))
    with _scratch(path) as scratch:
        yield scratch / path.name
        os.replace(scratch / path.name, path)


@contextlib.contextmanager
def _scratch(path):
    """A hidden folder beside `path`, so that a rename is enough; inside it where that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch = tempfile.mkdtemp(prefix=".unfinished-", dir=path.parent)
        except OSError:
            if not path.is_dir() or any(path.iterdir()):
                raise
            scratch = tempfile.mkdtemp(prefix=".unfinished-", dir=path)
    except OSError as error:
        raise ValueError(f"`path` must be a place that can be written. Received: {error}.") from error
    try:
        yield pathlib.Path(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
