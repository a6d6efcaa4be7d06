"""Draws the views of some images. Look at them before you train for hours.

    python examples/show_views.py                                     # two photographs that ship with scikit-learn
    python examples/show_views.py --data_dir=photos --policy=simclr
    python examples/show_views.py --policy=multi_crop --image_size=160
    python examples/show_views.py --without=jitter --without=grayscale

It takes a few seconds, and prints the name of the picture and the number of images.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import sys

import numpy as np
from absl import app, flags
from PIL import Image, ImageOps

import keras_barlow as kb

POLICIES = sorted((*kb.views.policies.POLICIES, "keras_cv_barlow_twins"))

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz of images; two photographs from scikit-learn by default.")
flags.DEFINE_enum("policy", "barlow_twins", POLICIES, "Name of a function in keras_barlow.views.")
flags.DEFINE_multi_string("without", [], "Transform to leave out; can be repeated.")
flags.DEFINE_integer("image_size", 224, "Side of the views, in pixels.", lower_bound=8)
flags.DEFINE_integer("count", 8, "Number of images to draw.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the views.")
flags.DEFINE_string("output", "views.png", "Output picture, a PNG file.")


def main(_):
    try:
        images = shown_images()
        views = chosen_views()
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"{kb.plots.plot_views(views, images, FLAGS.output)}: {len(images)} images and their views")


def shown_images():
    """Returns the images to draw, larger than the views so that crops differ."""
    size = FLAGS.image_size * 8 // 7
    if FLAGS.data_dir is not None:
        return kb.data.load(FLAGS.data_dir, image_size=size, labels=False, memory_limit=0)[0].sample(FLAGS.count)[0]
    from sklearn.datasets import load_sample_images

    photographs = [
        np.asarray(ImageOps.fit(Image.fromarray(image), (size, size))) for image in load_sample_images().images
    ]
    return np.stack([photographs[number % len(photographs)] for number in range(FLAGS.count)])


def chosen_views():
    """Returns the views that the flags select."""
    policy = getattr(kb.views, FLAGS.policy)
    if FLAGS.policy == "keras_cv_barlow_twins":
        if FLAGS.without:
            raise ValueError(
                "keras_cv_barlow_twins does not support --without. "
                f"Received: --without={FLAGS.without[0]}. Omit it, or choose another --policy."
            )
        return policy(FLAGS.image_size)
    return policy(FLAGS.image_size, without=FLAGS.without, seed=FLAGS.seed)


if __name__ == "__main__":
    app.run(main)
