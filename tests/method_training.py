"""Trains every method for four steps on batches of 28 and 25 images: `python tests/method_training.py 2 out.npz`.

Two replicas need a separate process, because one process holds one strategy.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

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
    return model


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


def main(replicas, path):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    tf.config.threading.set_inter_op_parallelism_threads(2 * replicas)
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    arrays = {}
    with tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)]).scope():
        for name in METHODS:
            for micro_batches in (1, 2, 4):
                result = trained(name, accumulation_steps=micro_batches)
                arrays.update({f"{name}/{micro_batches}/{key}": value for key, value in result.items()})
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
