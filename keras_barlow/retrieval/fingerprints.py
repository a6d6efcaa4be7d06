"""Fingerprints that identify encoders and detect changed image files."""

import hashlib
import json
import os

import numpy as np

# Tolerated difference of features between machines and precisions, relative to the largest feature.
_TOLERANCE = 0.02
_FREE_SIZE = 64


def of_encoder(encoder):
    """Returns the fingerprint of an encoder: a digest of its weights, and its features of one picture.

    The digest changes with any bit of the weights. The features reveal differences outside the weights, such as the
    mean of the standardization or an activation function.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, including a loaded SavedModel.

    Returns:
        Dictionary that can be serialized to JSON: `weights`, a string, and `features`, a list of floats.
    """
    digest = hashlib.sha256()
    # Keras does not list the weights of a loaded SavedModel.
    frozen = [weight for layer in getattr(encoder, "layers", ()) for weight in getattr(layer, "frozen_weights", ())]
    for weight in [*encoder.get_weights(), *frozen]:
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    shape = [side or _FREE_SIZE for side in encoder.input_shape[1:]]
    picture = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype("float32")
    features = np.asarray(encoder(picture, training=False), "float32")[0]
    return {"weights": digest.hexdigest(), "features": [float(f"{value:.6g}") for value in features]}


def same_encoder(one, other):
    """Returns whether two fingerprints belong to the same encoder.

    Args:
        one: Dictionary from `of_encoder`.
        other: Dictionary from `of_encoder`.

    Returns:
        A Python boolean.
    """
    first, second = (np.array(each["features"]) for each in (one, other))
    if one["weights"] != other["weights"] or first.shape != second.shape:
        return False
    return bool(np.abs(first - second).max() <= _TOLERANCE * np.abs(first).max())


def check_encoder(gallery, encoder):
    """Raises an error unless the features of a gallery come from this encoder.

    Similarities between features of different encoders are meaningless.

    Args:
        gallery: `Gallery`. Nothing is checked if it has no description of its encoder.
        encoder: `keras.Model` from images on 0..255 to features, or a `BarlowTwins` model.

    Raises:
        ValueError: If the weights, or the features of a test picture, differ.
    """
    encoder = getattr(encoder, "encoder", encoder)
    if gallery.encoder is not None and not same_encoder(gallery.encoder, of_encoder(encoder)):
        raise ValueError(
            "Queries must come from the encoder that extracted the features. "
            f"Received: {encoder.name!r}, with other weights or settings. Load that encoder, or extract the features "
            "again with this one."
        )


def of_names(names):
    """Returns a digest of file names, in order.

    Args:
        names: List of strings.

    Returns:
        A string.
    """
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def of_files(files, names):
    """Returns a digest of the size and times of files, without reading them. For an archive, it describes the archive.

    The time of the last status change (`ctime`) is included, because unlike `mtime` it cannot be set back.

    Args:
        files: `data.files.Folder` or `Archive`.
        names: List of file names.

    Returns:
        A string.
    """
    paths = [files.path / name for name in names] if files.path.is_dir() else [files.path]
    return hashlib.sha256(json.dumps([_state(path) for path in paths]).encode()).hexdigest()


def _state(path):
    try:
        status = os.stat(path)
    # Reading the file later reports that it is missing.
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
