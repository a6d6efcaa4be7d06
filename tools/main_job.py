"""Trains, resumes, saves, exports and loads a small encoder with the installed packages, as most users do.

    python tools/main_job.py        # two CPU cores, about 30 seconds

`compatibility.py` runs it in each environment. The last line is "main job passed", or the first error.
"""

import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_barlow as kb

SIZE, CLASSES, EPOCHS, BATCH_SIZE = 16, 4, 2, 16
SERVE = """
import sys
import numpy as np, tensorflow as tf
images, features, path = np.load(sys.argv[1]), np.load(sys.argv[2]), sys.argv[3]
served = tf.saved_model.load(path)(tf.constant(images)).numpy()
np.testing.assert_allclose(served, features, rtol=1e-3, atol=1e-4)
assert "keras_barlow" not in sys.modules
"""


class Interrupt(keras.callbacks.Callback):
    """Interrupts training in the middle of the second epoch, as a crash would."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 6:
            raise InterruptedError


def labeled_images(rows, seed):
    """Creates noisy images whose brightness identifies their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    level = 40 + 50 * labels.reshape(-1, 1, 1, 1)
    return np.clip(level + rng.normal(0, 20, (rows, SIZE, SIZE, 3)), 0, 255).astype("uint8"), labels


def build():
    keras.utils.set_random_seed(1)
    encoder = kb.encoders.resnet((1, 1), input_shape=(SIZE, SIZE, 3), stem="small", width=8)
    model = kb.BarlowTwins(encoder, kb.Projector((32, 32)), kb.views.barlow_twins(SIZE, seed=1))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 8, warmup_target=0.2, warmup_steps=2)
    model.compile(kb.optimizers.LARS(learning_rate=schedule, weight_decay=1e-4))
    return model


def train(images, callbacks=()):
    model = build()
    batches = kb.data.ArrayImages(images).batches(BATCH_SIZE, seed=1)
    history = model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=list(callbacks)).history
    assert np.isfinite(history["loss"]).all(), history
    return model, history


def resume(images, folder, expected):
    """Checks that an interrupted and resumed run ends with the same weights as an uninterrupted one."""
    try:
        train(images, [Interrupt(), kb.callbacks.Checkpoints(folder, every=2)])
    except InterruptedError:
        pass
    else:
        raise AssertionError("the run was not interrupted")
    resumed, _ = train(images, [kb.callbacks.Checkpoints(folder, every=2)])
    for variable, other in zip(resumed.weights, expected.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-5, atol=1e-6, err_msg=variable.path)


def save_and_load(model, images, folder):
    features = model.predict(images, verbose=0)
    model.save(os.path.join(folder, "model.keras"))
    loaded = keras.saving.load_model(os.path.join(folder, "model.keras"))
    np.testing.assert_allclose(loaded.predict(images, verbose=0), features, rtol=1e-4, atol=1e-5)
    path = kb.export.save_encoder(model, os.path.join(folder, "encoder"))
    np.testing.assert_allclose(kb.load_encoder(path).predict(images, verbose=0), features, rtol=1e-3, atol=1e-4)
    np.save(os.path.join(folder, "images.npy"), (images / 255).astype("float32"))
    np.save(os.path.join(folder, "features.npy"), features)
    files = [os.path.join(folder, name) for name in ("images.npy", "features.npy")]
    subprocess.run([sys.executable, "-c", SERVE, *files, path], check=True)


def main():
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}"
    print(f"Python {sys.version.split()[0]}, {versions}, {os.path.dirname(kb.__file__)}", flush=True)
    (images, labels), test = labeled_images(64, 0), labeled_images(32, 1)
    probes = [kb.callbacks.KNNProbe((images, labels), test, k=5), kb.callbacks.LinearProbe((images, labels), test)]
    model, history = train(images, [*probes, kb.callbacks.CollapseMonitor(images)])
    print("trained:", {name: round(float(values[-1]), 3) for name, values in history.items()}, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        resume(images, os.path.join(folder, "checkpoints"), model)
        print("interrupted and resumed: the same weights", flush=True)
        save_and_load(model, test[0], folder)
        print("saved, exported and loaded: the same features", flush=True)
    print("main job passed", flush=True)


if __name__ == "__main__":
    main()
