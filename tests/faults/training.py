"""The run that the fault tests interrupt: some seconds of small steps, a checkpoint after each.

python tests/faults/training.py CHECKPOINTS RESULT.npz
python -m keras_barlow.launch --workers=2 tests/faults/training.py CHECKPOINTS RESULT.npz
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_barlow as kb

EPOCHS, STEPS, BATCH = int(os.environ.get("EPOCHS", "25")), 8, 16


def main(folder, result):
    strategy = kb.distribution.get_strategy()
    chief = kb.distribution.is_chief(strategy)
    images = np.random.default_rng(0).integers(0, 256, (STEPS * BATCH + 3, 10, 10, 3), dtype="uint8")
    keras.utils.set_random_seed(3)
    with strategy.scope():
        encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=8, synchronized=True)
        # Wide, so that writing a checkpoint takes as long as a step and many kills interrupt it.
        model = kb.BarlowTwins(encoder, kb.Projector((512, 512), synchronized=True), kb.views.barlow_twins(8, seed=0))
        model.compile(keras.optimizers.Adam(1e-3))
    checkpoints = kb.callbacks.Checkpoints(folder, every=1)
    print("fit", flush=True)
    try:
        model.fit(kb.data.ArrayImages(images).batches(BATCH, seed=2), epochs=EPOCHS, verbose=0, callbacks=[checkpoints])
    except (OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    state = kb.checkpoint.state_of(model)
    if chief and not checkpoints.interrupted:
        # Several threads sum the logged loss in varying order. Training does not depend on it.
        np.savez(result, **{name: array for name, array in state.items() if not name.startswith("metrics/")})
    kb.distribution.agreement(strategy)(False)


if __name__ == "__main__":
    main(*sys.argv[1:])
