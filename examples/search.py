"""Finds images in a collection that look like a query image, or like each other, and draws them.

    python examples/search.py --features=features.npz --encoder=runs/photos --data_dir=photos --query=photo.jpg
    python examples/search.py --features=features.npz --data_dir=photos --duplicates

`features.npz` is the output of `extract_features.py` for the same encoder and folder. The script prints the names and
cosine similarities of the images and draws a contact sheet.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import app, flags

import keras_barlow as kb

SHOWN_SIZE, SHOWN_GROUPS = 128, 12

FLAGS = flags.FLAGS
flags.DEFINE_string("features", "features.npz", "Output file of extract_features.py.")
flags.DEFINE_string("data_dir", None, "Folder or .zip with the images of --features.", required=True)
flags.DEFINE_string("encoder", None, "Encoder that extracted the features; required by --query.")
flags.DEFINE_multi_string("query", [], "Image file to search for; can be repeated.")
flags.DEFINE_bool("duplicates", False, "Whether to search for near-duplicates.")
flags.DEFINE_float("threshold", 0.98, "Cosine similarity from which images count as duplicates.")
flags.DEFINE_integer("k", 8, "Images to find for each query.", lower_bound=1)
flags.DEFINE_string("output", "found.png", "Output picture, a PNG file.")


def main(_):
    try:
        if bool(FLAGS.query) == FLAGS.duplicates:
            raise ValueError(
                f"Search for one thing at a time. Received: {'both' if FLAGS.query else 'neither'} of --query and "
                "--duplicates. Give either --query=FILE or --duplicates."
            )
        gallery = kb.retrieval.load(FLAGS.features)
        images = kb.data.every_image(FLAGS.data_dir, image_size=SHOWN_SIZE)
        image_rows = rows_of(gallery.names, images)
        if FLAGS.duplicates:
            show_duplicates(gallery, images, image_rows)
        else:
            show_neighbors(gallery, images, image_rows)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def rows_of(names, images):
    """Returns the row of each name among the images."""
    row_of = {name: row for row, name in enumerate(images.names)}
    missing = [name for name in names if name not in row_of]
    if missing:
        raise ValueError(
            f"Every image of --features must be in --data_dir. Received: {len(missing)} that are not in "
            f"{FLAGS.data_dir}, such as {printable(missing[0])}. Pass the folder that the features were extracted from."
        )
    return np.array([row_of[name] for name in names], "int64")


def show_neighbors(gallery, images, image_rows):
    """Prints and draws the most similar images of each query."""
    if FLAGS.encoder is None:
        raise ValueError("--query needs the encoder that extracted the features. Received: no --encoder. Add it.")
    encoder = kb.export.load_encoder(FLAGS.encoder)
    kb.retrieval.check_encoder(gallery, encoder)
    size = encoder.input_shape[1]
    queries, shown = (
        np.stack([read(path, side) for path in FLAGS.query]) for side in (kb.data.inference_size(size), SHOWN_SIZE)
    )
    # The center, as in extract_features.py.
    start = (queries.shape[1] - size) // 2
    features = kb.evaluation.extract_features(encoder, queries[:, start : start + size, start : start + size])
    rows, similarities = kb.retrieval.search(gallery, features, FLAGS.k)
    for path, query_rows, query_similarities in zip(FLAGS.query, rows, similarities, strict=True):
        print(f"{path}:")
        for row, similarity in zip(query_rows, query_similarities, strict=True):
            print(f"  {similarity:.3f}  {printable(gallery.names[row])}")
    neighbors = images.read(image_rows[rows.ravel()]).reshape(*rows.shape, SHOWN_SIZE, SHOWN_SIZE, 3)
    print(f"Picture: {kb.plots.nearest_neighbors(shown, neighbors, FLAGS.output)}")


def show_duplicates(gallery, images, image_rows):
    """Prints and draws groups of near-duplicates."""
    groups = kb.retrieval.duplicates(gallery.features, FLAGS.threshold)
    for number, group in enumerate(groups, start=1):
        print(f"group {number}:")
        for row in group:
            print(f"  {printable(gallery.names[row])}")
    print(f"{sum(map(len, groups))} of {len(gallery.names)} images are in {len(groups)} groups of near-duplicates.")
    if groups:
        shown = [images.read(image_rows[group[: FLAGS.k]]) for group in groups[:SHOWN_GROUPS]]
        print(f"Picture: {kb.plots.contact_sheet(shown, FLAGS.output)}")


def printable(name):
    """Returns a file name as text, with "?" for bytes that are not UTF-8."""
    return str(name).encode("utf-8", "replace").decode()


def read(path, size):
    """Reads an image file and crops it to a square."""
    return kb.data.Decoder(size).decode(pathlib.Path(path).expanduser().read_bytes(), path)


if __name__ == "__main__":
    app.run(main)
