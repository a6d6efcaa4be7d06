"""Image files in a folder, or in a zip archive that is read in place."""

import heapq
import io
import os
import stat
import threading
import zipfile

import tensorflow as tf

from keras_barlow.data.names import IMAGE_SUFFIXES, LeftOut, entry_parts, is_hidden, is_image, printable, user_path

# PIL would refuse to decode a larger file, but only after it has been read into memory.
_LARGEST_FILE = 2**30
_NOT_REGULAR = "broken links, or not regular files"
_LINKED_TWICE = "linked folders that are read under another name"


class Folder:
    """The image files in a folder and its subfolders. Links are followed, but every folder is read only once.

    Args:
        path: Path of the folder; `~` is the user's home directory.

    Attributes:
        names: Sorted paths of the image files, relative to the folder, with `/` as separator.
        folders: Paths of all subfolders, relative to the folder.
        left_out: `LeftOut`, the files that are skipped.

    Raises:
        ValueError: If the folder does not exist, a subfolder cannot be listed, or there is no image file.
    """

    def __init__(self, path):
        self.path = user_path(path)
        if not self.path.is_dir():
            raise ValueError(
                f"The images must be in a folder. Received: {printable(path)}, no such folder. Check the path."
            )
        self.left_out = LeftOut()
        files, self.folders = _walk(str(self.path), self.left_out)
        self.names = _image_names(files, self.left_out, path)

    def read(self, name):
        """Reads a file.

        Args:
            name: One of `names`.

        Returns:
            The contents of the file, as bytes.
        """
        with (self.path / name).open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size)
            return file.read()

    def open(self, name):
        """Opens a file.

        Args:
            name: One of `names`.

        Returns:
            The pair `(file, key)`: a binary file object, and the key of the file for `load`, as bytes.
        """
        path = self.path / name
        _check_size(path.stat().st_size)
        return path.open("rb"), os.fsencode(path)

    def load(self, key):
        """Reads a file in a graph.

        Args:
            key: String tensor, the key that `open` returned.

        Returns:
            String tensor with the contents of the file.
        """
        return tf.io.read_file(key)


class Archive:
    """The image files in a zip archive, which is never unpacked to disk.

    Args:
        path: Path of the archive; `~` is the user's home directory.

    Attributes:
        names: Sorted names of the image files, normalized as in `names.entry_parts`.
        folders: Names of all folders in the archive.
        left_out: `LeftOut`, the entries that are skipped.

    Raises:
        ValueError: If the file is not a readable zip archive, has no image file, is encrypted, or has an entry that
            points outside the archive or two entries of the same name.
    """

    def __init__(self, path):
        self.path = user_path(path)
        self.left_out = LeftOut()
        self._local = threading.local()
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        # Damaged archives raise many kinds of errors.
        except Exception as error:
            raise ValueError(
                f"The archive must be a readable .zip file. Received: {printable(path)} ({error}). Create it again."
            ) from error
        files, folders = {}, set()
        for entry in entries:
            parts = _parts(entry, path)
            is_folder = entry.orig_filename.endswith(("/", "\\"))
            if any(map(is_hidden, parts)):
                continue
            folders.update("/".join(parts[:depth]) for depth in range(1, len(parts) + is_folder))
            if is_folder and parts:
                continue
            if not parts or stat.S_ISLNK(entry.external_attr >> 16):
                self.left_out.add("entries that are links, or have no name", entry.orig_filename)
                continue
            name = "/".join(parts)
            if name in files and is_image(name):
                raise ValueError(
                    "Every image of an archive must have its own name. Received: "
                    f"{files[name].orig_filename!r} and {entry.orig_filename!r} in {printable(path)}, which are the "
                    "same name. Create the archive again."
                )
            files[name] = entry
        self.folders = sorted(folders)
        self.names = _image_names(files, self.left_out, path)
        self._entries = {name: files[name] for name in self.names}
        if any(entry.flag_bits & 1 for entry in self._entries.values()):
            raise ValueError(
                f"The archive must not be encrypted. Received: {printable(path)}. Create it without a password."
            )

    def read(self, name):
        """Reads an entry.

        Args:
            name: One of `names`.

        Returns:
            The contents of the entry, as bytes.
        """
        # One open archive per thread, because a shared one takes a lock for every read.
        if not hasattr(self._local, "archive"):
            self._local.archive = zipfile.ZipFile(self.path)
        entry = self._entries[name]
        _check_size(entry.file_size)
        return self._local.archive.read(entry)

    def open(self, name):
        """Opens an entry.

        Args:
            name: One of `names`.

        Returns:
            The pair `(file, key)`: a binary file object, and the key of the entry for `load`: its unpacked contents.
        """
        content = self.read(name)
        return io.BytesIO(content), content

    def load(self, key):
        """Returns the contents of an entry in a graph.

        Args:
            key: String tensor, the key that `open` returned.

        Returns:
            String tensor with the contents of the entry.
        """
        return key


