"""Finds the images of a collection that look like another one, or like each other, and draws them.

    python examples/search.py --features=features.npz --encoder=runs/photos --data_dir=photos --query=photo.jpg
    python examples/search.py --features=features.npz --data_dir=photos --duplicates

`features.npz` is what `extract_features.py` wrote for the same encoder and folder. The names are printed with their
cosine similarity, and a contact sheet is drawn.
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
flags.DEFINE_string("features", "features.npz", "File of extract_features.py.")
flags.DEFINE_string("data_dir", None, "The folder or .zip of its images.", required=True)
flags.DEFINE_string("encoder", None, "What the features are of, for --query.")
flags.DEFINE_multi_string("query", [], "Image file to look for; may be given several times.")
flags.DEFINE_bool("duplicates", False, "Whether to look for images that are nearly the same.")
flags.DEFINE_float("threshold", 0.98, "Similarity from which images count as the same.")
flags.DEFINE_integer("k", 8, "Images to find for each query.", lower_bound=1)
flags.DEFINE_string("output", "found.png", "PNG file to write.")


def main(_):
    try:
        if bool(FLAGS.query) == FLAGS.duplicates:
            raise ValueError("There must be something to look for. Give either --query=FILE or --duplicates.")
        gallery = kb.retrieval.load(FLAGS.features)
        images = kb.data.every_image(FLAGS.data_dir, image_size=SHOWN_SIZE)
        places = rows_of(gallery.names, images)
        if FLAGS.duplicates:
            show_duplicates(gallery, images, places)
        else:
            show_neighbors(gallery, images, places)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def rows_of(names, images):
    """Where each file of the gallery stands among the images."""
    place = {name: row for row, name in enumerate(images.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ValueError(
            f"The features must be of the images in --data_dir. Received: {len(missing)} that are not in "
            f"{FLAGS.data_dir}, such as {printable(missing[0])}. Name the folder that they were extracted from."
        )
    return np.array([place[name] for name in names], "int64")


def show_neighbors(gallery, images, places):
    """The most similar images of each query."""
    if FLAGS.encoder is None:
        raise ValueError("A query needs the encoder that the features are of. Received: no --encoder.")
    encoder = kb.export.load_encoder(FLAGS.encoder)
    kb.retrieval.check_encoder(gallery, encoder)
    size = encoder.input_shape[1]
    # As the features were made, and as they are shown.
    seen, shown = (
        np.stack([read(path, side) for path in FLAGS.query]) for side in (kb.data.inference_size(size), SHOWN_SIZE)
    )
    start = (seen.shape[1] - size) // 2
    features = kb.evaluation.extract_features(encoder, seen[:, start : start + size, start : start + size])
    rows, similarities = kb.retrieval.search(gallery, features, FLAGS.k)
    for path, found, alike in zip(FLAGS.query, rows, similarities, strict=True):
        print(f"{path}:")
        for row, similarity in zip(found, alike, strict=True):
            print(f"  {similarity:.3f}  {printable(gallery.names[row])}")
    neighbors = images.read(places[rows.ravel()]).reshape(*rows.shape, SHOWN_SIZE, SHOWN_SIZE, 3)
    print(f"Drawn in {kb.plots.nearest_neighbors(shown, neighbors, FLAGS.output)}.")


def show_duplicates(gallery, images, places):
    """Groups of images that are nearly the same."""
    groups = kb.retrieval.duplicates(gallery.features, FLAGS.threshold)
    for number, group in enumerate(groups, start=1):
        print(f"group {number}:")
        for row in group:
            print(f"  {printable(gallery.names[row])}")
    found = sum(map(len, groups))
    print(f"{found} of {len(gallery.names)} images are in {len(groups)} groups of the same.")
    if groups:
        shown = [images.read(places[group[: FLAGS.k]]) for group in groups[:SHOWN_GROUPS]]
        print(f"Drawn in {kb.plots.contact_sheet(shown, FLAGS.output)}.")


def printable(name):
    """A file name as text; "?" where its bytes are no UTF-8, such as those of Latin-1 names."""
    return str(name).encode("utf-8", "replace").decode()


def read(path, size):
    """An image file as a square."""
    return kb.data.Decoder(size).decode(pathlib.Path(path).expanduser().read_bytes(), path)


if __name__ == "__main__":
    app.run(main)
