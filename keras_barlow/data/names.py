"""Names of files and folders: paths from users, entries of archives, names in messages."""

import os
import pathlib
import re
import unicodedata

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Files and folders that operating systems create next to the user's own.
_SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")


def user_path(path):
    """Converts a path from the user: expands `~`, and decodes bytes as the file system does.

    Args:
        path: String, bytes or path object.

    Returns:
        A `pathlib.Path`.

    Raises:
        ValueError: If `path` is empty or not a path, or the home directory does not exist.

    Example:

    >>> user_path(b"photos").name
    'photos'
    """
    try:
        text = os.fsdecode(path)
        # pathlib takes an empty string for the current folder.
        if not text or "\0" in text:
            raise ValueError("a path has at least one character and no null bytes")
        return pathlib.Path(text).expanduser()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"There must be a path to the images. Received: {path!r} ({error}). Pass a string or a path object."
        ) from error


def printable(name):
    """Makes a file name valid UTF-8, so that it can be printed or stored in a tensor or JSON.

    Args:
        name: String from the file system, in which bytes that are not UTF-8 are surrogates.

    Returns:
        A string in which these bytes are escaped.

    Example:

    >>> print(printable(os.fsdecode(b"caf\\xe9.jpg")))
    caf\\xe9.jpg
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def entry_parts(name):
    r"""Splits and normalizes the name of an entry in an archive.

    Tools write names differently: Windows uses backslashes, bsdtar adds `./`, macOS decomposes accents.

    Args:
        name: Name of the entry as stored in the archive.

    Returns:
        Tuple of the folders and the file name; empty for an entry without a name.

    Raises:
        ValueError: If the name points outside the archive.

    Example:

    >>> entry_parts("./train\\cat//1.png")
    ('train', 'cat', '1.png')
    """
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise ValueError(name)
    return parts


def class_name(folder):
    """The class name of a folder, with accents composed, because macOS decomposes them in file names.

    Args:
        folder: Name of the folder.

    Returns:
        A string in Unicode form NFC.

    Example:

    >>> class_name("cafe\u0301") == class_name("caf\u00e9")
    True
    """
    return unicodedata.normalize("NFC", folder)


def is_image(name):
    """Whether a file name has the suffix of a supported image format."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(part):
    """Whether a file or folder is hidden or created by the operating system, as macOS does in archives."""
    return part.startswith(".") or part.lower() in _SYSTEM_NAMES


class LeftOut:
    """Counts skipped files by reason and keeps their first names, for a single message at the end.

    Example:

    >>> left_out = LeftOut()
    >>> for number in range(4):
    ...     left_out.add("of another format (.heic)", f"cat/{number}.heic")
    >>> print(left_out)
    4 of another format (.heic): cat/0.heic, cat/1.heic, cat/2.heic, ...
    """

    _NAMES, _REASONS = 3, 8

    def __init__(self):
        self._reasons = {}

    def add(self, reason, name):
        """Adds a name.

        Args:
            reason: Why it is skipped, as the message says it.
            name: Name of the file, folder or array.
        """
        names = self._reasons.setdefault(reason, [0, []])
        names[0] += 1
        if len(names[1]) < self._NAMES:
            names[1].append(printable(name))

    def extend(self, reason, names):
        """Adds several names.

        Args:
            reason: Why they are skipped, as the message says it.
            names: Iterable of names.
        """
        for name in names:
            self.add(reason, name)

    def update(self, other):
        """Adds the reasons and names of another `LeftOut`.

        Args:
            other: `LeftOut`.
        """
        self._reasons.update(other._reasons)

    def __bool__(self):
        return bool(self._reasons)

    def __str__(self):
        # The reasons with the most names, in the order in which they were added.
        reasons = sorted(self._reasons, key=lambda reason: -self._reasons[reason][0])
        top_reasons = [reason for reason in self._reasons if reason in reasons[: self._REASONS]]
        text = []
        for reason in top_reasons:
            count, names = self._reasons[reason]
            text.append(f"{count} {reason}: {', '.join(names)}{', ...' if count > len(names) else ''}")
        others = sum(self._reasons[reason][0] for reason in reasons[self._REASONS :])
        return "; ".join(text + [f"{others} others"] * bool(others))
