"""Online probes of the quality and the collapse of features during training."""

import keras
import numpy as np
from absl import logging

from keras_barlow import data, evaluation, labels
from keras_barlow.evaluation.input_checks import check_images, check_votes, checked_feature_sets

# Number of images that the collapse monitor samples evenly from data.Images.
_MONITORED = 1024


class _Probe(keras.callbacks.Callback):
    """A measurement at the end of every `every` epochs and of the last epoch.

    Args:
        every: Number of epochs between two measurements.
    """

    def __init__(self, every):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1 epoch. Received: every={every}")
        self.every = every

    def set_model(self, model):
        """Checks the images before training, when Keras sets the model."""
        super().set_model(model)
        for name, images in self.probed().items():
            check_images(images, model, name)

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if (epoch + 1) % self.every == 0 or last:
            self.measure(logs)

    def probed(self):
        """Returns a dictionary from argument names to the images to measure on."""
        raise NotImplementedError

    def measure(self, logs):
        """Adds the measurement to the logs."""
        raise NotImplementedError


class _LabeledProbe(_Probe):
    """A probe that needs the features of labeled images."""

    def __init__(self, train, test, every, batch_size):
        super().__init__(every)
        images, numbers = _pair(train, "train")
        # With a single class, every prediction would be correct.
        self.train = images, labels.checked_labels(numbers, _count(images), "train", least_classes=2)
        images, numbers = _pair(test, "test")
        self.test = images, labels.checked_test_labels(numbers, self.train[1], _count(images), "test")
        for name, images in self.probed().items():
            check_images(images, name=name)
        self.batch_size = batch_size

    def probed(self):
        return {"train": self.train[0], "test": self.test[0]}

    def features(self):
        """Returns the training features, the training labels and the test features."""
        images = self.probed().values()
        features = [evaluation.extract_features(self.model, part, self.batch_size) for part in images]
        return checked_feature_sets(features[0], self.train[1], features[1])


