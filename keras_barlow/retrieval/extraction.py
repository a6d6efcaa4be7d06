"""Features of a collection of image files, written part by part."""

import json
import os
import pathlib
import time

import keras
import numpy as np

from keras_barlow.evaluation.input_checks import check_images
from keras_barlow.retrieval import fingerprints, storage

_PART = 4096


def extract(encoder, images, path, batch_size=256, verbose=1):
    """Writes the features of all images to a file. Called again, it resumes where it stopped.

    Every 4,096 images what is there goes to the folder `path.parts`, which is removed at the end. A part is used again
    if the encoder and the files that it is of have not changed since; an encoder is known by its weights and by its
    features of a picture, a file by its size and times.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, or a `BarlowTwins` model with such an encoder.
        images: `data.FileImages`, of `data.every_image`; their center in the encoder's size is taken.
        path: File to write: `.npz` with the arrays `names`, `features` and `encoder`, what is known of the encoder as
            JSON; or `.parquet` with the columns `names` and `features` and the metadata `encoder`, for which pyarrow
            must be installed.
        batch_size: Images at a time.
        verbose: 1 for a progress bar and the images per second, 0 for silence.

    Returns:
        `path`.

    Raises:
        ValueError: If the file has another ending, the encoder does not take the images, its features are not finite,
            or the folder holds parts of other images or another encoder.
        ImportError: If pyarrow is needed and not installed.
    """
    path = pathlib.Path(path).expanduser()
    write = storage.writer(path)
    if path.is_dir():
        raise ValueError(f"The output must be a file. Received: {path}, a folder. Choose another, or delete it.")
    encoder = _checked_encoder(getattr(encoder, "encoder", encoder), images)
    _check_names(images.names, path)
    fingerprint = fingerprints.of_encoder(encoder)
    parts = path.with_name(f"{path.name}.parts")
    _claim(parts, {"names": fingerprints.of_names(images.names), "size": images.image_size}, fingerprint)
    bar = keras.utils.Progbar(len(images), unit_name="image", verbose=verbose)
    began, extracted = time.time(), 0
    files = []
    for start in range(0, len(images), _PART):
        part = images.take(np.arange(start, min(start + _PART, len(images))))
        # Named by the state of its images before they are read: a part of images that have changed is not found.
        files.append(parts / f"{start:09d}-{fingerprints.of_files(part.files, part.names)[:16]}.npy")
        if not files[-1].exists():
            with open(parts / "unfinished", "wb") as file:
                np.save(file, _features(encoder, part, batch_size))
            os.replace(parts / "unfinished", files[-1])
            extracted += len(part)
        bar.update(start + len(part))
    if verbose and extracted:
        print(f"{extracted} images, {extracted / (time.time() - began):.0f} a second")
    unfinished = path.with_name(f"{path.name}.unfinished")
    write(unfinished, images.names, files, fingerprint)
    os.replace(unfinished, path)
    for file in [*parts.glob("*.npy"), parts / "settings.json"]:
        file.unlink()
    parts.rmdir()
    return path


def _checked_encoder(encoder, images):
    """The encoder, if it takes the images and there are any."""
    if not hasattr(images, "names") or not len(images):
        raise ValueError(
            "There must be image files. "
            f"Received: {'none' if hasattr(images, 'names') else type(images).__name__}. Pass "
            "data.every_image(folder, image_size)."
        )
    shape, features = encoder.input_shape, encoder.output_shape
    if not isinstance(features, tuple) or len(features) != 2 or len(shape) != 4 or shape[3] not in (None, 3):
        raise ValueError(
            "The encoder must map images (batch, height, width, 3) to features (batch, features). "
            f"Received: {encoder.name!r} from {shape} to {features}. End it with GlobalAveragePooling2D, and begin it "
            "with a layer that makes its channels from the three of a picture."
        )
    check_images(images, encoder)
    return encoder


def _check_names(names, path):
    if path.suffix.lower() != ".parquet":
        return
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Names in a .parquet file must be UTF-8. Received: {name!r}. Rename that file, or write .npz."
            ) from error


def _features(encoder, images, batch_size):
    batches = images.in_order(batch_size, crop=encoder.input_shape[1])
    features = np.concatenate([np.asarray(encoder.predict_on_batch(batch), "float32") for batch in batches])
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"Features must be finite. Received: NaN or infinite values for {len(wrong)} of {len(features)} images, "
            f"such as {images.names[wrong[0]]}. Look for them in the encoder's weights and moving statistics."
        )
    return features


def _claim(parts, settings, fingerprint):
    """The folder for the parts, of these settings and no others."""
    file = parts / "settings.json"
    if file.exists():
        known = json.loads(file.read_text())
        encoder = known.pop("encoder", None)
        if known != settings or not isinstance(encoder, dict) or not fingerprints.same_encoder(encoder, fingerprint):
            raise ValueError(
                f"Parts of other images, or of another encoder, are in {parts}. Received: another run with the same "
                "output. Choose another, or delete that folder."
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    unfinished = parts / "settings.unfinished"
    unfinished.write_text(json.dumps({**settings, "encoder": fingerprint}))
    unfinished.rename(file)
