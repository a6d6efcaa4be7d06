"""Writes the features of every image in a folder or archive to one file. A run that was stopped resumes.

    python examples/extract_features.py --encoder=runs/photos --data_dir=photos --output=features.npz
    python examples/search.py --features=features.npz --encoder=runs/photos --data_dir=photos --query=photo.jpg

The file contains `names` (paths within the folder), `features` (float32, `(n, features)`) and `encoder`, a fingerprint
by which search.py recognizes the encoder. Images are resized and cropped as usual for inference: short side 256 and
center 224 for an encoder of 224 pixels, and in proportion for larger and smaller ones.

The first command prints its progress in images per second, and the number of images at the end.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_string("encoder", None, "Folder of a run, .keras file, or SavedModel.", required=True)
flags.DEFINE_string("data_dir", None, "Folder or .zip of images.", required=True)
flags.DEFINE_string("output", "features.npz", "Output file: .npz, or .parquet (needs pyarrow).")
flags.DEFINE_integer("batch_size", 256, "Images per batch.", lower_bound=1)
flags.DEFINE_bool("skip_corrupt", False, "Whether to skip unreadable files, which takes one more read of all files.")
flags.DEFINE_bool("overwrite", False, "Whether to overwrite an existing output file.")


def main(_):
    try:
        if pathlib.Path(FLAGS.output).expanduser().exists() and not FLAGS.overwrite:
            raise ValueError(
                f"The output file already exists. Received: {FLAGS.output}. Add --overwrite, or choose another name."
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
