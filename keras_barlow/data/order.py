"""The global order of the images: a batch is determined by the seed, the epoch and its number alone."""

import tensorflow as tf

from keras_barlow.distribution import Share

# More epochs than any run needs.
_EPOCHS = 2**31


class Batches:
    """The batches of a training run, in a new order every epoch. `Images.batches` makes them, and `fit` takes them.

    Batch b of epoch e always has the same images: after a resume, and on any number of replicas or workers, each of
    which reads only its own rows. The images that are left over at the end of an epoch, less than one batch, are
    different ones in the next. `len(batches)` is the number of batches per epoch.

    Args:
        batch_size: Number of images per batch, over all replicas.
        steps: Number of batches per epoch.
        seed: Integer that determines the order of the images.
        rows: Function of the epoch, an int64 scalar tensor, that returns a `tf.data.Dataset` of the descriptions of
            the images in the order of that epoch.
        read: Function that maps a `tf.data.Dataset` of `(step, start, descriptions)` to a `tf.data.Dataset` of training
            batches. `step` counts the batches of the run, `start` is the first row within the batch, and `descriptions`
            identify the images of consecutive rows.

    Example:

    >>> import keras_barlow as kb, numpy as np
    >>> batches = kb.data.ArrayImages(np.zeros((10, 4, 4, 3), "uint8")).batches(batch_size=4)
    >>> len(batches), [batch.shape[0] for batch in batches.epoch(0)]
    (2, [4, 4])
    """

    def __init__(self, batch_size, steps, seed, rows, read):
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self._rows = rows
        self._read = read

    def __len__(self):
        return self.steps

    def epoch(self, epoch):
        """The batches of one epoch.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            A `tf.data.Dataset` of `len(batches)` elements.
        """
        elements = self._read(self._descriptions(epoch, 0, epoch + 1, Share()))
        return elements.apply(tf.data.experimental.assert_cardinality(self.steps))

    def stream(self, epoch=0, batch=0, share=None):
        """All batches from a given one on, over all further epochs.

        Args:
            epoch: Number of the first epoch, from 0.
            batch: Number of the first batch within that epoch, from 0.
            share: `distribution.Share`, the replicas whose rows to read, one element per replica; None reads whole
                batches.

        Returns:
            A `tf.data.Dataset` that never ends in practice.

        Raises:
            ValueError: If the batch size is not a multiple of the number of replicas.
        """
        share = Share() if share is None else share
        self.check(share.replicas)
        return self._read(self._descriptions(epoch, batch, _EPOCHS, share))

    def check(self, replicas):
        """Checks that a batch can be divided evenly.

        Args:
            replicas: Number of replicas.

        Raises:
            ValueError: If the batch size is not a multiple of it.
        """
        if self.batch_size % replicas:
            raise ValueError(
                "Every replica takes the same number of images, so the batch size must be a multiple of the number of "
                f"replicas, {replicas}. Received: batch_size={self.batch_size}. Use "
                f"{max(1, self.batch_size // replicas) * replicas} (--batch_size)."
            )

    def _descriptions(self, epoch, batch, until, share):
        def batches_of(number):
            first = tf.where(number == epoch, tf.constant(batch, "int64"), 0)
            rows = self._rows(number).skip(first * self.batch_size).batch(self.batch_size, drop_remainder=True)
            steps = tf.data.Dataset.range(first, self.steps).map(lambda index: number * self.steps + index)
            return tf.data.Dataset.zip(steps, rows)

        size = self.batch_size // share.replicas

        def parts_of(step, rows):
            starts = size * tf.range(share.first, share.first + share.count, dtype="int64")
            parts = tf.reshape(rows, (share.replicas, size))[share.first : share.first + share.count]
            return tf.data.Dataset.from_tensor_slices((tf.repeat(step, share.count), starts, parts))

        return tf.data.Dataset.range(epoch, until).flat_map(batches_of).flat_map(parts_of)


