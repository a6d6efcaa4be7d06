"""Trains on some workers, or in one process, and writes the weights.

python -m keras_barlow.launch --workers=2 tests/worker_training.py OUTPUT.npz CHECKPOINTS [STEP_OF_THE_CRASH]
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_barlow as kb


class Crash(keras.callbacks.Callback):
    """Worker 1 kills itself after some steps."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0 and not kb.distribution.is_chief(self.model.distribute_strategy):
            os.kill(os.getpid(), 9)


def main(output, folder, step=None):
    strategy = kb.distribution.get_strategy()
    images = np.random.default_rng(0).integers(0, 256, (32, 10, 10, 3), dtype="uint8")
    keras.utils.set_random_seed(3)
    with strategy.scope():
        encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4, synchronized=True)
        projector = kb.Projector((8, 8), synchronized=True)
        model = kb.BarlowTwins(encoder, projector, kb.views.barlow_twins(8, seed=0))
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    try:
        saver = keras.callbacks.ModelCheckpoint(f"{folder}/model.keras")
        model.fit(kb.data.ArrayImages(images).batches(8), callbacks=[saver], epochs=0, verbose=0)
        refused = False
    except ValueError as error:
        refused = "Every worker needs its own path" in str(error)
    # Every worker has a folder of its own: only the chief's is read.
    folder = os.path.join(folder, str(kb.distribution.worker_index(strategy)))
    extra = [Crash(int(step))] if step else []
    model.fit(
        kb.data.ArrayImages(images).batches(8, seed=2),
        epochs=3,
        verbose=0,
        callbacks=[kb.callbacks.Checkpoints(folder, every=1), *extra],
    )
    features = model.predict(images[:7, :8, :8], verbose=0)
    if kb.distribution.is_chief(strategy):
        weights = {str(number): weight.numpy() for number, weight in enumerate(model.weights)}
        np.savez(output, features=features, refused=refused, **weights)
    kb.distribution.agreement(strategy)(False)


if __name__ == "__main__":
    main(*sys.argv[1:])
