"""Collections of images of one size: in memory, or read from disk as they are needed."""

import concurrent.futures
import functools
import os

import keras
import numpy as np
import tensorflow as tf

from keras_barlow.data import crops
from keras_barlow.data.decoding import unreadable
from keras_barlow.data.order import Batches, shuffled

# Where it pays to say how far the reading is.
_SHOW_PROGRESS_FROM = 20_000
_READ_ROWS = 256
_TINY_BYTES = 16_384


class Images:
    """Images with their labels, if they have any. Made by `data.load`, or from arrays by `ArrayImages`.

    Attributes:
        image_size: Side of the images, in pixels.
        labels: int64 array `(n,)`; or `(n, classes)` for images with several labels: 1 where the image has the label,
            0 where not, -1 where it does not count; or None.
        class_names: Tuple of strings, or None.

    `len(images)` is the number of images.
    """

    image_size = None
    labels = None
    class_names = None

    def batches(self, batch_size, seed=0):
        """Shuffled batches for `BarlowTwins.fit`: all images in another order every epoch.

        Args:
            batch_size: Images per batch, over all replicas.
            seed: Integer: of the orders.

        Returns:
            `Batches` of uint8 tensors `(batch_size, image_size, image_size, 3)`.

        Raises:
            ValueError: If there are fewer images than one batch holds.

        Example:

        >>> images = ArrayImages(np.zeros((10, 4, 4, 3), "uint8"))
        >>> len(images.batches(batch_size=4))
        2
        """
        self._check_batch(batch_size)

        def read(described):
            return self._in_turn(described.map(lambda step, start, rows: rows))

        return Batches(batch_size, len(self) // batch_size, seed, functools.partial(self._shuffled, seed), read)

    def crop_pairs(self, batch_size, crop, seed=0):
        """Shuffled batches of two random crops of each picture as it is on disk, for views that do not crop.

        A picture is decoded once, and cropped from all of its pixels, where `batches` has its centre in `image_size`.
        The rest of the policy runs in the model: `views.barlow_twins(size, without="crop")`.

        Args:
            batch_size: Images per batch, over all replicas.
            crop: `augmentations.RandomResizedCrop`, or a pair of them for the two views.
            seed: Integer: of the orders and of the boxes. Every step has its own.

        Returns:
            `Batches` of `((crop_a, crop_b),)`, uint8 tensors `(batch_size, height, width, 3)`.

        Raises:
            ValueError: If there are fewer images than one batch holds, or the images are in memory, where their other
                pixels are gone.

        Example:

        >>> import os, tempfile, keras_barlow as kb
        >>> from PIL import Image
        >>> folder = tempfile.mkdtemp()
        >>> for name in range(4):
        ...     Image.new("RGB", (90, 60)).save(os.path.join(folder, f"{name}.jpg"))
        >>> train, _ = kb.data.load(folder, image_size=32, memory_limit=0)
        >>> batches = train.crop_pairs(batch_size=2, crop=kb.augmentations.RandomResizedCrop(32, 32))
        >>> [crops.shape for crops in next(iter(batches.epoch(0)))[0]]
        [TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32, 3])]
        """
        self._check_batch(batch_size)
        pair = crops.checked_crops(crop)
        describe, load = self._encoded()

        def read(described):
            dataset = crops.crop_pairs(described, describe, load, batch_size, self.decoder, pair, seed)
            options = tf.data.Options()
            # Every core has a picture of its own; operations that share the cores as well are in each other's way.
            options.threading.max_intra_op_parallelism = 1
            return untuned(dataset.with_options(options))

        return Batches(batch_size, len(self) // batch_size, seed, functools.partial(self._shuffled, seed), read)

    def labelled(self, batch_size, seed=0, crop=None):
        """Shuffled batches with their labels, epoch after epoch without an end, for training with labels.

        Args:
            batch_size: Images per batch; the last of each epoch is as small as it comes.
            seed: Integer: of the orders.
            crop: Side of the centre to cut out, in pixels; None for the whole image.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`: uint8 `(batch_size, size, size, 3)` and int64 `(batch_size,)`.

        Raises:
            ValueError: If there are no labels.

        Example:

        >>> images = ArrayImages(np.zeros((5, 4, 4, 3), "uint8"), labels=np.arange(5))
        >>> [len(labels) for _, labels in images.labelled(batch_size=2).take(4)]
        [2, 2, 1, 2]
        """
        if self.labels is None:
            raise ValueError("Labels are needed. Received: images without labels.")
        epochs = tf.data.Dataset.range(2**31)
        rows = epochs.flat_map(lambda epoch: shuffled(len(self), seed, epoch).batch(batch_size))
        labels = tf.constant(self.labels, "int64")
        images = self._cropped(self._in_turn(rows), crop)
        return tf.data.Dataset.zip(images, rows.map(lambda numbers: tf.gather(labels, numbers)))

    def in_order(self, batch_size=256, crop=None):
        """All images once, in the order of `labels`, the last batch as small as it comes.

        Args:
            batch_size: Images per batch.
            crop: Side of the centre to cut out, in pixels; None for the whole image.

        Returns:
            A `tf.data.Dataset` of uint8 tensors `(batch_size, size, size, 3)`.
        """
        return self._cropped(self._in_turn(tf.data.Dataset.range(len(self)).batch(batch_size)), crop)

    def sample(self, count):
        """Some images, evenly over the collection.

        Args:
            count: Number of images; all of them if there are no more.

        Returns:
            The pair `(images, rows)`: a uint8 array `(count, image_size, image_size, 3)`, and their int64 row numbers.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype("int64"))
        return self.read(rows), rows

    def read(self, rows):
        """The images of some rows.

        Args:
            rows: Integer array `(m,)`, in any order.

        Returns:
            uint8 array `(m, image_size, image_size, 3)`.
        """
        raise NotImplementedError

    def _check_batch(self, batch_size):
        if batch_size > len(self):
            raise ValueError(
                f"A batch must not be larger than the collection, {len(self)} images. Received: "
                f"batch_size={batch_size}. Use a smaller one (--batch_size)."
            )

    def _shuffled(self, seed, epoch):
        """What describes each image, in the order of an epoch (a tensor)."""
        return shuffled(len(self), seed, epoch)

    def _encoded(self):
        """The functions `describe` and `load` of `crops.crop_pairs`."""
        raise NotImplementedError

    def _in_turn(self, batches):
        """The images of batches of row numbers."""
        # One batch at a time, by as many threads as serve it, and two batches ahead: no more memory than that.
        return untuned(batches.map(self._read_tensor).prefetch(2))

    def _cropped(self, batches, crop):
        """The centres of batches of images."""
        if crop is None or crop == self.image_size:
            return batches
        start = (self.image_size - crop) // 2
        return batches.map(lambda images: images[:, start : start + crop, start : start + crop])

    def _read_tensor(self, rows):
        images = tf.numpy_function(self.read, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (rows.shape[0], self.image_size, self.image_size, 3))


class ArrayImages(Images):
    """Images in memory.

    Args:
        array: uint8 array `(n, size, size, 3)`.
        labels: int64 array `(n,)` or `(n, classes)`, or None.
        class_names: Tuple of strings, or None.

    Example:

    >>> images = ArrayImages(np.zeros((3, 4, 4, 3), "uint8"), labels=np.array([0, 1, 1]))
    >>> len(images), images.sample(2)[1].tolist()
    (3, [0, 2])
    """

    def __init__(self, array, labels=None, class_names=None):
        self.array = array
        self.labels = labels
        self.class_names = class_names
        self.image_size = array.shape[1]

    def __len__(self):
        return len(self.array)

    def take(self, rows):
        """The images of some rows, as `ArrayImages`."""
        return ArrayImages(self.array[rows], None if self.labels is None else self.labels[rows], self.class_names)

    def read(self, rows):
        return self.array[rows]

    def _encoded(self):
        raise ValueError(
            "Crops are cut from files as they are. Received: images in memory, of which only the centre is left, in "
            f"{self.image_size} pixels. Use data.load(..., memory_limit=0), or let the model's views crop."
        )


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
        taken = FileImages.__new__(FileImages)
        taken.__dict__.update(self.__dict__)
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


def untuned(dataset):
    """The dataset without tf.data's automatic tuning: there is nothing to tune, and its thread makes each iteration
    wait for the end of the one before, 4 seconds an epoch of 10 on two cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@functools.cache
def _threads():
    """PIL lets other threads run while it decodes and resizes."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())
