"""Extraction of features from a collection of image files, in parts that can be resumed."""

import json
import pathlib
import time

import keras
import numpy as np

from keras_barlow.evaluation.features import check_images
from keras_barlow.retrieval import fingerprints, storage
from keras_barlow.whole_files import UNFINISHED, replacing

_PART = 4096


def extract(encoder, images, path, batch_size=256, verbose=1):
    """Writes the features of all images to a file, and resumes an interrupted extraction.

    After every 4,096 images, a part is written to the folder `path.parts`, which is deleted at the end. A part is
    reused if neither the encoder nor its image files have changed. An encoder is identified by its weights and its
    features of a test picture, a file by its size and times.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, or a `BarlowTwins` model with such an encoder.
        images: `data.FileImages`, from `data.every_image`. Images are cropped at the center to the encoder's size.
        path: File to write. `.npz` holds the arrays `names`, `features` and `encoder` (a description of the encoder as
            JSON). `.parquet` holds the columns `names` and `features` and the metadata `encoder`, and needs pyarrow.
        batch_size: Number of images per batch.
        verbose: 1 shows a progress bar and the images per second, 0 shows nothing.

    Returns:
        `path`.

    Raises:
        ValueError: If `path` has another suffix, the encoder does not accept the images, a feature is not finite, or
            the folder of parts belongs to other images or another encoder.
        ImportError: If pyarrow is needed and not installed.
    """
    path = pathlib.Path(path).expanduser()
    write = storage.writer(path)
    if path.is_dir():
        raise ValueError(f"The output must be a file. Received: {path}, a folder. Choose another path, or delete it.")
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
        # The name depends on the state of the files before they are read, so outdated parts are not found.
        files.append(parts / f"{start:09d}-{fingerprints.of_files(part.files, part.names)[:16]}.npy")
        if not files[-1].exists():
            features = _features(encoder, part, batch_size)
            with replacing(files[-1]) as unfinished, open(unfinished, "wb") as file:
                np.save(file, features)
            extracted += len(part)
        bar.update(start + len(part))
    if verbose and extracted:
        print(f"{extracted} images, {extracted / (time.time() - began):.0f} per second")
    with replacing(path) as unfinished:
        write(unfinished, images.names, files, fingerprint)
    # A killed run may have left an unfinished part.
    for file in [*parts.glob("*.npy"), *parts.glob(f"*{UNFINISHED}"), parts / "settings.json"]:
        file.unlink()
    parts.rmdir()
    return path


def _checked_encoder(encoder, images):
    """Returns the encoder, if it accepts the images and there is at least one."""
    if not hasattr(images, "names") or not len(images):
        raise ValueError(
            "`images` must contain image files. "
            f"Received: {'none' if hasattr(images, 'names') else type(images).__name__}. Pass "
            "data.every_image(folder, image_size)."
        )
    shape, features = encoder.input_shape, encoder.output_shape
    if not isinstance(features, tuple) or len(features) != 2 or len(shape) != 4 or shape[3] not in (None, 3):
        raise ValueError(
            "The encoder must map images (batch, height, width, 3) to features (batch, features). "
            f"Received: {encoder.name!r} from {shape} to {features}. End it with GlobalAveragePooling2D, and begin it "
            "with a layer that converts RGB to its number of channels."
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
                f"Names in a .parquet file must be UTF-8. Received: {name!r}. Rename the file, or write .npz."
            ) from error


def _features(encoder, images, batch_size):
    batches = images.in_order(batch_size, crop=encoder.input_shape[1])
    features = np.concatenate([np.asarray(encoder.predict_on_batch(batch), "float32") for batch in batches])
    rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(rows):
        raise ValueError(
            f"Features must be finite. Received: NaN or infinite values for {len(rows)} of {len(features)} images, "
            f"such as {images.names[rows[0]]}. Check the encoder's weights and moving statistics."
        )
    return features


def _claim(parts, settings, fingerprint):
    """Creates the folder of parts, or checks that an existing one has the same settings and encoder."""
    file = parts / "settings.json"
    if file.exists():
        existing = json.loads(file.read_text())
        encoder = existing.pop("encoder", None)
        if existing != settings or not isinstance(encoder, dict) or not fingerprints.same_encoder(encoder, fingerprint):
            raise ValueError(
                "An extraction resumes only with the same images and encoder. Received: parts of other images or of "
                f"another encoder, in {parts}. Choose another output, or delete that folder."
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        unfinished.write_text(json.dumps({**settings, "encoder": fingerprint}))
