"""Datasets of TensorFlow Datasets (TFDS), by name."""

import functools
import io

import numpy as np
import tensorflow as tf

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.center_crop import center_cropped
from keras_barlow.data.collection import Images, without_autotune
from keras_barlow.data.order import order_key, shuffled
from keras_barlow.data.tfds_features import image_feature, label_features
from keras_barlow.labels import checked_labels

_SHUFFLE_BYTES = 2**28
# Each epoch starts with different parts of the records.
_PARTS, _PARTS_AT_ONCE = 64, 8


class RecordImages(Images):
    """One split of a prepared TFDS dataset, read from its record files on demand.

    Records have no random access, so up to 64 parts of them are shuffled, and then a window of up to 256 MiB.

    Args:
        builder: `tfds.core.DatasetBuilder` of a prepared dataset.
        split: Name of a split, with an optional slice, such as `"train[:80%]"`.
        decoder: `Decoder` that turns examples into squares.
        labels: Whether to use the labels.

    Raises:
        ValueError: If the split does not exist or is empty, or it is ambiguous which feature is the image or the class.
    """

    def __init__(self, builder, split, decoder, labels=True):
        self.builder = builder
        self.split = split
        self.decoder = decoder
        self.image_size = decoder.image_size
        try:
            self._info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"The split must be one of {builder.info.name}: {', '.join(builder.info.splits)}, with an optional "
                f"slice such as train[:80%]. Received: {split!r}. Choose one of them."
            ) from error
        if not len(self):
            raise ValueError(
                f"A split must have images. Received: {split!r} of {builder.info.name}, which is empty. Choose another."
            )
        self._image = image_feature(builder)
        self._label, self._positive = label_features(builder) if labels else (None, None)
        self._source = f"{builder.info.name}, {split}"
        self._image_name = f"an image of {self._source}"
        if self._label is not None:
            feature = builder.info.features[self._label]
            self.class_names = tuple((feature if self._positive is None else feature.feature).names)

    def __len__(self):
        return self._info.num_examples

    @functools.cached_property
    def labels(self):
        """The labels of all images, read from the records on first use."""
        if self._label is None:
            return None
        if self._positive is not None:
            pairs = self._examples().map(lambda example: (example["labels"], example[self._positive]))
            return np.stack([self._targets(*pair) for pair in pairs.as_numpy_iterator()])
        labels = self._class_numbers().batch(4096)
        return self._checked(np.concatenate([np.zeros(0, "int64"), *labels.as_numpy_iterator()]))

    def first_labels(self, count=256):
        """Reads the class numbers of the first examples.

        Args:
            count: Number of examples to read.

        Returns:
            int64 array, with -1 for examples without a label, as in TFDS; None for images without labels, or with
            several labels each.
        """
        if self._label is None or self._positive is not None:
            return None
        return np.array(list(self._class_numbers().take(count).as_numpy_iterator()), "int64")

    def check_first_labels(self):
        """Checks the labels of the first examples, before all of them are read.

        Raises:
            ValueError: If an example has no label.
        """
        labels = self.first_labels()
        if labels is not None:
            self._checked(labels)

    def _class_numbers(self):
        return self._examples().map(lambda example: example[self._label])

    def _checked(self, labels):
        if labels.min() < 0:
            raise ValueError(
                "Every image must have a label. "
                f"Received: {np.sum(labels < 0)} of {len(labels)} without one (-1) in {self._source}. Choose another "
                "split (--train_split, --test_split), or ignore the classes with labels=False (--nolabels)."
            )
        return checked_labels(labels, name=self._label)

    def _targets(self, present, positive):
        targets = np.zeros(len(self.class_names), "int64")
        targets[present] = -1
        targets[positive] = 1
        return targets

    def in_memory(self):
        """Reads all images.

        Returns:
            `ArrayImages` with the same labels and class names.
        """
        array = np.concatenate(list(self.in_order().as_numpy_iterator()))
        return ArrayImages(array, self.labels, self.class_names)

    def take(self, rows):
        """Selects rows and reads them.

        Args:
            rows: Integer array `(m,)`.

        Returns:
            `ArrayImages` with the labels and class names of these rows.
        """
        return ArrayImages(self.read(rows), None if self._label is None else self.labels[rows], self.class_names)

    def in_order(self, batch_size=256, crop=None):
        """All images once, in the order of the records, as `Images.in_order`."""
        return center_cropped(self._read_batches(self._contents().batch(batch_size)), self.image_shape, crop)

    def _contents(self, split=None):
        """The encoded images, in the order of the records."""
        return self._examples(split).map(lambda example: example[self._image])

    def _shuffled(self, seed, epoch):
        """Interleaves shuffled parts of the records and shuffles the result within a window."""
        order = [tf.data.experimental.to_variant(part) for part in self._parts]
        spec = self._parts[0].element_spec

        def part(index):
            return tf.data.experimental.from_variant(tf.stack(order)[index], spec)

        records = shuffled(len(self._parts), seed, epoch).interleave(part, cycle_length=_PARTS_AT_ONCE)
        size = self._info.num_bytes / len(self)
        key = tf.cast(order_key(seed, epoch), "int64")
        # The raw op, because `Dataset.shuffle` does not accept a seed that is a tensor of the graph.
        window = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(records),
            buffer_size=max(2, min(len(self), int(_SHUFFLE_BYTES / max(1, size)))),
            seed=key[0],
            seed2=key[1],
            reshuffle_each_iteration=False,
            output_types=[tf.string],
            output_shapes=[()],
        )
        return tf.data.experimental.from_variant(window, spec)

    @functools.cached_property
    def _parts(self):
        import tensorflow_datasets as tfds

        # The first use is inside a traced function; these datasets must live outside its graph.
        with tf.init_scope():
            return [self._contents(split) for split in tfds.even_splits(self.split, n=min(_PARTS, len(self)))]

    def _encoded(self):
        return lambda content: (io.BytesIO(content), self._image_name, content), tf.identity

    def _read_batches(self, batches):
        return without_autotune(batches.map(self._decode, num_parallel_calls=2).prefetch(2))

    def _decode(self, encoded):
        images = tf.numpy_function(self._decode_all, [encoded], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (encoded.shape[0], self.image_size, self.image_size, 3))

    def _examples(self, split=None):
        import tensorflow_datasets as tfds

        return self.builder.as_dataset(
            split=split or self.split,
            read_config=tfds.ReadConfig(try_autocache=False),
            decoders={self._image: tfds.decode.SkipDecoding()},
        )

    def read(self, rows):
        """Reads images by row number, in one pass over the records that decodes only these images."""
        unique_rows, positions = np.unique(rows, return_inverse=True)
        examples = self._contents().enumerate()
        examples = examples.filter(lambda row, _: tf.reduce_any(row == unique_rows)).take(len(unique_rows))
        return self._decode_all(content for _, content in examples.as_numpy_iterator())[positions.reshape(-1)]

    def _decode_all(self, contents):
        return np.stack([self.decoder.decode(content, self._image_name) for content in contents])


