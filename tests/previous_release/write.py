"""Writes the files that tests/test_previous_release.py loads. Run it with the release before a change and the
lowest supported versions of Keras and TensorFlow, which every later version reads, and commit them.

    python tests/previous_release/write.py tests/previous_release

The checkpoint is that of a run of 4 epochs that ends after 2; `expected.npz` has what every file must give.
"""

import pathlib
import shutil
import sys
import tempfile

import keras
import numpy as np

import keras_barlow as kb

SIZE, ROWS, BATCH_SIZE = 8, 16, 8


def images():
    return np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), dtype="uint8")


def parts():
    keras.utils.set_random_seed(1)
    encoder = kb.encoders.resnet((1,), input_shape=(SIZE, SIZE, 3), stem="small", width=4)
    return encoder, kb.Projector((6, 6)), kb.views.barlow_twins(SIZE, seed=1)


def plain():
    model = kb.BarlowTwins(*parts(), loss=kb.losses.BarlowTwinsLoss(0.02), skip_nonfinite=True)
    model.compile(kb.optimizers.LARS(0.1, weight_decay=1e-4))
    return model


def asymmetric():
    """Every argument that is not at its default."""
    loss = kb.losses.BarlowTwinsLoss(0.5, 1e-4, "feature", "bfloat16", 0.9, "feature", temperature=0.5)
    model = kb.BarlowTwins(
        *parts(),
        loss=loss,
        accumulation_steps=2,
        predictor=kb.Projector((6, 6)),
        stop_gradient=True,
        moving_average=0.9,
    )
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def backbone():
    keras.utils.set_random_seed(2)
    layers = [keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(5, 3), keras.layers.BatchNormalization()]
    return kb.normalization.synchronize_batch_norm(kb.encoders.with_standardization(keras.Sequential(layers)))


def resumable(folder, epochs):
    model = kb.BarlowTwins(*parts())
    model.compile(kb.optimizers.LARS(0.05))
    batches = kb.data.ArrayImages(images()).batches(BATCH_SIZE, seed=3)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[kb.callbacks.Checkpoints(folder, keep=1)])
    return model


def main(folder):
    expected = {"images": images()}
    for name, model in (("plain", plain()), ("asymmetric", asymmetric())):
        model.fit(images(), batch_size=BATCH_SIZE, epochs=1, verbose=0)
        model.save(folder / f"{name}.keras")
        expected[name] = model.predict(images(), verbose=0)
        expected[f"{name}_embeddings"] = keras.ops.convert_to_numpy(model.project(images().astype("float32")))
        expected[f"{name}_loss"] = model.evaluate(images(), batch_size=BATCH_SIZE, verbose=0, return_dict=True)["loss"]
    encoder = backbone()
    encoder.save(folder / "backbone.keras")
    expected["backbone"] = encoder.predict(images(), verbose=0)
    model = plain()
    labels = np.arange(ROWS) % 2
    head = kb.export.linear_head(model.predict(images(), verbose=0), labels, ["even", "odd"])
    kb.export.save_encoder(model, folder / "encoder", classifier=head)
    expected["encoder"] = model.predict(images(), verbose=0)
    kb.gallery.extract(
        kb.load_encoder(folder / "encoder"),
        kb.data.every_image(written_images(folder / "pictures"), SIZE),
        folder / "gallery.npz",
    )
    resumable(folder / "checkpoints", epochs=2)
    with tempfile.TemporaryDirectory() as other:
        whole = resumable(pathlib.Path(other) / "run", epochs=4)
    expected |= {f"resumed_{number:02d}": weight for number, weight in enumerate(whole.get_weights())}
    np.savez_compressed(folder / "expected.npz", **expected)


def written_images(folder):
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, image in enumerate(images()[:4]):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
