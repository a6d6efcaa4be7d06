"""Image files that are read from disk as they are needed."""

import concurrent.futures
import copy
import functools
import os

import keras
import numpy as np

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.collection import Images, untuned
from keras_barlow.data.decoding import unreadable

__all__ = ["ArrayImages", "FileImages", "Images", "untuned"]

# Where it pays to say how far the reading is.
_SHOW_PROGRESS_FROM = 20_000
_READ_ROWS = 256
_TINY_BYTES = 16_384


class FileImages(Images):
    """Images that are read from their files whenever they are needed.

    Args:
        files: `Folder` or `Archive`.
        split: `Split` of its names.
        decoder: `Decoder`.
    """

    def __init__(self, files, split, decoder):
        self.files = files
        self.names = split.names
        self.labels = split.labels
        self.class_names = split.class_names
        self.decoder = decoder
        self.image_size = decoder.image_size

    def __len__(self):
        return len(self.names)

    def take(self, rows):
        """The images of some rows, as `FileImages`."""
        taken = copy.copy(self)
        taken.names = [self.names[row] for row in rows]
        taken.labels = None if self.labels is None else self.labels[rows]
        return taken

    def readable(self):
        """Reads every file once and keeps the readable ones.

        Returns:
            The pair `(images, errors)`: `FileImages`, and the messages about the files left out.
        """
        errors = {}

        def readable(row):
            try:
                self._decoded(row, self._content(row))
            except ValueError as error:
                errors[row] = str(error)

        for rows in self._progress("Checking"):
            list(_threads().map(readable, rows))
        kept = [row for row in range(len(self)) if row not in errors]
        return self.take(np.array(kept, "int64")), [errors[row] for row in sorted(errors)]

    def in_memory(self):
        """The same images, read now, as `ArrayImages`."""
        array = np.empty((len(self), self.image_size, self.image_size, 3), "uint8")
        for rows in self._progress("Reading"):
            array[rows] = self.read(rows)
        return ArrayImages(array, self.labels, self.class_names)

    def read(self, rows):
        contents = [self._content(row) for row in rows]
        # Tiny pictures are decoded faster by one thread than by several that wait for the interpreter's lock.
        many = map if sum(map(len, contents)) < _TINY_BYTES * len(contents) else _threads().map
        return np.stack(list(many(self._decoded, rows, contents)))

    def _encoded(self):
        def describe(row):
            name = self.names[row]
            try:
                file, key = self.files.open(name)
            # An archive raises what its compression raises.
            except Exception as error:
                raise unreadable(name, error) from error
            return file, name, key

        return describe, self.files.load

    def _content(self, row):
        try:
            return self.files.read(self.names[row])
        # An archive raises what its compression raises.
        except Exception as error:
            raise unreadable(self.names[row], error) from error

    def _decoded(self, row, content):
        return self.decoder.decode(content, self.names[row])

    def _progress(self, verb):
        """All rows in portions, with a progress bar where there are many."""
        shown = len(self) >= _SHOW_PROGRESS_FROM
        if shown:
            print(f"{verb} {len(self)} images", flush=True)
        bar = keras.utils.Progbar(len(self), unit_name="image", verbose=int(shown))
        for start in range(0, len(self), _READ_ROWS):
            rows = np.arange(start, min(start + _READ_ROWS, len(self)))
            yield rows
            bar.update(int(rows[-1]) + 1)


@functools.cache
def _threads():
    """PIL lets other threads run while it decodes and resizes."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())
