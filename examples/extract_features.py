"""Writes the features of every image of a folder or archive to one file; a run that was stopped goes on.

    python examples/extract_features.py --encoder=runs/photos --data_dir=photos --output=features.npz
    python examples/search.py --features=features.npz --encoder=runs/photos --data_dir=photos --query=photo.jpg

The file holds `names`, paths within the folder, `features`, float32 `(n, features)`, and `encoder`, by which search.py
knows the encoder again. Images are brought to the encoder's size as the field does it for inference: short side to 256
and the center of 224, or in proportion.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_string("encoder", None, "A run's folder, a .keras file, or a SavedModel.", required=True)
flags.DEFINE_string("data_dir", None, "Folder or .zip of images.", required=True)
flags.DEFINE_string("output", "features.npz", "File to write: .npz, or .parquet (needs pyarrow).")
flags.DEFINE_integer("batch_size", 256, "Images at a time.", lower_bound=1)
flags.DEFINE_bool("skip_corrupt", False, "Whether to leave unreadable files out; all are read once more for that.")
flags.DEFINE_bool("overwrite", False, "Whether to write over a finished file.")


def main(_):
    try:
        if pathlib.Path(FLAGS.output).expanduser().exists() and not FLAGS.overwrite:
            raise ValueError(
                f"The output file already exists. Received: {FLAGS.output}. Add --overwrite, or name another."
            )
        encoder = kb.export.load_encoder(FLAGS.encoder)
        stored = kb.data.inference_size(encoder.input_shape[1])
        images = kb.data.every_image(FLAGS.data_dir, image_size=stored, skip_corrupt=FLAGS.skip_corrupt)
        path = kb.retrieval.extract(encoder, images, FLAGS.output, batch_size=FLAGS.batch_size)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"{path}: {len(images)} images, {encoder.output_shape[1]} features each")


if __name__ == "__main__":
    app.run(main)
