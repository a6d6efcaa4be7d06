"""The global order: which images make up a batch is a function of the seed, the epoch and the batch alone."""

import tensorflow as tf

from keras_barlow.distribution import Share

# More epochs than any run has.
_EPOCHS = 2**31


class Batches:
    """The batches of a training run, in an order of its own for every epoch. Made by `Images.batches`.

    `BarlowTwins.fit` takes it. Batch b of epoch e holds the same images whoever asks: in a run that goes on where
    another one stopped, and on several replicas or workers, each of which reads its own rows only. What is left
    over at the end of an epoch, less than a batch, is another random handful in the next.

    `len(batches)` is the number of batches in an epoch.

    Args:
        batch_size: Images per batch, over all replicas.
        steps: Batches per epoch.
        seed: Integer: of the orders.
        rows: Function of an int64 scalar tensor, the epoch, that gives a `tf.data.Dataset` of the images' descriptions
            in the order of that epoch.
        read: Function of a `tf.data.Dataset` of `(step, start, descriptions)`: the number of the batch from the
            beginning of the run, the first row in the batch, and the descriptions of some rows. It gives a
            `tf.data.Dataset` of what is trained on.

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
            epoch: From 0.

        Returns:
            A `tf.data.Dataset` of `len(batches)` elements.
        """
        elements = self._read(self._described(epoch, 0, epoch + 1, Share()))
        return elements.apply(tf.data.experimental.assert_cardinality(self.steps))

    def stream(self, epoch=0, batch=0, share=None):
        """All batches from some place on, epoch after epoch without an end.

        Args:
            epoch: From 0.
            batch: Of that epoch, from 0.
            share: `distribution.Share`: whose rows to read. The elements are the parts of these replicas, in turn. None
                for whole batches.

        Returns:
            A `tf.data.Dataset`.

        Raises:
            ValueError: If the replicas' parts are not of one size.
        """
        share = Share() if share is None else share
        self.check(share.replicas)
        return self._read(self._described(epoch, batch, _EPOCHS, share))

    def check(self, replicas):
        """Raises ValueError if a batch cannot be divided evenly.

        Args:
            replicas: Number of them.
        """
        if self.batch_size % replicas:
            raise ValueError(
                "Every replica takes the same number of images, so the batch size must be a multiple of the number of "
                f"replicas, {replicas}. Received: batch_size={self.batch_size}. Use "
                f"{max(1, self.batch_size // replicas) * replicas} (--batch_size)."
            )

    def _described(self, epoch, batch, until, share):
        def batches_of(number):
            first = tf.where(number == epoch, tf.constant(batch, "int64"), 0)
            rows = self._rows(number).skip(first * self.batch_size).batch(self.batch_size, drop_remainder=True)
            steps = tf.data.Dataset.range(first, self.steps).map(lambda place: number * self.steps + place)
            return tf.data.Dataset.zip(steps, rows)

        size = self.batch_size // share.replicas

        def parts_of(step, rows):
            starts = size * tf.range(share.first, share.first + share.count, dtype="int64")
            parts = tf.reshape(rows, (share.replicas, size))[share.first : share.first + share.count]
            return tf.data.Dataset.from_tensor_slices((tf.repeat(step, share.count), starts, parts))

        return tf.data.Dataset.range(epoch, until).flat_map(batches_of).flat_map(parts_of)


def order_of(x, steps_per_epoch=None):
    """What the order of the training data depends on, so that a run can go on with the same.

    Args:
        x: `Batches`, or a `tf.data.Dataset` that is the same in every epoch.
        steps_per_epoch: As for `fit`.

    Returns:
        A dictionary.

    Raises:
        ValueError: For arrays, which Keras shuffles in an order that is lost, for datasets of unknown size, and for
            epochs that end before `steps_per_epoch` because the dataset runs out of data.
    """
    if isinstance(x, Batches):
        return {"batch_size": x.batch_size, "steps": x.steps, "seed": x.seed}
    if not isinstance(x, tf.data.Dataset):
        raise ValueError(
            "A run can go on only if the order of its images can be found again. Received: "
            f"{type(x).__name__} and Checkpoints. Pass keras_barlow.data.ArrayImages(images).batches(batch_size)."
        )
    count = int(x.cardinality())
    if not steps_per_epoch and count < 1:
        raise ValueError(
            "A run can go on only if the number of steps in an epoch is known. Received: a dataset of unknown size and "
            "Checkpoints. Use dataset.repeat() with steps_per_epoch, or "
            "dataset.apply(tf.data.experimental.assert_cardinality(steps))."
        )
    if steps_per_epoch and not fills_epochs(x, steps_per_epoch):
        size = f"{count} batches" if count >= 0 else "an unknown number of batches"
        raise ValueError(
            "With Checkpoints every epoch must have `steps_per_epoch` batches, and a dataset that runs out of data "
            f"cuts one short. Received: steps_per_epoch={steps_per_epoch} and a dataset of {size}. Pass "
            "dataset.repeat(), or steps_per_epoch=None for one pass over the dataset in each epoch."
        )
    return {"steps": steps_per_epoch or count}


