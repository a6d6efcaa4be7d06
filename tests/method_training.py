"""Trains every method for four steps on batches of 28 and 25 images: `python -m tests.method_training 2 out.npz`.

Two replicas need a separate process, because one process holds one strategy; so does JAX (`KERAS_BACKEND=jax`, with 1
instead of 2). Further arguments are methods; without any, all of them are trained.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import dtypes

import keras_barlow as kb
from tests import one_tape

SIZE, ROWS, BATCH, WIDTH = 8, 53, 28, 8
layers = keras.layers

METHODS = {
    "VICReg": {},
    "SimCLR": {},
    "BYOL": {"momentum": 0.9, "total_steps": 6},
    "SimSiam": {},
    # 40 is no multiple of the batch, and smaller than two batches.
    "MoCo": {"momentum": 0.9, "queue_size": 40},
    "SwAV": {"num_prototypes": 5, "frozen_steps": 2},
    "BarlowTwins": {"mixup": 5.0, "loss": kb.losses.BarlowTwinsLoss(0.05)},
}


def views(seed):
    """Random images that get brighter with the row, so that replicas get different data."""
    noise = np.random.default_rng(seed).integers(0, 128, (ROWS, SIZE, SIZE, 3))
    return (noise + np.linspace(0, 127, ROWS).reshape(-1, 1, 1, 1)).astype("float64")


def encoder():
    """An encoder without batch statistics, for which micro-batches are exact."""
    chain = [
        keras.Input((SIZE, SIZE, 3)),
        layers.Rescaling(1 / 64, offset=-1),
        layers.Conv2D(6, 3, kernel_regularizer=keras.regularizers.L2(one_tape.WEIGHT_DECAY)),
        layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential(chain)


def build(name, views=None, **arguments):
    """A compiled model of a method, from the same initial weights every time."""
    keras.utils.set_random_seed(1)
    if name in ("BYOL", "SimSiam"):
        arguments.setdefault("predictor", layers.Dense(WIDTH))
    model = getattr(kb, name)(encoder(), layers.Dense(WIDTH), views=views, **{**METHODS[name], **arguments})
    model.compile(keras.optimizers.SGD(one_tape.RATE))
    set_initial_values(model)
    return model


def set_initial_values(model):
    """Random values from NumPy, so that they do not depend on the engine."""
    rng = np.random.default_rng(1)
    for variable in [*model.trainable_variables, *([model.queue] if hasattr(model, "queue") else [])]:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(size=variable.shape) / np.sqrt(np.prod(variable.shape[:-1])))
    for copy, network in zip(getattr(model, "target", None) or (), (model.encoder, model.projector), strict=False):
        copy.set_weights(network.get_weights())


def dataset():
    return tf.data.Dataset.from_tensor_slices(((views(0), views(1)),)).batch(BATCH)


def plain(name):
    """What an independent implementation makes of the four steps."""
    batches = [(a, b) for ((a, b),) in dataset()] * 2
    return one_tape.train(build(name), batches)


def trained(name, **arguments):
    """What the model makes of the four steps, by the names of `one_tape.State.result`."""
    model = build(name, **arguments)
    model.fit(dataset(), epochs=2, verbose=0)
    return one_tape.State(model).result()


def main(replicas, path, names):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    if keras.backend.backend() == "jax":
        # Keras computes in float32 on JAX, also where JAX has 64-bit numbers.
        dtypes.BIT64_TO_BIT32_DTYPE.clear()
        np.savez(path, **results(names))
        return
    tf.config.threading.set_inter_op_parallelism_threads(2 * replicas)
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    with tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)]).scope():
        np.savez(path, **results(names))


def results(names):
    """What all models make of the four steps, by method, number of micro-batches and name."""
    arrays = {}
    for name in names or METHODS:
        for micro_batches in (1, 2, 4):
            result = trained(name, accumulation_steps=micro_batches)
            arrays.update({f"{name}/{micro_batches}/{key}": value for key, value in result.items()})
    return arrays


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
