"""Files of image names and features: `.npz` or `.parquet`."""

import json
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from keras_barlow.labels import checked_features

FORMATS = (".npz", ".parquet")


class Gallery(NamedTuple):
    """Image files and their features, one row per image.

    Attributes:
        names: Array of strings `(n,)`: paths relative to the collection.
        features: Float32 array `(n, features)`.
        encoder: Fingerprint of the encoder, for `check_encoder`; None if it is unknown.
    """

    names: np.ndarray
    features: np.ndarray
    encoder: dict | None = None


def load(path):
    """Reads a file written by `extract`.

    Args:
        path: `.npz` or `.parquet` file.

    Returns:
        `Gallery`.

    Raises:
        ValueError: If the file does not hold names and features, or different numbers of them.
        ImportError: If pyarrow is needed and not installed.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix.lower() == ".npy":
        raise ValueError(
            f"The file must hold names and features. Received: {path}, an array without names. Save both with "
            'np.savez("features.npz", names=names, features=features).'
        )
    read = _read_parquet if path.suffix.lower() == ".parquet" else _read_npz
    try:
        names, features, encoder = read(path)
        features = checked_features(features, finite=False)
        if names.shape != (len(features),) or names.dtype.kind != "U":
            raise ValueError(f"names of shape {names.shape} and dtype {names.dtype} for {len(features)} features")
    except (KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"The file must hold names and features, as written by retrieval.extract. Received: {path} ({error}). "
            "Extract the features again."
        ) from error
    return Gallery(names, np.asarray(features, "float32"), None if encoder is None else json.loads(encoder))


def writer(path):
    """Returns the function that writes a file of features from its parts.

    Args:
        path: Path that ends with one of `FORMATS`.

    Returns:
        A function of the path, the names, the ordered list of `.npy` files with the parts, and the fingerprint of the
        encoder.

    Raises:
        ValueError: If the path has another suffix.
        ImportError: If pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"The file must end with one of {', '.join(FORMATS)}. Received: {path}. Rename it.")
    return _write_npz if suffix == ".npz" else _parquet_writer(_pyarrow())


def _read_npz(path):
    # np.load does not close a file that it fails to read.
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        return file["names"], file["features"], file["encoder"].item() if "encoder" in file else None


def _read_parquet(path):
    arrow = _pyarrow()
    table = arrow.parquet.read_table(path)
    names, features = (table[column].combine_chunks() for column in ("names", "features"))
    if names.null_count or features.null_count or features.flatten().null_count:
        raise ValueError("values are missing")
    if len(arrow.compute.list_value_length(features).unique()) > 1:
        raise ValueError("rows have several lengths")
    encoder = (table.schema.metadata or {}).get(b"encoder")
    values = features.flatten().to_numpy().reshape(len(table), -1)
    return np.array(names.to_pylist()), values, None if encoder is None else encoder.decode()


def _write_npz(path, names, files, encoder):
    """Writes what `np.savez` would, one part at a time."""
    parts = [np.load(file, mmap_mode="r") for file in files]
    shape = (sum(len(part) for part in parts), parts[0].shape[1])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (("names", np.array(names)), ("encoder", np.array(json.dumps(encoder)))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, "<f4").tobytes())


def _parquet_writer(arrow):
    def write(path, names, files, encoder):
        start, output = 0, None
        for file in files:
            part = np.load(file)
            flat = arrow.array(part.reshape(-1), arrow.float32())
            columns = {
                "names": arrow.array(names[start : start + len(part)], arrow.string()),
                "features": arrow.FixedSizeListArray.from_arrays(flat, part.shape[1]),
            }
            table = arrow.table(columns).replace_schema_metadata({"encoder": json.dumps(encoder)})
            output = output or arrow.parquet.ParquetWriter(path, table.schema)
            output.write_table(table)
            start += len(part)
        output.close()

    return write


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("A .parquet file needs pyarrow. Install it with pip install pyarrow, or use .npz.") from error
    return pyarrow