def fills_epochs(dataset, steps_per_epoch):
    """Whether a dataset never ends in the middle of an epoch: it repeats itself, or holds some whole epochs.

    Args:
        dataset: `tf.data.Dataset`.
        steps_per_epoch: Integer.

    Returns:
        A Python boolean.

    Example:

    >>> fills_epochs(tf.data.Dataset.range(10), 5), fills_epochs(tf.data.Dataset.range(10), 4)
    (True, False)
    """
    count = int(dataset.cardinality())
    return count == tf.data.INFINITE_CARDINALITY or (count > 0 and count % steps_per_epoch == 0)


def check_repeatable(dataset):
    """Refuses a dataset whose first batch changes from pass to pass, as a shuffled one's does.

    Args:
        dataset: `tf.data.Dataset`. Its first batch is read twice.

    Raises:
        ValueError: If the two differ.
    """
    first, second = (_first_bytes(dataset) for _ in range(2))
    if first != second:
        raise ValueError(
            "A run can go on exactly only if its dataset is the same in every pass. Received: a tf.data.Dataset whose "
            "first batch was another one in the second pass, so it is shuffled anew or draws random numbers. Use "
            "keras_barlow.data.ArrayImages(images).batches(batch_size), which shuffles in an order that can be found "
            "again; or shuffle(..., seed=0, reshuffle_each_iteration=False); or Checkpoints(..., exact=False), which "
            "resumes at the right step with other images."
        )


def _first_bytes(dataset):
    batch = next(iter(dataset.take(1)), ())
    return [tensor.numpy().tobytes() for tensor in tf.nest.flatten(batch, expand_composites=True)]


def continued(dataset, epoch, batch, steps_per_epoch=None):
    """A dataset for `fit` with `steps_per_epoch`, from some place on.

    Args:
        dataset: `tf.data.Dataset`.
        epoch: Epochs since the one that began with the dataset.
        batch: Batch of that epoch, from 0.
        steps_per_epoch: Whether every epoch goes on where the one before ended, as `fit` does if it is given; else
            every epoch begins with the dataset.

    Returns:
        A `tf.data.Dataset` without an end.

    Example:

    >>> [int(i) for i in continued(tf.data.Dataset.range(6), epoch=1, batch=1, steps_per_epoch=3).take(4)]
    [4, 5, 0, 1]
    """
    place = batch if not steps_per_epoch else epoch * steps_per_epoch + batch
    count = int(dataset.cardinality())
    if count > 0:
        return dataset.skip(place % count).concatenate(dataset.repeat())
    return dataset.skip(place)


def shuffled(count, seed, epoch):
    """The numbers below `count` in an order of their own for every seed and epoch, without a buffer.

    Args:
        count: Number of rows.
        seed: Integer.
        epoch: Integer or scalar integer tensor.

    Returns:
        A `tf.data.Dataset` of int64 scalars.
    """
    key = order_key(seed, epoch)

    def row(index):
        # The raw operation: tf.random.experimental.index_shuffle pads the seed to a length that it refuses.
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=tf.constant(count - 1, "int64"), rounds=4)

    return tf.data.Dataset.range(count).map(row)


def order_key(seed, epoch):
    """Three well mixed numbers for one epoch's order, a uint32 tensor `(3,)`."""
    # No view has a negative seed, so no view has this key.
    key = tf.stack([tf.constant(-1 - seed, "int64"), tf.cast(epoch, "int64")])
    return tf.random.stateless_uniform((3,), seed=key, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
