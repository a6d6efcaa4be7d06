"""Features of a collection of image files: written to one file in constant memory, searched, and rid of duplicates."""

import hashlib
import json
import os
import pathlib
import time
import zipfile
from typing import NamedTuple

import keras
import numpy as np

from keras_barlow.evaluation import nearest_neighbors
from keras_barlow.evaluation.knn import unit_rows

FORMATS = (".npz", ".parquet")
_PART = 4096


class Gallery(NamedTuple):
    """Image files and their features, row by row.

    Attributes:
        names: Array of strings `(n,)`: paths relative to the collection.
        features: Float32 array `(n, features)`.
    """

    names: np.ndarray
    features: np.ndarray


def extract(encoder, images, path, batch_size=256, verbose=1):
    """Writes the features of all images to a file, and goes on where it stopped if it is called again.

    Every 4,096 images what is there goes to the folder `path.parts`, which is removed at the end.

    Args:
        encoder: `keras.Model` from images on 0..255 to features.
        images: `data.FileImages`, of `data.every_image`; their centre in the encoder's size is taken.
        path: File to write: `.npz` with the arrays `names` and `features`, or `.parquet` with columns of these names,
            for which pyarrow must be installed.
        batch_size: Images at a time.
        verbose: 1 for a progress bar and the images per second, 0 for silence.

    Returns:
        `path`.

    Raises:
        ValueError: If the file has another ending, or the folder holds parts of other images or another encoder.
        ImportError: If pyarrow is needed and not installed.
    """
    path = pathlib.Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"The file must end with one of {', '.join(FORMATS)}. Received: {path}")
    write = _write_npz if path.suffix == ".npz" else _parquet_writer()
    parts = path.with_name(f"{path.name}.parts")
    _claim(parts, {"encoder": _digest_of(encoder), "names": _digest(images.names), "size": images.image_size})
    size = encoder.input_shape[1]
    bar = keras.utils.Progbar(len(images), unit_name="image", verbose=verbose)
    began, extracted = time.time(), 0
    files = []
    for start in range(0, len(images), _PART):
        rows = np.arange(start, min(start + _PART, len(images)))
        files.append(parts / f"{start:09d}.npy")
        if not files[-1].exists():
            batches = images.take(rows).in_order(batch_size, crop=size)
            features = [np.asarray(encoder.predict_on_batch(batch), "float32") for batch in batches]
            with open(parts / "unfinished", "wb") as file:
                np.save(file, np.concatenate(features))
            os.replace(parts / "unfinished", files[-1])
            extracted += len(rows)
        bar.update(int(rows[-1]) + 1)
    if verbose and extracted:
        print(f"{extracted} images, {extracted / (time.time() - began):.0f} a second")
    unfinished = path.with_name(f"{path.name}.unfinished")
    write(unfinished, images.names, files)
    os.replace(unfinished, path)
    for file in [*files, parts / "settings.json"]:
        file.unlink()
    parts.rmdir()
    return path


def load(path):
    """Reads what `extract` wrote.

    Args:
        path: `.npz` or `.parquet` file.

    Returns:
        `Gallery`.

    Raises:
        ValueError: If it holds no names and features.
        ImportError: If pyarrow is needed and not installed.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".parquet":
            table = _pyarrow().parquet.read_table(path)
            columns = table["features"].combine_chunks()
            features = columns.flatten().to_numpy().reshape(len(table), -1)
            return Gallery(np.array(table["names"].to_pylist()), features)
        # np.load leaves a file open that it cannot read.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return Gallery(file["names"], file["features"])
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"The file must hold names and features, as gallery.extract writes them. Received: {path} ({error})."
        ) from error


def duplicates(features, threshold=0.98):
    """Groups of rows that are nearly the same.

    Two rows belong together if their cosine similarity, after the mean of all rows is taken off, reaches the
    threshold, and with them whatever belongs to either.

    Args:
        features: Float array `(n, features)`.
        threshold: In (0, 1]: the closer to 1, the more alike.

    Returns:
        A list of arrays of rows, the largest group first.

    Raises:
        ValueError: If the threshold is not in (0, 1].

    Example:

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.01, 1.0], [-1.0, -1.0]])
    >>> [group.tolist() for group in duplicates(rows)]
    [[0, 2]]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` must be in (0, 1]. Received: threshold={threshold}")
    features = np.asarray(features, "float32")
    features = unit_rows(features - features.mean(axis=0))
    group_of = np.arange(len(features))

    def first(row):
        while group_of[row] != row:
            group_of[row] = group_of[group_of[row]]
            row = group_of[row]
        return row

    for start in range(0, len(features), 1024):
        alike = features[start : start + 1024] @ features[start:].T >= threshold
        for one, other in np.argwhere(alike) + start:
            if one < other:
                group_of[first(other)] = first(one)
    firsts = np.array([first(row) for row in range(len(features))], "int64")
    groups = [np.flatnonzero(firsts == leader) for leader in np.unique(firsts[firsts != np.arange(len(firsts))])]
    return sorted(groups, key=len, reverse=True)


def search(gallery, queries, k=10):
    """The most similar images of a gallery.

    Args:
        gallery: `Gallery`.
        queries: Float array `(m, features)`.
        k: How many, at most all.

    Returns:
        The pair `(rows, similarities)`, arrays `(m, k)`, the most similar first.

    Raises:
        ValueError: If the queries have another number of features, as those of another encoder have.

    Example:

    >>> gallery = Gallery(np.array(["a.jpg", "b.jpg"]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> rows, _ = search(gallery, [[0.1, 1.0]], k=1)
    >>> gallery.names[rows[0]].tolist()
    ['b.jpg']
    """
    queries = np.asarray(queries, "float32")
    if queries.ndim != 2 or queries.shape[1] != gallery.features.shape[1]:
        raise ValueError(
            f"Queries must be (m, {gallery.features.shape[1]}), features of the encoder that the gallery is of. "
            f"Received: queries of shape {queries.shape}."
        )
    return nearest_neighbors(queries, gallery.features, min(k, len(gallery.features)))


def _claim(parts, settings):
    """The folder for the parts, of these settings and no others."""
    file = parts / "settings.json"
    if file.exists():
        if json.loads(file.read_text()) != settings:
            raise ValueError(
                f"Parts of other images, or of another encoder, are in {parts}. Received: another run with the same "
                "output. Choose another, or delete that folder."
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    unfinished = parts / "settings.unfinished"
    unfinished.write_text(json.dumps(settings))
    unfinished.rename(file)


def _digest_of(encoder):
    digest = hashlib.sha256()
    for weight in encoder.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _digest(names):
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _write_npz(path, names, files):
    """What `np.savez` writes, part by part."""
    parts = [np.load(file, mmap_mode="r") for file in files]
    shape = (sum(len(part) for part in parts), parts[0].shape[1])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("names.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(names))
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, "<f4").tobytes())


def _parquet_writer():
    arrow = _pyarrow()

    def write(path, names, files):
        start, writer = 0, None
        for file in files:
            part = np.load(file)
            flat = arrow.array(part.reshape(-1), arrow.float32())
            columns = {
                "names": arrow.array(names[start : start + len(part)], arrow.string()),
                "features": arrow.FixedSizeListArray.from_arrays(flat, part.shape[1]),
            }
            table = arrow.table(columns)
            writer = writer or arrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            start += len(part)
        writer.close()

    return write


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("A .parquet file needs pyarrow. Install it with pip install pyarrow, or use .npz.") from error
    return pyarrow
