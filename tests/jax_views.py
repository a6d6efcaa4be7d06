"""What JAX makes of a few things, for comparison with TensorFlow: `python -m tests.jax_views out.npz`."""

import importlib
import sys

import keras
import numpy as np

import keras_barlow as kb

SIZE = 16


def images():
    return np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), dtype="uint8")


def views(step):
    """Two views with every transform."""
    return kb.views.barlow_twins(SIZE, seed=3, blur=(1.0, 0.5), solarization=(0.0, 0.5))(images(), step=step)


def model():
    encoder = kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=4)
    made = kb.BarlowTwins(encoder, kb.Projector((4, 4)), kb.views.barlow_twins(SIZE, seed=0), accumulation_steps=2)
    made.compile(keras.optimizers.Adam(1e-3))
    return made


def main(path):
    arrays = {f"{step}/{number}": view for step in (-1, 5) for number, view in enumerate(views(step))}
    made = model()
    made.optimizer.build(made.trainable_variables)
    groups = made.trainable_variables, made.non_trainable_variables, made.optimizer.variables, made.metrics_variables
    state = tuple([variable.value for variable in group] for group in groups)
    program = importlib.import_module("jax").jit(made.train_step).lower(state, (images(),)).as_text()
    history = made.fit(images(), batch_size=4, epochs=2, verbose=0).history
    texts = {"program": program, "loss": history["loss"], "count": int(made.batch_count)}
    np.savez(path, **arrays, **{name: np.array(value) for name, value in texts.items()})


if __name__ == "__main__":
    main(sys.argv[1])
