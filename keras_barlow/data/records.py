"""Data sets of TensorFlow Datasets, by name."""

import functools
import io

import numpy as np
import tensorflow as tf

from keras_barlow.data.images import ArrayImages, Images, untuned
from keras_barlow.data.order import order_key, shuffled

_SHUFFLE_BYTES = 2**28
# Each epoch begins with other parts.
_PARTS, _PARTS_AT_ONCE = 64, 8


class RecordImages(Images):
    """One split of a prepared TFDS data set, read from its record files whenever it is needed.

    Records have no random access: the shuffling is that of up to 64 parts, then of a window of up to 256 MiB.

    Args:
        builder: `tfds.core.DatasetBuilder` of a prepared data set.
        split: Name of a split, with an optional slice, `"train[:80%]"`.
        decoder: `Decoder`.
        labels: False to ignore the labels.

    Raises:
        ValueError: If there is no such split, or not exactly one image in an example.
    """

    def __init__(self, builder, split, decoder, labels=True):
        import tensorflow_datasets as tfds

        self.builder = builder
        self.split = split
        self.decoder = decoder
        self.image_size = decoder.image_size
        try:
            self._info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"The split must be one of {builder.info.name}: {', '.join(builder.info.splits)}, with an optional "
                f"slice such as train[:80%]. Received: {split!r}."
            ) from error
        features = builder.info.features
        images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
        if len(images) != 1 or features[images[0]].np_dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"Every example must hold one image of 8 or 16 bits. Received: {builder.info.name} with the features "
                f"{', '.join(sorted(features))}, of which {len(images)} are images."
            )
        classes = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
        listed = getattr(features["labels"], "feature", None) if "labels" in features else None
        self._image = images[0]
        self._label = self._counted = None
        self._name = f"an image of {builder.info.name}, {split}"
        if labels and len(classes) == 1:
            self._label = classes[0]
            self.class_names = tuple(features[self._label].names)
        elif labels and isinstance(listed, tfds.features.ClassLabel):
            # As in VOC, whose objects that are hard to see are left out of the second list, and do not count.
            self._label = "labels"
            self._counted = "labels_no_difficult" if "labels_no_difficult" in features else "labels"
            self.class_names = tuple(listed.names)

    def __len__(self):
        return self._info.num_examples

    @functools.cached_property
    def labels(self):
        """Read from the records when they are first asked for."""
        if self._label is None:
            return None
        if self._counted is not None:
            pairs = self._examples().map(lambda example: (example["labels"], example[self._counted]))
            return np.stack([self._several(*pair) for pair in pairs.as_numpy_iterator()])
        labels = self._examples().map(lambda example: example[self._label]).batch(4096)
        return np.concatenate([np.zeros(0, "int64"), *labels.as_numpy_iterator()])

    def _several(self, shown, counted):
        row = np.zeros(len(self.class_names), "int64")
        row[shown] = -1
        row[counted] = 1
        return row

    def in_memory(self):
        """The same images, read now, as `ArrayImages`."""
        array = np.concatenate(list(self.in_order().as_numpy_iterator()))
        return ArrayImages(array, self.labels, self.class_names)

    def take(self, rows):
        """The images of some rows, read now, as `ArrayImages`."""
        return ArrayImages(self.read(rows), None if self._label is None else self.labels[rows], self.class_names)

    def in_order(self, batch_size=256, crop=None):
        """See `Images.in_order`."""
        return self._cropped(self._in_turn(self._contents().batch(batch_size)), crop)

    def _contents(self, split=None):
        """The bytes of each image, in order."""
        return self._examples(split).map(lambda example: example[self._image])

    def _shuffled(self, seed, epoch):
        """Some parts of the records at a time, in the order of the epoch, through a window."""
        order = [tf.data.experimental.to_variant(part) for part in self._parts]
        spec = self._parts[0].element_spec

        def part(index):
            return tf.data.experimental.from_variant(tf.stack(order)[index], spec)

        mixed = shuffled(len(self._parts), seed, epoch).interleave(part, cycle_length=_PARTS_AT_ONCE)
        size = self._info.num_bytes / len(self)
        key = tf.cast(order_key(seed, epoch), "int64")
        # The raw operation: `shuffle` takes no seed that a graph computes.
        window = tf.raw_ops.ShuffleDataset(
            input_dataset=tf.data.experimental.to_variant(mixed),
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

        # First asked for in the middle of a graph, to which these do not belong.
        with tf.init_scope():
            return [self._contents(split) for split in tfds.even_splits(self.split, n=min(_PARTS, len(self)))]

    def _encoded(self):
        return lambda content: (io.BytesIO(content), self._name, content), tf.identity

    def _in_turn(self, batches):
        return untuned(batches.map(self._decode, num_parallel_calls=2).prefetch(2))

    def _decode(self, encoded):
        images = tf.numpy_function(
            lambda contents: np.stack([self._one(content) for content in contents]), [encoded], tf.uint8, stateful=False
        )
        return tf.ensure_shape(images, (encoded.shape[0], self.image_size, self.image_size, 3))

    def _examples(self, split=None):
        import tensorflow_datasets as tfds

        return self.builder.as_dataset(
            split=split or self.split,
            read_config=tfds.ReadConfig(try_autocache=False),
            decoders={self._image: tfds.decode.SkipDecoding()},
        )

    def read(self, rows):
        """See `Images.read`. One pass over the records; only the wanted images are decoded."""
        wanted, places = np.unique(rows, return_inverse=True)
        examples = self._contents().enumerate()
        chosen = examples.filter(lambda row, _: tf.reduce_any(row == wanted)).take(len(wanted))
        return np.stack([self._one(content) for _, content in chosen.as_numpy_iterator()])[places.reshape(-1)]

    def _one(self, content):
        return self.decoder.decode(content, self._name)


def prepared_builder(name, data_dir, download=False):
    """The builder of a data set that is on disk.

    Args:
        name: As for `tfds.builder`, `"mnist"`, `"imagenette/160px"`, `"my_photos:1.0.0"`.
        data_dir: Folder of prepared data sets, or None for TFDS' own, `~/tensorflow_datasets`.
        download: True to download and prepare what is not there.

    Returns:
        A `tfds.core.DatasetBuilder`.

    Raises:
        ValueError: If TFDS is not installed, knows no such name, or the data set is not there and cannot be
            downloaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"A data set by name needs tensorflow-datasets. Received: dataset={name!r}. "
            'Install it with pip install "keras-barlow[tensorflow]".'
        ) from error
    place = data_dir or "~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The data set must be known to TFDS or prepared in {place}. Received: dataset={name!r} ({reason}). "
            "Check its name, its version and --data_dir."
        ) from error
    if builder.is_prepared():
        return builder
    remedy = f"Prepare it where there is a network, with tfds build {name} --data_dir={place}."
    if not download:
        raise ValueError(
            f"The data set must be prepared on disk. Received: {name!r}, which is not in {place}. "
            f"Let it be downloaded with download=True (--download). {remedy}"
        )
    try:
        builder.download_and_prepare()
    # Each data set downloads and unpacks in a way of its own.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise ValueError(
            f"The data set {name!r} could not be downloaded to {place} ({type(error).__name__}: {reason}). {remedy}"
        ) from error
    return builder