def prepared_builder(name, data_dir, download=False):
    """Finds a prepared dataset on disk, or downloads it.

    Args:
        name: Name for `tfds.builder`, such as `"mnist"`, `"imagenette/160px"` or `"my_photos:1.0.0"`.
        data_dir: Folder of prepared datasets; None for TFDS' default, `~/tensorflow_datasets`.
        download: Whether to download and prepare a dataset that is not on disk.

    Returns:
        A `tfds.core.DatasetBuilder`.

    Raises:
        ValueError: If TFDS is not installed or does not know the name, or the dataset is not on disk and cannot be
            downloaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"A TFDS dataset needs tensorflow-datasets. Received: dataset={name!r}. "
            'Install it with pip install "keras-barlow[tensorflow]".'
        ) from error
    place = data_dir or "~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The dataset must be known to TFDS or prepared in {place}. Received: dataset={name!r} ({reason}). "
            "Check its name, its version and --data_dir."
        ) from error
    if builder.is_prepared():
        return builder
    remedy = f"On a machine with a network, run tfds build {name} --data_dir={place}."
    if not download:
        raise ValueError(
            f"The dataset must be prepared on disk. Received: {name!r}, which is not in {place}. "
            f"Download it with download=True (--download). {remedy}"
        )
    try:
        builder.download_and_prepare()
    # Every dataset has its own code for downloading and extracting.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise ValueError(
            f"The dataset must be downloadable. Received: {name!r} could not be downloaded to {place} "
            f"({type(error).__name__}: {reason}). {remedy}"
        ) from error
    return builder
