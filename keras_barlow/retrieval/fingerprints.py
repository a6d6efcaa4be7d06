"""What tells one encoder from another, and an image file from what it was before."""

import hashlib
import json
import os

import numpy as np

# How far features of one picture may differ between machines and precisions, as a share of the largest.
_TOLERANCE = 0.02
_FREE_SIZE = 64


def of_encoder(encoder):
    """The fingerprint of an encoder: a digest of its weights, and its features of one picture.

    The digest tells apart weights that differ in any bit. The features tell apart what weights do not show, such as
    the mean of the standardization or an activation.

    Args:
        encoder: `keras.Model` from images on 0..255 to features, a loaded SavedModel too.

    Returns:
        A dictionary for JSON: `weights`, a string, and `features`, a list of floats.
    """
    digest = hashlib.sha256()
    # The weights of a SavedModel are not among those that Keras knows.
    frozen = [weight for layer in getattr(encoder, "layers", ()) for weight in getattr(layer, "frozen_weights", ())]
    for weight in [*encoder.get_weights(), *frozen]:
        digest.update(str((weight.shape, weight.dtype)).encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    shape = [side or _FREE_SIZE for side in encoder.input_shape[1:]]
    picture = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype("float32")
    features = np.asarray(encoder(picture, training=False), "float32")[0]
    return {"weights": digest.hexdigest(), "features": [float(f"{value:.6g}") for value in features]}


def same_encoder(one, other):
    """Whether two fingerprints are of one encoder.

    Args:
        one: Dictionary of `of_encoder`.
        other: Dictionary of `of_encoder`.

    Returns:
        A bool.
    """
    first, second = (np.array(each["features"]) for each in (one, other))
    if one["weights"] != other["weights"] or first.shape != second.shape:
        return False
    return bool(np.abs(first - second).max() <= _TOLERANCE * np.abs(first).max())


def check_encoder(gallery, encoder):
    """Refuses an encoder that the features of a gallery are not of: similarities to its features mean nothing.

    Args:
        gallery: `Gallery`. Nothing is checked where it does not know its encoder.
        encoder: `keras.Model` from images on 0..255 to features, or a `BarlowTwins` model.

    Raises:
        ValueError: If the weights or the features of a test picture differ.
    """
    encoder = getattr(encoder, "encoder", encoder)
    if gallery.encoder is not None and not same_encoder(gallery.encoder, of_encoder(encoder)):
        raise ValueError(
            "Queries must be of the encoder that the features are of. "
            f"Received: {encoder.name!r}, with other weights or settings. Load the encoder that the features were "
            "extracted with, or extract them again with this one."
        )


def of_names(names):
    """A digest of the names of files, in order.

    Args:
        names: List of strings.

    Returns:
        A string.
    """
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def of_files(files, names):
    """A digest of the state of files, without reading them: size and times; of an archive its own.

    The time of the last change (`ctime`) cannot be set back as that of the last modification can.

    Args:
        files: `data.files.Folder` or `Archive`.
        names: List of strings, the files in question.

    Returns:
        A string.
    """
    paths = [files.path / name for name in names] if files.path.is_dir() else [files.path]
    return hashlib.sha256(json.dumps([_state(path) for path in paths]).encode()).hexdigest()


def _state(path):
    try:
        known = os.stat(path)
    # Reading it later reports that it is gone.
    except OSError:
        return None
    return (known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino)