def order_of(x, steps_per_epoch=None):
    """Describes the order of the training data, so that a resumed run can check that it continues in the same order.

    Args:
        x: `Batches`, or a `tf.data.Dataset` that is the same in every epoch.
        steps_per_epoch: Argument of `fit`, an integer or None.

    Returns:
        A dictionary of integers.

    Raises:
        ValueError: For arrays, because Keras does not record their shuffled order; for datasets of unknown size; and
            for datasets that run out of data before `steps_per_epoch`.
    """
    if isinstance(x, Batches):
        return {"batch_size": x.batch_size, "steps": x.steps, "seed": x.seed}
    if not isinstance(x, tf.data.Dataset):
        raise ValueError(
            "A run can be resumed only if the order of its images can be reproduced. Received: "
            f"{type(x).__name__} and Checkpoints. Pass keras_barlow.data.ArrayImages(images).batches(batch_size)."
        )
    count = int(x.cardinality())
    if not steps_per_epoch and count < 1:
        raise ValueError(
            "A run can be resumed only if the number of steps in an epoch is known. Received: a dataset of unknown "
            "size and Checkpoints. Use dataset.repeat() with steps_per_epoch, or "
            "dataset.apply(tf.data.experimental.assert_cardinality(steps))."
        )
    if steps_per_epoch and not fills_epochs(x, steps_per_epoch):
        size = f"{count} batches" if count >= 0 else "an unknown number of batches"
        raise ValueError(
            "With Checkpoints every epoch must have `steps_per_epoch` batches, but this dataset runs out of data and "
            f"cuts one short. Received: steps_per_epoch={steps_per_epoch} and a dataset of {size}. Pass "
            "dataset.repeat(), or steps_per_epoch=None for one pass over the dataset per epoch."
        )
    return {"steps": steps_per_epoch or count}


def fills_epochs(dataset, steps_per_epoch):
    """Whether a dataset never ends in the middle of an epoch: it is infinite, or a whole number of epochs long.

    Args:
        dataset: `tf.data.Dataset`.
        steps_per_epoch: Number of batches per epoch.

    Returns:
        A Python boolean.

    Example:

    >>> fills_epochs(tf.data.Dataset.range(10), 5), fills_epochs(tf.data.Dataset.range(10), 4)
    (True, False)
    """
    count = int(dataset.cardinality())
    return count == tf.data.INFINITE_CARDINALITY or (count > 0 and count % steps_per_epoch == 0)


def check_repeatable(dataset):
    """Checks that a dataset yields the same first batch in every pass, which a reshuffled dataset does not.

    Args:
        dataset: `tf.data.Dataset`, whose first batch is read twice.

    Raises:
        ValueError: If the two batches differ.
    """
    first, second = (_first_bytes(dataset) for _ in range(2))
    if first != second:
        raise ValueError(
            "A run can be resumed exactly only if its dataset is the same in every pass. Received: a tf.data.Dataset "
            "whose first batch differed in the second pass, because it is reshuffled or draws random numbers. Use "
            "keras_barlow.data.ArrayImages(images).batches(batch_size), which shuffles in a reproducible order; or "
            "shuffle(..., seed=0, reshuffle_each_iteration=False); or Checkpoints(..., exact=False), which resumes at "
            "the right step with other images."
        )


def _first_bytes(dataset):
    batch = next(iter(dataset.take(1)), ())
    return [tensor.numpy().tobytes() for tensor in tf.nest.flatten(batch, expand_composites=True)]


def continued(dataset, epoch, batch, steps_per_epoch=None):
    """Fast-forwards a dataset to the batch at which a run resumes.

    Args:
        dataset: `tf.data.Dataset`.
        epoch: Number of epochs since the one that started at the beginning of the dataset.
        batch: Number of the batch within that epoch, from 0.
        steps_per_epoch: Number of batches per epoch, if each epoch continues where the previous one ended, as in
            `fit`; None if every epoch starts at the beginning of the dataset.

    Returns:
        A `tf.data.Dataset` from that batch on. A finite dataset is repeated indefinitely.

    Example:

    >>> [int(i) for i in continued(tf.data.Dataset.range(6), epoch=1, batch=1, steps_per_epoch=3).take(4)]
    [4, 5, 0, 1]
    """
    position = batch if not steps_per_epoch else epoch * steps_per_epoch + batch
    count = int(dataset.cardinality())
    if count > 0:
        return dataset.skip(position % count).concatenate(dataset.repeat())
    return dataset.skip(position)


def shuffled(count, seed, epoch):
    """A random permutation of the numbers below `count`, computed without a buffer.

    Args:
        count: Number of rows.
        seed: Integer seed of the run.
        epoch: Number of the epoch, an integer or a scalar integer tensor; each has its own permutation.

    Returns:
        A `tf.data.Dataset` of int64 scalars.
    """
    key = order_key(seed, epoch)

    def row(index):
        # The raw op, because tf.random.experimental.index_shuffle pads the seed to a length that this op rejects.
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=tf.constant(count - 1, "int64"), rounds=4)

    return tf.data.Dataset.range(count).map(row)


def order_key(seed, epoch):
    """The key of the order of one epoch: three hashed numbers, a uint32 tensor `(3,)`."""
    # Views have no negative seeds, so this key is never the key of a view.
    key = tf.stack([tf.constant(-1 - seed, "int64"), tf.cast(epoch, "int64")])
    return tf.random.stateless_uniform((3,), seed=key, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
