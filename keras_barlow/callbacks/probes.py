"""Online probes: what the features are good for, and whether they collapse, while they are learnt."""

import keras
import numpy as np
from absl import logging

from keras_barlow import data, evaluation, labels
from keras_barlow.evaluation.input_checks import check_images, check_votes, checked_feature_sets

# Of data.Images the monitor takes so many, evenly over the collection.
_MONITORED = 1024


class _Probe(keras.callbacks.Callback):
    """Something that is measured at the end of every so many epochs, and of the last.

    Args:
        every: Number of epochs between two measurements.
    """

    def __init__(self, every):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1 epoch. Received: every={every}")
        self.every = every

    def set_model(self, model):
        """Keras calls this before it trains, so what the encoder cannot take is refused here."""
        super().set_model(model)
        for name, images in self.probed().items():
            check_images(images, model, name)

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if (epoch + 1) % self.every == 0 or last:
            self.measure(logs)

    def probed(self):
        """The images that are measured on, by the name of their argument."""
        raise NotImplementedError

    def measure(self, logs):
        """Adds to the logs."""
        raise NotImplementedError


class _LabelledProbe(_Probe):
    """A probe of the features of labeled images."""

    def __init__(self, train, test, every, batch_size):
        super().__init__(every)
        images, numbers = _pair(train, "train")
        # With one class every answer is right.
        self.train = images, labels.checked_labels(numbers, _count(images), "train", least_classes=2)
        images, numbers = _pair(test, "test")
        self.test = images, labels.checked_test_labels(numbers, self.train[1], _count(images), "test")
        for name, images in self.probed().items():
            check_images(images, name=name)
        self.batch_size = batch_size

    def probed(self):
        return {"train": self.train[0], "test": self.test[0]}

    def features(self):
        """The features of the training images, their labels, and the features of the test images."""
        features = [evaluation.extract_features(self.model, one, self.batch_size) for one in self.probed().values()]
        return checked_feature_sets(features[0], self.train[1], features[1])


class KNNProbe(_LabelledProbe):
    """Adds the weighted k-NN accuracy of the frozen features to the logs, as `knn_top1`.

    Labels serve this measurement only; nothing of it reaches the training.

    Args:
        train: The bank: `data.Images` with labels, or a pair `(images, labels)` with images as an array, as
            `data.Images` or as a batched `tf.data.Dataset` in the order of the labels. Of `data.Images` the centers are
            taken.
        test: Images to classify, given in the same way.
        k: Number of neighbours.
        temperature: Softmax temperature of the votes.
        every: Epochs between two probes; the last epoch of `fit` is always probed.
        batch_size: Images at a time in the feature extraction.

    Raises:
        ValueError: If labels are missing or wrong, images and labels differ in number, the bank has fewer than `k`
            images, or `every` is below 1; and before `fit` trains, if the encoder takes images of another size.

    Example:

    >>> images, labels = np.zeros((8, 16, 16, 3), "uint8"), np.arange(8) % 2
    >>> probe = KNNProbe((images, labels), data.ArrayImages(images, labels), k=2)
    """

    def __init__(self, train, test, k=200, temperature=0.1, every=1, batch_size=256):
        super().__init__(train, test, every, batch_size)
        check_votes(k, len(self.train[1]), temperature)
        self.k = k
        self.temperature = temperature

    def measure(self, logs):
        train, train_labels, test = self.features()
        logs["knn_top1"] = evaluation.knn_accuracy(train, train_labels, test, self.test[1], self.k, self.temperature)


class LinearProbe(_LabelledProbe):
    """Adds the accuracy of a linear head that is trained beside the encoder to the logs: `linear_top1`, `linear_top5`.

    The head sees frozen features only, in inference mode, and goes on from one measurement to the next; nothing of it
    reaches the encoder. `Checkpoints` save it.

    Args:
        train: Images to train the head on: `data.Images` with labels, or a pair `(images, labels)` with images as an
            array, as `data.Images` or as a batched `tf.data.Dataset` in the order of the labels. Of `data.Images` the
            centers are taken.
        test: Images to classify, given in the same way.
        passes: Passes over the training features each time.
        learning_rate: Learning rate of the head: Adam on standardized features.
        every: Epochs between two measurements; the last epoch of `fit` is always one.
        batch_size: Images at a time in the feature extraction, and rows in a step of the head.

    Raises:
        ValueError: If labels are missing or wrong, images and labels differ in number, or `every` or `passes` is
            below 1; and before `fit` trains, if the encoder takes images of another size.

    Example:

    >>> images, labels = np.zeros((8, 16, 16, 3), "uint8"), np.arange(8) % 2
    >>> probe = LinearProbe((images, labels), data.ArrayImages(images, labels), passes=2)
    """

    def __init__(self, train, test, passes=5, learning_rate=1e-2, every=1, batch_size=256):
        super().__init__(train, test, every, batch_size)
        if passes < 1:
            raise ValueError(f"`passes` must be at least 1. Received: passes={passes}")
        self.passes = passes
        self.learning_rate = learning_rate
        self._head = None

    def get_state(self):
        """The head, for `Checkpoints`."""
        return None if self._head is None else dict(vars(self._head))

    def set_state(self, state):
        """Goes on with the head of `get_state`.

        Args:
            state: What it gave.
        """
        if state is None:
            self._head = None
            return
        features, classes = state["weights"].shape
        self._head = _Softmax(features - 1, classes, self.learning_rate)
        vars(self._head).update({**state, "learning_rate": self.learning_rate})

    def measure(self, logs):
        train, train_labels, test = self.features()
        mean, deviation = _moments(train)
        train, test = ((one - mean) / deviation for one in (train, test))
        if self._head is None:
            self._head = _Softmax(train.shape[1], int(train_labels.max()) + 1, self.learning_rate)
        for _ in range(self.passes):
            self._head.train(train, train_labels, self.batch_size)
        scores = self._head.scores(test)
        for k in (1, 5):
            logs[f"linear_top{k}"] = evaluation.top_k_accuracy(scores, self.test[1], k)