class KNNProbe(_LabeledProbe):
    """Logs the weighted k-NN accuracy of the frozen features as `knn_top1`.

    Labels are used for this measurement only, never for training.

    Args:
        train: Images of the bank: `data.Images` with labels, or a pair `(images, labels)`. The images of a pair are an
            array, `data.Images`, or a batched `tf.data.Dataset` in the order of the labels. `data.Images` are
            center-cropped.
        test: Images to classify: `data.Images` with labels, or a pair `(images, labels)`.
        k: Number of neighbors.
        temperature: Softmax temperature of the votes.
        every: Number of epochs between two probes. The last epoch of `fit` is always probed.
        batch_size: Images per batch during feature extraction.

    Raises:
        ValueError: If labels are missing or invalid, the numbers of images and labels differ, the bank has fewer than
            `k` images, or `every` is below 1. At the start of `fit`, if the images have the wrong size.

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


class LinearProbe(_LabeledProbe):
    """Trains a linear head alongside the encoder and logs its accuracy as `linear_top1` and `linear_top5`.

    The head is trained on frozen features in inference mode and does not affect the encoder. It keeps its weights
    between measurements, and `Checkpoints` saves them.

    Args:
        train: Images to train the head on: `data.Images` with labels, or a pair `(images, labels)`. The images of a
            pair are an array, `data.Images`, or a batched `tf.data.Dataset` in the order of the labels. `data.Images`
            are center-cropped.
        test: Images to classify: `data.Images` with labels, or a pair `(images, labels)`.
        passes: Number of passes over the training features per measurement.
        learning_rate: Learning rate of Adam, which trains the head on standardized features.
        every: Number of epochs between two measurements. The last epoch of `fit` is always measured.
        batch_size: Images per batch during feature extraction, and rows per training step of the head.

    Raises:
        ValueError: If labels are missing or invalid, the numbers of images and labels differ, or `every` or `passes` is
            below 1. At the start of `fit`, if the images have the wrong size.

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
        """Returns the state of the head, for `Checkpoints`."""
        return None if self._head is None else dict(vars(self._head))

    def set_state(self, state):
        """Restores the head from `get_state`.

        Args:
            state: Return value of `get_state`.
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
        train, test = ((features - mean) / deviation for features in (train, test))
        if self._head is None:
            self._head = _Softmax(train.shape[1], int(train_labels.max()) + 1, self.learning_rate)
        for _ in range(self.passes):
            self._head.train(train, train_labels, self.batch_size)
        scores = self._head.scores(test)
        for k in (1, 5):
            logs[f"linear_top{k}"] = evaluation.top_k_accuracy(scores, self.test[1], k)


def _moments(features):
    """Returns the mean and standard deviation of each feature, with 1 for the deviation of constant features.

    Dividing by the rounding error of a constant feature would amplify tiny differences in the test images.
    """
    mean, deviation = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64")
    constant = deviation <= 10 * np.finfo("float32").eps * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation + 1e-6)


def _pair(argument, name):
    """Returns the pair `(images, labels)`."""
    if isinstance(argument, data.Images):
        return argument, argument.labels
    if isinstance(argument, (tuple, list)) and len(argument) == 2:
        return tuple(argument)
    check_images(argument, name=name)
    raise ValueError(
        "A probe needs images and their labels. "
        f"Received: {type(argument).__name__} for `{name}`. Pass (images, labels), or data.Images with labels."
    )


def _count(images):
    """Returns the number of images if it is known without reading them, else None."""
    if isinstance(images, data.Images) or hasattr(images, "shape"):
        return len(images)
    return None


class _Softmax:
    """Softmax regression trained with Adam, in NumPy because a Keras model would be traced under a strategy."""

    def __init__(self, features, classes, learning_rate):
        self.weights = np.zeros((features + 1, classes))
        self.moments = [np.zeros_like(self.weights), np.zeros_like(self.weights)]
        self.learning_rate = learning_rate
        self.steps = 0

    def scores(self, features):
        return features @ self.weights[:-1] + self.weights[-1]

    def train(self, features, labels, batch_size):
        """Trains for one pass over the rows in a random order."""
        order = np.random.default_rng(self.steps).permutation(len(labels))
        for start in range(0, len(labels), batch_size):
            rows = order[start : start + batch_size]
            scores = self.scores(features[rows])
            error = np.exp(scores - scores.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(len(rows)), labels[rows]] -= 1.0
            gradient = np.concatenate([features[rows].T @ error, error.sum(axis=0, keepdims=True)]) / len(rows)
            self.steps += 1
            for index, (value, keep) in enumerate(((gradient, 0.9), (gradient**2, 0.999))):
                self.moments[index] = keep * self.moments[index] + (1 - keep) * value
            mean, square = (m / (1 - k**self.steps) for m, k in zip(self.moments, (0.9, 0.999), strict=True))
            self.weights -= self.learning_rate * mean / (np.sqrt(square) + 1e-8)


class CollapseMonitor(_Probe):
    """Logs measures of collapse, and warns with a remedy if the embeddings have nearly collapsed.

    The logs are `embedding_deviation`, `effective_rank` and `mean_correlation`, see `evaluation`. They are measured in
    inference mode on the same images every time, without augmentation.

    Args:
        images: Several hundred images, as an array, a batched `tf.data.Dataset`, or `data.Images`, of which up to 1,024
            are sampled and center-cropped. The embeddings can reach full rank only with more images than features. A
            pair `(images, labels)` also works; its labels are ignored.
        every: Number of epochs between two measurements. The last epoch of `fit` is always measured.
        least_deviation: `embedding_deviation` below which a warning reports a collapse to a point. The loss of Barlow
            Twins does not depend on the mean of the embeddings, so 0.05 is not yet a sign of collapse.
        least_rank: Fraction of the largest possible rank below which a warning reports a low rank.

    Raises:
        ValueError: If there are fewer than 2 images or `every` is below 1. At the start of `fit`, if the images have
            the wrong size.

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
            raise ValueError(f"`images` must be at least 2 images. Received: {count}. Pass several hundred images.")
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
                "The embeddings collapse to a point: their deviation is %.3f of 1. Lower the learning rate or use a "
                "longer warmup, and keep the batch normalization of the projector.",
                values["embedding_deviation"],
            )
        elif values["effective_rank"] < self.least_rank * possible:
            logging.warning(
                "The embeddings use %.1f of %d directions. Raise redundancy_weight, or lower the learning rate.",
                values["effective_rank"],
                possible,
            )
