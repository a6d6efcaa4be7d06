"""Trains the `digits` recipe for one epoch with plain SGD, on replicas or workers, and saves weights and losses.

python tests/digits_epoch.py REPLICAS PRECISION RATE OUTPUT.npz
python -m keras_barlow.launch --workers=2 tests/digits_epoch.py 1 PRECISION RATE OUTPUT.npz
"""

import dataclasses
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_barlow as kb


def main(replicas, precision, rate, output):
    if int(replicas) > 1:
        tf.config.threading.set_inter_op_parallelism_threads(2 * int(replicas))
        devices = [tf.config.LogicalDeviceConfiguration()] * int(replicas)
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = kb.distribution.get_strategy("mirrored" if int(replicas) > 1 else "auto")
    (train, _), _ = kb.data.digits()
    recipe = dataclasses.replace(kb.recipes.DIGITS, epochs=1, precision=precision)
    with strategy.scope():
        model = recipe.build(len(train), seed=0)
        model.compile(keras.optimizers.SGD(float(rate)))
    start = [weight.numpy() for weight in model.trainable_weights]
    losses = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    model.fit(kb.data.ArrayImages(train).batches(recipe.batch_size, seed=0), verbose=0, callbacks=[record])
    if kb.distribution.is_chief(strategy):
        weights = {f"weight{number}": weight.numpy() for number, weight in enumerate(model.trainable_weights)}
        starts = {f"start{number}": weight for number, weight in enumerate(start)}
        np.savez(output, losses=losses, replicas=strategy.num_replicas_in_sync, **weights, **starts)
    kb.distribution.agreement(strategy)(False)


if __name__ == "__main__":
    main(*sys.argv[1:])
