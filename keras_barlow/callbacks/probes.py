"""An online probe."""

import keras

from keras_barlow import evaluation


class KNNProbe(keras.callbacks.Callback):
    """Adds the weighted k-NN accuracy of the frozen features to the logs, as `knn_top1`.

    Labels serve this measurement only; nothing of it reaches the training.

    Args:
        train: `(images, labels)`, the bank.
        test: `(images, labels)`.
        k: Number of neighbours.
        temperature: Of the votes.
        every: Epochs between two probes; the last epoch of `fit` is always probed.
        batch_size: Of the feature extraction.

    Raises:
        ValueError: If the bank has fewer than `k` images, or `every` is below 1.

    Example:

    >>> import numpy as np
    >>> images, labels = np.zeros((8, 16, 16, 3), "uint8"), np.arange(8) % 2
    >>> probe = KNNProbe((images, labels), (images, labels), k=2)
    """

    def __init__(self, train, test, k=200, temperature=0.1, every=1, batch_size=256):
        super().__init__()
        if not 1 <= k <= len(train[1]):
            raise ValueError(
                f"`k` must be between 1 and the number of images in the bank, {len(train[1])}. Received: k={k}"
            )
        if every < 1:
            raise ValueError(f"`every` must be at least 1 epoch. Received: every={every}")
        self.train = train
        self.test = test
        self.k = k
        self.temperature = temperature
        self.every = every
        self.batch_size = batch_size

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if (epoch + 1) % self.every and not last:
            return
        features = [
            evaluation.extract_features(self.model, images, self.batch_size) for images, _ in (self.train, self.test)
        ]
        logs["knn_top1"] = evaluation.knn_accuracy(
            features[0], self.train[1], features[1], self.test[1], self.k, self.temperature
        )
