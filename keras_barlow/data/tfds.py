"""Data sets of TensorFlow Datasets, by name."""

import functools
import io

import numpy as np
import tensorflow as tf
from absl import logging

from keras_barlow.data.arrays import ArrayImages
from keras_barlow.data.center_crop import center_cropped
from keras_barlow.data.collection import Images, untuned
from keras_barlow.data.order import order_key, shuffled
from keras_barlow.labels import checked_labels

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
        ValueError: If there is no such split, it is empty, or it is not clear which feature is the image, or the class.
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
                f"slice such as train[:80%]. Received: {split!r}."
            ) from error
        if not len(self):
            raise ValueError(f"A split must hold images. Received: {split!r} of {builder.info.name}, which is empty.")
        self._image = _image_feature(builder)
        self._label, self._counted = _label_features(builder) if labels else (None, None)
        self._source = f"{builder.info.name}, {split}"
        self._image_name = f"an image of {self._source}"
        if self._label is not None:
            feature = builder.info.features[self._label]
            self.class_names = tuple((feature if self._counted is None else feature.feature).names)

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
        labels = self._class_numbers().batch(4096)
        return self._known(np.concatenate([np.zeros(0, "int64"), *labels.as_numpy_iterator()]))

    def first_labels(self, count=256):
        """Class numbers of the first examples, or None, where there is not one for each.

        Args:
            count: Number of examples.

        Returns:
            int64 array; -1 for those without a label, as TFDS has it.
        """
        if self._label is None or self._counted is not None:
            return None
        return np.array(list(self._class_numbers().take(count).as_numpy_iterator()), "int64")

    def check_first_labels(self):
        """Raises ValueError if the first examples have no labels, before all are read."""
        labels = self.first_labels()
        if labels is not None:
            self._known(labels)

    def _class_numbers(self):
        return self._examples().map(lambda example: example[self._label])

    def _known(self, labels):
        if labels.min() < 0:
            raise ValueError(
                "Every image must have a label. "
                f"Received: {np.sum(labels < 0)} of {len(labels)} without one (-1) in {self._source}. Take another "
                "split (--train_split, --test_split), or ignore the classes with labels=False (--nolabels)."
            )
        return checked_labels(labels, name=self._label)

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
        return center_cropped(self._in_turn(self._contents().batch(batch_size)), self.image_shape, crop)

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
        return lambda content: (io.BytesIO(content), self._image_name, content), tf.identity

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
        return self.decoder.decode(content, self._image_name)


def _supervised(builder):
    """Names of the image and the label that the data set itself proposes."""
    keys = builder.info.supervised_keys
    return keys if isinstance(keys, tuple) and len(keys) == 2 else (None, None)


def _image_feature(builder):
    import tensorflow_datasets as tfds

    features = builder.info.features
    names = list(features.keys()) if hasattr(features, "keys") else []
    # Masks are images too, of another kind.
    images = [
        name
        for name in names
        if isinstance(features[name], tfds.features.Image)
        and not isinstance(features[name], tfds.features.LabeledImage)
    ]
    chosen = next((name for name in (_supervised(builder)[0], "image") if name in images), None)
    if chosen is None and len(images) == 1:
        chosen = images[0]
    if chosen is None or features[chosen].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"Every example must hold one image of 8 or 16 bits. Received: {builder.info.name} with the features "
            f"{', '.join(sorted(names)) or features}, of which {len(images)} are images. Write a data set whose image "
            "is a feature of its own, or its images into a folder."
        )
    if len(images) > 1:
        logging.warning("The images of %s are those of its feature %s, of %s.", builder.info.name, chosen, images)
    return chosen


def _label_features(builder):
    """Names of the label, or of two lists of labels: of all classes, and of those that count."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    classes = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    proposed = _supervised(builder)[1]
    chosen = next((name for name in (proposed, "label") if name in classes), None)
    if chosen is not None or len(classes) == 1:
        return chosen or classes[0], None
    listed = getattr(features["labels"], "feature", None) if "labels" in features else None
    if isinstance(listed, tfds.features.ClassLabel):
        # As in VOC, whose objects that are hard to see are left out of the second list, and do not count.
        return "labels", "labels_no_difficult" if "labels_no_difficult" in features else "labels"
    unclear = classes or [name for name in ("label", "labels", proposed) if name in features]
    if unclear:
        received = ", ".join(f"{name}: {features[name]}" for name in sorted(unclear))
        raise ValueError(
            "The class of an image must be a ClassLabel, the only one or named label, or a sequence of them named "
            f"labels. Received: {builder.info.name} with {received}. "
            "Ignore the classes with labels=False (--nolabels)."
        )
    return None, None


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