def _parts(entry, path):
    try:
        return entry_parts(entry.orig_filename)
    except ValueError as error:
        raise ValueError(
            f"No entry of an archive may point outside it. Received: {entry.orig_filename!r} in {printable(path)}. "
            "Do not use this archive, or create it again."
        ) from error


def _walk(root, left_out):
    """Names of all files and of all folders below a folder.

    `os.scandir` gets the kinds of entries without a system call for each. Links to folders are followed last, and each
    folder is read under one name only, so cyclic links and links to parents end the walk there.
    """
    files, folders, links = [], [], []
    pending, visited = [""], None
    while pending or links:
        if not pending:
            if visited is None:
                visited = {_identity(os.path.join(root, folder)) for folder in folders}
                visited.update(map(_identity, _with_parents(root)))
            pending.append(heapq.heappop(links))
        folder = pending.pop()
        if visited is not None:
            identity = _identity(os.path.join(root, folder))
            if identity in visited:
                left_out.add(_LINKED_TWICE, folder)
                continue
            visited.add(identity)
        if folder:
            folders.append(folder)
        for name, kind in _entries(root, folder):
            if kind == "file":
                files.append(name)
            elif kind == "folder":
                pending.append(name)
            elif kind == "link":
                heapq.heappush(links, name)
            else:
                left_out.add(_NOT_REGULAR, name)
    return files, folders


def _entries(root, folder):
    """Names and kinds of the entries of a folder, without hidden and system files."""
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            return sorted(
                (f"{folder}/{entry.name}" if folder else entry.name, _kind(entry))
                for entry in entries
                if not is_hidden(entry.name)
            )
    except OSError as error:
        raise ValueError(
            f"Every folder must be readable. Received: {printable(os.path.join(root, folder))} "
            f"({type(error).__name__}: {error.strerror}). Run chmod u+rx on it, or move it elsewhere."
        ) from error


def _kind(entry):
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
        return "file" if entry.is_file() else "other"
    # Cyclic links.
    except OSError:
        return "other"


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _with_parents(path):
    path = os.path.realpath(path)
    while path != os.path.dirname(path):
        yield path
        path = os.path.dirname(path)
    yield path


def _check_size(size):
    if size > _LARGEST_FILE:
        raise ValueError(f"it has {size / 2**30:.1f} GiB; the limit is {_LARGEST_FILE / 2**30:.0f} GiB")


def _image_names(names, left_out, path):
    images = []
    for name in sorted(names):
        if is_image(name):
            images.append(name)
        else:
            suffix = os.path.splitext(name)[1].lower()
            left_out.add(f"of another format ({suffix or 'no suffix'})", name)
    if not images:
        details = f", but {left_out}" if left_out else ""
        raise ValueError(
            f"There must be image files ({', '.join(IMAGE_SUFFIXES)}). Received: {printable(path)}, which has none"
            f"{details}. Convert the images to one of these formats, or check the path."
        )
    return images
