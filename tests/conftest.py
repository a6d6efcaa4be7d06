"""Four logical CPU devices, set before TensorFlow starts, so that replicas are real."""

import gc
import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf
from PIL import Image

import keras_barlow as kb

# Replicas wait for each other, so there must be a thread for each.
tf.config.threading.set_inter_op_parallelism_threads(8)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)

# Doctests of the package that need more than the package.
NEEDS = {"keras_barlow.weights.conversion.load_torch": "torch"}


def pytest_collection_modifyitems(items):
    for item in items:
        package = NEEDS.get(item.name)
        if package and importlib.util.find_spec(package) is None:
            item.add_marker(pytest.mark.skip(reason=f"{package} is not installed"))


def pytest_collection_finish():
    """Turns the garbage collector off: it would destroy all graphs at once, which takes a minute. They need 6 GB."""
    gc.disable()


def pytest_unconfigure():
    """Hides the graphs from the collections at the end of the process."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts with the same seed, float32 and no leftover state."""
    # TensorFlow's converter for LiteRT collects garbage: hide that of the tests before. `free_memory` would, too.
    gc.freeze()
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """Runs the test in float64, where rounding cannot hide a wrong factor."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.fixture(scope="session")
def strategy():
    """`MirroredStrategy` on four logical devices.

    One for the whole process: TensorFlow numbers its groups of devices and its collectives from the start again
    with each strategy, and refuses another shape under the same number.
    """
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(4)])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small folder of images of two classes, for runs of seconds."""
    path = tmp_path_factory.mktemp("images")
    for split, (images, labels) in zip(("train", "test"), kb.data.digits(copies=1), strict=True):
        for label in (3, 4):
            (path / split / str(label)).mkdir(parents=True)
            for number, image in enumerate(images[labels == label][:20]):
                Image.fromarray(image).save(path / split / str(label) / f"{number}.png")
    return path
