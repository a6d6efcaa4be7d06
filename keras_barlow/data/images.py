"""Image files that are read from disk on demand."""

import concurrent.futures
import copy
import functools
import os

import keras
import numpy as np

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.collection import Images, without_autotune
from keras_barlow.data.decoding import unreadable

__all__ = ["ArrayImages", "FileImages", "Images", "without_autotune"]

# Number of images from which a progress bar is shown.
_SHOW_PROGRESS_FROM = 20_000
_READ_ROWS = 256
_TINY_BYTES = 16_384


class FileImages(Images):
    """Images that are read from their files on demand.

    Args:
        files: `Folder` or `Archive` with the files.
        split: `Split` with the names and labels of the images.
        decoder: `Decoder` that turns files into squares.
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
        """Selects rows without reading them.

        Args:
            rows: Integer array `(m,)`.

        Returns:
            `FileImages` with the names and labels of these rows.
        """
        subset = copy.copy(self)
        subset.names = [self.names[row] for row in rows]
        subset.labels = None if self.labels is None else self.labels[rows]
        return subset

    def readable(self):
        """Reads every file once and keeps the readable ones.

        Returns:
            The pair `(images, errors)`: `FileImages`, and an error message for each file that is skipped.
        """
        errors = {}

        def check(row):
            try:
                self._decoded(row, self._content(row))
            except ValueError as error:
                errors[row] = str(error)

        for rows in self._progress("Checking"):
            list(_threads().map(check, rows))
        rows = [row for row in range(len(self)) if row not in errors]
        return self.take(np.array(rows, "int64")), [errors[row] for row in sorted(errors)]

    def in_memory(self):
        """Reads all images.

        Returns:
            `ArrayImages` with the same labels and class names.
        """
        array = np.empty((len(self), self.image_size, self.image_size, 3), "uint8")
        for rows in self._progress("Reading"):
            array[rows] = self.read(rows)
        return ArrayImages(array, self.labels, self.class_names)

    def read(self, rows):
        contents = [self._content(row) for row in rows]
        # One thread decodes tiny images faster than several threads that compete for the interpreter lock.
        mapper = map if sum(map(len, contents)) < _TINY_BYTES * len(contents) else _threads().map
        return np.stack(list(mapper(self._decoded, rows, contents)))

    def _encoded(self):
        def describe(row):
            name = self.names[row]
            try:
                file, key = self.files.open(name)
            # Archives raise the errors of their compression libraries.
            except Exception as error:
                raise unreadable(name, error) from error
            return file, name, key

        return describe, self.files.load

    def _content(self, row):
        try:
            return self.files.read(self.names[row])
        # Archives raise the errors of their compression libraries.
        except Exception as error:
            raise unreadable(self.names[row], error) from error

    def _decoded(self, row, content):
        return self.decoder.decode(content, self.names[row])

    def _progress(self, verb):
        """Yields all rows in blocks, with a progress bar for large datasets."""
        show = len(self) >= _SHOW_PROGRESS_FROM
        if show:
            print(f"{verb} {len(self)} images", flush=True)
        bar = keras.utils.Progbar(len(self), unit_name="image", verbose=int(show))
        for start in range(0, len(self), _READ_ROWS):
            rows = np.arange(start, min(start + _READ_ROWS, len(self)))
            yield rows
            bar.update(int(rows[-1]) + 1)


@functools.cache
def _threads():
    """The thread pool for decoding: PIL releases the interpreter lock while it decodes and resizes."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())
