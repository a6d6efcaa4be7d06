import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb

LOADER = """
import sys, warnings

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_barlow":
            raise ImportError("keras_barlow is not here")

sys.meta_path.insert(0, Absent())
warnings.filterwarnings("ignore")
import numpy as np
import tensorflow as tf
import tensorflow_hub as hub

path, images, output = sys.argv[1:]
images = tf.constant(np.load(images))
loaded = hub.load(path)
moving = [variable.numpy() for variable in loaded.variables]
features = loaded(images).numpy()
assert all((a == b.numpy()).all() for a, b in zip(moving, loaded.variables))
with tf.GradientTape() as tape:
    total = tf.reduce_sum(loaded(images, training=True))
gradients = tape.gradient(total, loaded.trainable_variables)
assert gradients and all(gradient is not None for gradient in gradients)
assert any((a != b.numpy()).any() for a, b in zip(moving, loaded.variables))
assert len(loaded.regularization_losses) == 1 and float(loaded.regularization_losses[0]()) > 0
np.save(output, features)
"""


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_hub_load_without_this_package_gives_the_features_of_predict(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    encoder = kb.encoders.resnet((1, 1), input_shape=(16, 16, 3), stem="small", width=4)
    encoder.trainable_weights[0].regularizer = keras.regularizers.L2(0.1)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)))
    model.compile("sgd")
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype="uint8")
    model.fit((images, images[::-1].copy()), batch_size=5, verbose=0)
    np.save(tmp_path / "images.npy", (images / 255).astype("float32"))
    assert kb.export.save_encoder(model, tmp_path / "encoder") == str(tmp_path / "encoder")
    arguments = [str(tmp_path / name) for name in ("encoder", "images.npy", "features.npy")]
    subprocess.run([sys.executable, "-c", LOADER, *arguments], check=True)
    features = np.load(tmp_path / "features.npy")
    assert features.dtype == "float32"
    tolerance = 1e-5 if policy == "float32" else 0.02
    np.testing.assert_allclose(features, model.predict(images, verbose=0), rtol=tolerance, atol=tolerance)


def test_an_encoder_that_is_not_built_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"built keras.Model.*Call the encoder"):
        kb.export.save_encoder(keras.Sequential([keras.layers.Flatten()]), tmp_path)


def test_saved_model_load_takes_any_batch_size(tmp_path):
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    loaded = tf.saved_model.load(kb.export.save_encoder(encoder, tmp_path))
    for rows in (1, 7):
        assert loaded(tf.zeros((rows, 8, 8, 3))).shape == (rows, 4)
