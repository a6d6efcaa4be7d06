"""Trains on some replicas and writes the weights: a process of its own, since one process holds one strategy.

python -m tests.replica_training REPLICAS OUTPUT.npz
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_barlow as kb

SIZE, STEPS, WEIGHT = 8, 4, 0.05
FORMS = ("feature", "batch")
# Name, form of the loss, micro-batches; every network without statistics of the batch takes any number of them.
RUNS = [("batch_norm", form, 1) for form in FORMS] + [
    ("group_norm", form, steps) for form in FORMS for steps in (1, 2, 4)
]


def pairs(rows=16):
    """Pairs whose rows differ systematically: later rows, and thus replicas, differ in brightness and contrast."""
    rng = np.random.default_rng(0)
    level = np.linspace(20, 160, rows).reshape(-1, 1, 1, 1)
    spread = np.linspace(10, 90, rows).reshape(-1, 1, 1, 1)
    shared = rng.uniform(0, 1, (rows, SIZE, SIZE, 3))
    return tuple((level + spread * (shared + 0.3 * rng.normal(size=shared.shape))).astype("float32") for _ in "ab")


def networks(kind):
    """Encoder and projector made of Keras layers, except for the batch normalization."""
    layers = keras.layers
    if kind == "batch_norm":
        encoder = kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=6, synchronized=True)
        return encoder, kb.Projector((12, 10), synchronized=True)
    encoder = [keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 64, offset=-1)]
    encoder += [layers.Conv2D(8, 3, kernel_regularizer=keras.regularizers.L2(0.01)), layers.GroupNormalization(4)]
    encoder += [layers.ReLU(), layers.GlobalAveragePooling2D()]
    return keras.Sequential(encoder), keras.Sequential(
        [keras.Input((8,)), layers.Dense(12), layers.ReLU(), layers.Dense(10)]
    )


def model(kind, form, accumulation_steps):
    keras.utils.set_random_seed(3)
    encoder, projector = networks(kind)
    loss = kb.losses.BarlowTwinsLoss(WEIGHT, form=form)
    model = kb.BarlowTwins(encoder, projector, loss=loss, accumulation_steps=accumulation_steps)
    model.compile(keras.optimizers.SGD(0.01))
    return model


def trained_weights(kind, form, accumulation_steps, strategy=None):
    """Every weight, moving statistics included, after four steps on one batch."""
    dataset = tf.data.Dataset.from_tensors((pairs(),)).unbatch().batch(16, drop_remainder=True)
    if strategy is None:
        trained = model(kind, form, accumulation_steps)
    else:
        with strategy.scope():
            trained = model(kind, form, accumulation_steps)
    trained.fit(dataset.repeat(STEPS), verbose=0)
    return [weight.numpy() for weight in trained.weights]


def images(rows=16):
    """Photo-like images, the same in each row, so that only what is drawn differs."""
    smooth = keras.ops.image.resize(np.random.default_rng(1).uniform(0, 255, (1, 4, 4, 3)), (20, 20))
    return np.repeat(np.asarray(keras.ops.cast(smooth, "uint8")), rows, axis=0)


def drawn_views(compiled, strategy=None):
    """Both views of a batch from all replicas, with or without XLA."""
    layer = kb.views.barlow_twins(16, seed=5)
    apply = tf.function(layer.apply, jit_compile=compiled)

    def step(part):
        return apply(part, layer.draw(keras.ops.shape(part)[0], step=3))

    if strategy is None:
        return [view.numpy() for view in step(tf.constant(images()))]
    dataset = tf.data.Dataset.from_tensor_slices(images()).batch(16, drop_remainder=True)
    batch = next(iter(strategy.experimental_distribute_dataset(dataset)))
    parts = tf.function(lambda batch: strategy.run(step, args=(batch,)))(batch)
    return [np.concatenate(strategy.experimental_local_results(view)) for view in parts]


def main():
    replicas = int(sys.argv[1])
    tf.config.threading.set_inter_op_parallelism_threads(2 * replicas)
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    results = {}
    for run in RUNS:
        for index, weight in enumerate(trained_weights(*run, strategy)):
            results["-".join(map(str, [*run, index]))] = weight
    for compiled in (False, True):
        for name, view in zip("ab", drawn_views(compiled, strategy), strict=True):
            results[f"view-{name}-{compiled}"] = view
    np.savez(sys.argv[2], **results)


if __name__ == "__main__":
    main()