def _moments(features):
    """Mean and deviation of each feature; the deviation 1 for those that are constant up to the rounding of float32.

    To divide by next to nothing would blow up the least difference in the test images.
    """
    mean, deviation = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64")
    constant = deviation <= 10 * np.finfo("float32").eps * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation + 1e-6)


def _pair(given, name):
    """Images and labels."""
    if isinstance(given, data.Images):
        return given, given.labels
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return tuple(given)
    check_images(given, name=name)
    raise ValueError(
        "A probe needs images and their labels. "
        f"Received: {type(given).__name__} for `{name}`. Pass (images, labels), or data.Images with labels."
    )


def _count(images):
    """Number of images where it is known without reading them, or None."""
    if isinstance(images, data.Images) or hasattr(images, "shape"):
        return len(images)
    return None


class _Softmax:
    """Softmax regression by Adam, in NumPy: a model of Keras' own would be traced inside of a strategy."""

    def __init__(self, features, classes, learning_rate):
        self.weights = np.zeros((features + 1, classes))
        self.moments = [np.zeros_like(self.weights), np.zeros_like(self.weights)]
        self.learning_rate = learning_rate
        self.steps = 0

    def scores(self, features):
        return features @ self.weights[:-1] + self.weights[-1]

    def train(self, features, labels, batch_size):
        """One pass, in an order of its own."""
        order = np.random.default_rng(self.steps).permutation(len(labels))
        for start in range(0, len(labels), batch_size):
            rows = order[start : start + batch_size]
            scores = self.scores(features[rows])
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            share[np.arange(len(rows)), labels[rows]] -= 1.0
            gradient = np.concatenate([features[rows].T @ share, share.sum(axis=0, keepdims=True)]) / len(rows)
            self.steps += 1
            for index, (value, keep) in enumerate(((gradient, 0.9), (gradient**2, 0.999))):
                self.moments[index] = keep * self.moments[index] + (1 - keep) * value
            mean, square = (m / (1 - k**self.steps) for m, k in zip(self.moments, (0.9, 0.999), strict=True))
            self.weights -= self.learning_rate * mean / (np.sqrt(square) + 1e-8)


class CollapseMonitor(_Probe):
    """Adds to the logs how far the embeddings are from collapse, and warns where they are near, with what to try.

    `embedding_deviation`, `effective_rank` and `mean_correlation`: see `evaluation`. Embeddings of the same images
    every time, as they are, in inference mode.

    Args:
        images: Some hundred images, more than embeddings have features for a full rank: an array, a batched
            `tf.data.Dataset`, or `data.Images`, of which up to 1,024 centers are taken. A pair
            `(images, labels)`, as other probes take it, also works; its labels are ignored.
        every: Epochs between two measurements; the last epoch of `fit` is always one.
        least_deviation: Below it a warning says that all images have the same embedding. This loss does not see the
            mean of the embeddings, so that 0.05 is no sign of a collapse yet.
        least_rank: Share of the possible rank below which a warning says that few directions are used.

    Raises:
        ValueError: For fewer than 2 images, or if `every` is below 1; and before `fit` trains, if the encoder takes
            images of another size.

    Example:

    >>> monitor = CollapseMonitor(np.zeros((8, 16, 16, 3), "uint8"))
    """

    def __init__(self, images, every=1, least_deviation=0.01, least_rank=0.02):
        super().__init__(every)
        if isinstance(images, (tuple, list)) and len(images) == 2:
            images = images[0]
        check_images(images)
        count = _count(images)
        if count is not None and count < 2:
            raise ValueError(f"`images` must be at least 2. Received: {count}")
        if isinstance(images, data.Images):
            images = data.ArrayImages(images.sample(_MONITORED)[0])
        self.images = images
        self.least_deviation = least_deviation
        self.least_rank = least_rank

    def probed(self):
        return {"images": self.images}

    def measure(self, logs):
        features = evaluation.extract_features(self.model, self.images)
        embeddings = keras.ops.convert_to_numpy(self.model.projector(features, training=False)).astype("float32")
        values = {
            name: getattr(evaluation, name)(embeddings)
            for name in ("embedding_deviation", "effective_rank", "mean_correlation")
        }
        logs.update(values)
        possible = min(len(embeddings) - 1, embeddings.shape[1])
        if values["embedding_deviation"] < self.least_deviation:
            logging.warning(
                "The embeddings collapse to a point: their deviation is %.3f of 1. Warm the learning rate up for "
                "longer or lower it, and keep the batch normalisation of the projector.",
                values["embedding_deviation"],
            )
        elif values["effective_rank"] < self.least_rank * possible:
            logging.warning(
                "The embeddings use %.1f of %d directions. Raise redundancy_weight, or lower the learning rate.",
                values["effective_rank"],
                possible,
            )
