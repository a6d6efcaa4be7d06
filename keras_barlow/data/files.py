"""Image files in a folder, or in a zip archive that stays packed."""

import io
import os
import pathlib
import threading
import zipfile

import tensorflow as tf

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Folder:
    """The image files under a folder.

    Args:
        path: The folder.

    Attributes:
        names: Sorted paths of the image files, relative to the folder, with `/` between parts.

    Raises:
        ValueError: If the folder is not there or holds no image file.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        if not self.path.is_dir():
            raise ValueError(f"The images must be in a folder. Received: {path}, no such folder.")
        self.names = _image_names(_walk(str(self.path)), path)

    def read(self, name):
        """The bytes of a file, by its name."""
        return (self.path / name).read_bytes()

    def open(self, name):
        """The file as a binary file object, and what `load` takes for it."""
        path = self.path / name
        return path.open("rb"), str(path)

    def load(self, key):
        """The bytes of a file as a tensor, by what `open` gave for it."""
        return tf.io.read_file(key)


class Archive:
    """The image files of a zip archive, read in place: nothing is unpacked to disk.

    Args:
        path: The archive.

    Attributes:
        names: As of `Folder`.

    Raises:
        ValueError: If the file is no readable zip archive, holds no image file, or has an entry that points
            outside of it.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._local = threading.local()
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"The archive must be a readable .zip file. Received: {path} ({error}).") from error
        for entry in entries:
            parts = pathlib.PurePosixPath(entry.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                raise ValueError(
                    f"No entry of an archive may point outside of it. Received: {entry.filename!r} in {path}. "
                    "Do not use this archive, or pack it anew."
                )
            if entry.flag_bits & 1:
                raise ValueError(f"The archive must not be encrypted. Received: {path}. Pack it without a password.")
        self.names = _image_names((entry.filename for entry in entries), path)

    def read(self, name):
        """The bytes of an entry, by its name."""
        # One open archive for each thread: a shared one takes a lock for every read.
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self.path)
        return self._local.archive.read(name)

    def open(self, name):
        """The entry as a binary file object, and what `load` takes for it: its bytes, unpacked once."""
        content = self.read(name)
        return io.BytesIO(content), content

    def load(self, key):
        """The bytes of an entry as a tensor, by what `open` gave for it."""
        return key


def _walk(root):
    """Names of all files below a folder. `os.scandir` asks for no more than the directory holds."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    pending.append(name)
                else:
                    yield name


def _image_names(names, path):
    # macOS leaves "._photo.jpg" files and "__MACOSX" folders in archives, which are no pictures.
    images = sorted(
        name
        for name in names
        if name.lower().endswith(SUFFIXES) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    )
    if not images:
        raise ValueError(f"There must be image files ({', '.join(SUFFIXES)}). Received: {path}, which holds none.")
    return images
