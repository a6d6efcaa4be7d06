"""Names of files and folders: paths that users type, names in archives, names in messages."""

import os
import pathlib
import re
import unicodedata

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# What systems put beside people's files.
_SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")


def user_path(path):
    """The path that a user means: `~` is their home, and bytes are a name as the file system has it.

    Args:
        path: String, bytes or path object.

    Returns:
        `pathlib.Path`.

    Raises:
        ValueError: If there is no path, or no such home.

    Example:

    >>> user_path(b"photos").name
    'photos'
    """
    try:
        text = os.fsdecode(path)
        # An empty text would be the current folder.
        if not text or "\0" in text:
            raise ValueError("a path has at least one character, and no zero bytes")
        return pathlib.Path(text).expanduser()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"There must be a path to the images. Received: {path!r} ({error}).") from error


def printable(name):
    """A name that can be printed, and put into a tensor or JSON, whatever its bytes are.

    Args:
        name: String, where bytes that are no UTF-8 are surrogates, as `os.listdir` has them.

    Returns:
        String with such bytes as escapes.

    Example:

    >>> print(printable(os.fsdecode(b"caf\\xe9.jpg")))
    caf\\xe9.jpg
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def entry_parts(name):
    r"""The folders and the name of an entry in an archive: one form for every way in which tools write them.

    Windows separates with backslashes, bsdtar begins with `./`, macOS takes accents apart.

    Args:
        name: Name as the archive has it.

    Returns:
        Tuple of strings, empty for an entry without a name.

    Raises:
        ValueError: If the name points outside of the archive.

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
    """The class of images in a folder, the same whether its accents are apart (macOS) or not.

    Args:
        folder: Name of the folder.

    Returns:
        String.

    Example:

    >>> class_name("cafe\u0301") == class_name("caf\u00e9")
    True
    """
    return unicodedata.normalize("NFC", folder)


def is_image(name):
    """Whether a file has the ending of an image format that is read."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(part):
    """Whether a file or folder is one that systems hide or leave behind, as macOS does in archives."""
    return part.startswith(".") or part.lower() in _SYSTEM_NAMES


class LeftOut:
    """Counts what is not read, by reason, with the first names of each: told once, when all of it is known.

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
        """Counts one more name."""
        names = self._reasons.setdefault(reason, [0, []])
        names[0] += 1
        if len(names[1]) < self._NAMES:
            names[1].append(printable(name))

    def extend(self, reason, names):
        """Counts more names."""
        for name in names:
            self.add(reason, name)

    def update(self, other):
        """Takes over what another one counted."""
        self._reasons.update(other._reasons)

    def __bool__(self):
        return bool(self._reasons)

    def __str__(self):
        # The reasons with the most names, in the order in which they were found.
        reasons = sorted(self._reasons, key=lambda reason: -self._reasons[reason][0])
        shown = [reason for reason in self._reasons if reason in reasons[: self._REASONS]]
        text = []
        for reason in shown:
            count, names = self._reasons[reason]
            text.append(f"{count} {reason}: {', '.join(names)}{', ...' if count > len(names) else ''}")
        others = sum(self._reasons[reason][0] for reason in reasons[self._REASONS :])
        return "; ".join(text + [f"{others} others"] * bool(others))
