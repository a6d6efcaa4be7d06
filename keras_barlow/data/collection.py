"""The interface of every collection of images of one size: shuffled batches, crops, rows."""

import functools
import warnings

import numpy as np
import tensorflow as tf

from keras_barlow.data import crops
from keras_barlow.data.center_crop import center_cropped
from keras_barlow.data.order import Batches, shuffled


class Images:
    """Images with their labels, if they have any. Made by `data.load`, or from arrays by `ArrayImages`.

    Attributes:
        image_size: Side of the images, in pixels; the short one, if they are not square.
        image_shape: Tuple `(height, width, channels)`.
        dtype: `"uint8"` or `"float32"`, on 0..255 either way.
        labels: int64 array `(n,)`; or `(n, classes)` for images with several labels: 1 where the image has the label,
            0 where not, -1 where it does not count; or None.
        class_names: Tuple of strings, or None.

    `len(images)` is the number of images.
    """

    image_size = None
    dtype = "uint8"
    labels = None
    class_names = None

    @property
    def image_shape(self):
        """Height, width and channels."""
        return self.image_size, self.image_size, 3

    def batches(self, batch_size, seed=0):
        """Shuffled batches for `BarlowTwins.fit`: all images in another order every epoch.

        Args:
            batch_size: Images per batch, over all replicas.
            seed: Integer that determines the orders.

        Returns:
            `Batches` of tensors `(batch_size, height, width, channels)`, of `dtype`.

        Raises:
            ValueError: If there are fewer images than one batch holds.

        Example:

        >>> import keras_barlow as kb
        >>> images = kb.data.ArrayImages(np.zeros((10, 4, 4, 3), "uint8"))
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
            seed: Integer that determines the orders and the boxes. Every step has its own boxes.

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
            # One picture per core is fastest; operations that also share the cores slow each other down.
            options.threading.max_intra_op_parallelism = 1
            return untuned(dataset.with_options(options))

        return Batches(batch_size, len(self) // batch_size, seed, functools.partial(self._shuffled, seed), read)

    def labeled(self, batch_size, seed=0, crop=None):
        """Shuffled batches with their labels, epoch after epoch without an end, for training with labels.

        Args:
            batch_size: Images per batch; the last of each epoch is as small as it comes.
            seed: Integer that determines the orders.
            crop: Side of the centre to cut out, in pixels; None for the whole image.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`: `(batch_size, size, size, channels)` and int64
            `(batch_size,)`.

        Raises:
            ValueError: If there are no labels.

        Example:

        >>> import keras_barlow as kb
        >>> images = kb.data.ArrayImages(np.zeros((5, 4, 4, 3), "uint8"), labels=np.arange(5))
        >>> [len(labels) for _, labels in images.labeled(batch_size=2).take(4)]
        [2, 2, 1, 2]
        """
        if self.labels is None:
            raise ValueError("Labels are needed. Received: images without labels.")
        epochs = tf.data.Dataset.range(2**31)
        rows = epochs.flat_map(lambda epoch: shuffled(len(self), seed, epoch).batch(batch_size))
        labels = tf.constant(self.labels, "int64")
        images = center_cropped(self._in_turn(rows), self.image_shape, crop)
        return tf.data.Dataset.zip(images, rows.map(lambda numbers: tf.gather(labels, numbers)))

    def labelled(self, batch_size, seed=0, crop=None):
        """Deprecated spelling of `labeled`."""
        message = "Images.labelled is now Images.labeled. The old name will be removed in 0.3."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.labeled(batch_size, seed, crop)

    def in_order(self, batch_size=256, crop=None):
        """All images once, in the order of `labels`, the last batch as small as it comes.

        Args:
            batch_size: Images per batch.
            crop: Side of the centre to cut out, in pixels; None for the whole image.

        Returns:
            A `tf.data.Dataset` of tensors `(batch_size, size, size, channels)`, of `dtype`.

        Raises:
            ValueError: If the crop is larger than the images.
        """
        rows = tf.data.Dataset.range(len(self)).batch(batch_size)
        return center_cropped(self._in_turn(rows), self.image_shape, crop)

    def sample(self, count):
        """Some images, evenly over the collection.

        Args:
            count: Number of images; all of them if there are no more.

        Returns:
            The pair `(images, rows)`: an array `(count, height, width, channels)`, and their int64 row numbers.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype("int64"))
        return self.read(rows), rows

    def read(self, rows):
        """The images of some rows.

        Args:
            rows: Integer array `(m,)`, in any order.

        Returns:
            Array `(m, height, width, channels)`.
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

    def _read_tensor(self, rows):
        images = tf.numpy_function(self.read, [rows], tf.as_dtype(self.dtype), stateful=False)
        return tf.ensure_shape(images, (rows.shape[0], *self.image_shape))


def untuned(dataset):
    """The dataset without tf.data's automatic tuning: there is nothing to tune, and its thread makes each iteration
    wait for the end of the one before, 4 seconds an epoch of 10 on two cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
