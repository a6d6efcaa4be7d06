"""The interface of every image dataset: shuffled batches, crop pairs, labeled batches, rows."""

import functools
import warnings

import numpy as np
import tensorflow as tf

from keras_barlow.data import crops
from keras_barlow.data.center_crop import center_cropped
from keras_barlow.data.order import Batches, shuffled


class Images:
    """A dataset of images of one size, with optional labels.

    `data.load` reads one from disk, and `ArrayImages` wraps arrays. `len(images)` is the number of images.

    Attributes:
        image_size: Side of the images, in pixels; the shorter side if they are not square.
        image_shape: Tuple `(height, width, channels)`.
        dtype: `"uint8"` or `"float32"`, both on 0..255.
        labels: int64 array of class numbers `(n,)`; or multi-label targets `(n, classes)` with 1 for a label of the
            image, 0 for other classes and -1 for classes that are ignored; or None.
        class_names: Tuple of strings, or None.
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
        """Shuffled batches for `fit`, in a new order every epoch.

        Args:
            batch_size: Number of images per batch, over all replicas.
            seed: Integer that determines the order of the images.

        Returns:
            `Batches` of tensors `(batch_size, height, width, channels)`, of `dtype`.

        Raises:
            ValueError: If there are fewer images than `batch_size`.

        Example:

        >>> import keras_barlow as kb
        >>> images = kb.data.ArrayImages(np.zeros((10, 4, 4, 3), "uint8"))
        >>> len(images.batches(batch_size=4))
        2
        """
        self._check_batch(batch_size)

        def read(descriptions):
            return self._read_batches(descriptions.map(lambda step, start, rows: rows))

        return Batches(batch_size, len(self) // batch_size, seed, functools.partial(self._shuffled, seed), read)

    def crop_pairs(self, batch_size, crop, seed=0):
        """Shuffled batches of two random crops of each original image, for views that do not crop.

        Each file is decoded once and cropped at its full resolution, whereas `batches` returns the center, resized to
        `image_size`. The remaining transforms run in the model: `views.barlow_twins(size, without="crop")`.

        Args:
            batch_size: Number of images per batch, over all replicas.
            crop: `augmentations.RandomResizedCrop`, or a pair of them for the two views.
            seed: Integer that determines the order of the images and the crop boxes.

        Returns:
            `Batches` of `((crop_a, crop_b),)`, uint8 tensors `(batch_size, height, width, 3)`.

        Raises:
            ValueError: If there are fewer images than `batch_size`, or the images are in memory, already resized.

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

        def read(descriptions):
            dataset = crops.crop_pairs(descriptions, describe, load, batch_size, self.decoder, pair, seed)
            options = tf.data.Options()
            # One image per core is fastest; parallelism inside an operation only competes for the same cores.
            options.threading.max_intra_op_parallelism = 1
            return without_autotune(dataset.with_options(options))

        return Batches(batch_size, len(self) // batch_size, seed, functools.partial(self._shuffled, seed), read)

    def labeled(self, batch_size, seed=0, crop=None):
        """Shuffled batches with labels, repeated indefinitely, for supervised training.

        Args:
            batch_size: Number of images per batch; the last batch of an epoch may be smaller.
            seed: Integer that determines the order of the images.
            crop: Side of the center crop, in pixels; None keeps the whole image.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`: `(batch_size, size, size, channels)` and int64
            `(batch_size,)`.

        Raises:
            ValueError: If the images have no labels.

        Example:

        >>> import keras_barlow as kb
        >>> images = kb.data.ArrayImages(np.zeros((5, 4, 4, 3), "uint8"), labels=np.arange(5))
        >>> [len(labels) for _, labels in images.labeled(batch_size=2).take(4)]
        [2, 2, 1, 2]
        """
        if self.labels is None:
            raise ValueError(
                "Supervised training needs labels. Received: images without labels. Load them with their labels."
            )
        epochs = tf.data.Dataset.range(2**31)
        rows = epochs.flat_map(lambda epoch: shuffled(len(self), seed, epoch).batch(batch_size))
        labels = tf.constant(self.labels, "int64")
        images = center_cropped(self._read_batches(rows), self.image_shape, crop)
        return tf.data.Dataset.zip(images, rows.map(lambda numbers: tf.gather(labels, numbers)))

    def labelled(self, batch_size, seed=0, crop=None):
        """Deprecated spelling of `labeled`."""
        message = "Images.labelled is now Images.labeled. The old name will be removed in 0.3."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.labeled(batch_size, seed, crop)

    def in_order(self, batch_size=256, crop=None):
        """All images once, in the order of `labels`.

        Args:
            batch_size: Number of images per batch; the last batch may be smaller.
            crop: Side of the center crop, in pixels; None keeps the whole image.

        Returns:
            A `tf.data.Dataset` of tensors `(batch_size, size, size, channels)`, of `dtype`.

        Raises:
            ValueError: If the crop is larger than the images.
        """
        rows = tf.data.Dataset.range(len(self)).batch(batch_size)
        return center_cropped(self._read_batches(rows), self.image_shape, crop)

    def sample(self, count):
        """Evenly spaced images of the dataset.

        Args:
            count: Number of images; all images are returned if there are fewer.

        Returns:
            The pair `(images, rows)`: an array `(count, height, width, channels)`, and their int64 row numbers.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype("int64"))
        return self.read(rows), rows

    def read(self, rows):
        """Reads images by row number.

        Args:
            rows: Integer array `(m,)`, in any order.

        Returns:
            Array `(m, height, width, channels)`.
        """
        raise NotImplementedError

    def _check_batch(self, batch_size):
        if batch_size > len(self):
            raise ValueError(
                f"A batch must not be larger than the dataset, {len(self)} images. Received: "
                f"batch_size={batch_size}. Use a smaller batch size (--batch_size)."
            )

    def _shuffled(self, seed, epoch):
        """The descriptions of all images, in the order of one epoch (a scalar tensor)."""
        return shuffled(len(self), seed, epoch)

    def _encoded(self):
        """The functions `describe` and `load` of `crops.crop_pairs`."""
        raise NotImplementedError

    def _read_batches(self, batches):
        """Maps batches of descriptions to batches of images."""
        # Reads one batch at a time, two batches ahead, which bounds the memory; `read` is parallel inside a batch.
        return without_autotune(batches.map(self._read_tensor).prefetch(2))

    def _read_tensor(self, rows):
        images = tf.numpy_function(self.read, [rows], tf.as_dtype(self.dtype), stateful=False)
        return tf.ensure_shape(images, (rows.shape[0], *self.image_shape))


def without_autotune(dataset):
    """Disables tf.data's autotuning for a dataset.

    These pipelines have nothing to tune, and the tuning thread delays every new iterator: 4 of 10 seconds per epoch on
    two cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
