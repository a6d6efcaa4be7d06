"""Judges an encoder by the field's protocols, on any images with labels.

    python examples/evaluate.py --encoder=runs/digits                                      # on digits, k-NN and linear
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=linear --epochs=100
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=semi_supervised --fraction=0.01,0.1

| protocol | what is trained |
|---|---|
| `knn` | nothing: weighted votes of the nearest training images |
| `linear_fast` | logistic regression on features of the images as they are |
| `linear` | a linear classifier on frozen features of random crops and flips, the paper's recipe |
| `multi_stage` | the same on the pooled features after every stage, in one training |
| `semi_supervised` | encoder and classifier, on a share of the labels of each class |
| `finetune` | encoder and classifier, on all labels |
| `transfer` | the classifier of `linear`, for another data set; for several labels an image, a regression for each |
| `detection` | KerasHub's RetinaNet with the encoder as its backbone, on scenes composed of the images |

Images with several labels are a .npz file with labels (n, classes) of 1 and 0, or a TFDS data set such as voc/2007.
They are judged by mean average precision, as an area and by VOC07's 11 points; boxes by COCO's precision. The paper's
own detectors (C4, Detectron2) belong to another framework.
The result is printed, and written as JSON.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

import keras_barlow as kb

PROTOCOLS = ("knn", "linear_fast", "linear", "multi_stage", "semi_supervised", "finetune", "transfer", "detection")

FLAGS = flags.FLAGS
flags.DEFINE_string("encoder", None, "A run's folder, a .keras file, or a SavedModel.", required=True)
flags.DEFINE_list("protocol", ["knn", "linear_fast"], f"Some of {', '.join(PROTOCOLS)}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz with train/CLASS and test/CLASS; digits without it.")
flags.DEFINE_string("dataset", None, "Name of a TFDS data set, prepared in --data_dir or in TFDS' own folder.")
flags.DEFINE_integer("train_per_class", None, "Only so many training images of each class.", lower_bound=1)
flags.DEFINE_integer("test_per_class", None, "The same for testing.", lower_bound=1)
flags.DEFINE_integer("stored_size", None, "Side to which images are brought before they are cropped.", lower_bound=1)
flags.DEFINE_integer("k", None, "Neighbours of the k-NN; 200, or 5 for a few images.", lower_bound=1)
flags.DEFINE_float("temperature", 0.1, "Of the k-NN.", lower_bound=1e-6)
flags.DEFINE_integer("epochs", None, "Of what is trained; the paper's 100, 20 for fine-tuning.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Of what is trained; the paper's 256, 16 for detection.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "Of the classifier; the paper's 0.3, 0.5 to fine-tune, 0.001 to detect.")
flags.DEFINE_integer("scenes", 500, "Scenes to train a detector on; a quarter as many test it.", lower_bound=4)
flags.DEFINE_float("encoder_rate", 0.005, "Of the encoder, for fine-tuning.")
flags.DEFINE_list("fraction", ["0.1"], "Shares of the labels of each class, for semi_supervised; the paper's 0.01,0.1.")
flags.DEFINE_integer("seed", 0, "Of everything random.")
flags.DEFINE_string("output", None, "JSON file to write; evaluation.json in the run's folder by default.")


def main(_):
    try:
        unknown = [name for name in FLAGS.protocol if name not in PROTOCOLS]
        if unknown:
            raise ValueError(f"Unknown protocol. Received: {unknown[0]!r}. Known protocols: {', '.join(PROTOCOLS)}.")
        encoder = kb.export.load_encoder(FLAGS.encoder)
        train, test = load_data(encoder.input_shape[1])
        path = pathlib.Path(FLAGS.encoder)
        output = pathlib.Path(FLAGS.output or (path if path.is_dir() else path.parent) / "evaluation.json")
        results = json.loads(output.read_text()) if output.exists() else {}
        for name in FLAGS.protocol:
            print(f"{name}: {len(train)} images to train on, {len(test)} to test on", flush=True)
            results[name] = evaluate(name, encoder, train, test)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(results, indent=2) + "\n")
    except (ValueError, OSError, ImportError) as received:
        sys.exit(f"error: {received}")
    print(table({name: results[name] for name in FLAGS.protocol}))
    print(f"Written to {output}.")


def load_data(size):
    if FLAGS.data_dir is None and FLAGS.dataset is None:
        train, test = (kb.data.ArrayImages(*pair) for pair in kb.data.digits(seed=0))
    else:
        stored = FLAGS.stored_size or kb.data.inference_size(size)
        per_class = {"train_per_class": FLAGS.train_per_class, "test_per_class": FLAGS.test_per_class}
        train, test = kb.data.load(FLAGS.data_dir, image_size=stored, dataset=FLAGS.dataset, **per_class)
    return kb.evaluation.input_checks.checked_images(train, test, several=FLAGS.protocol == ["transfer"])


def evaluate(name, encoder, train, test):
    """One protocol: a dictionary of figures, or one of those for each stage."""
    if name in ("knn", "linear_fast") or train.labels.ndim == 2:
        return judge_features(name, encoder, train, test)
    given = {"epochs": FLAGS.epochs, "batch_size": FLAGS.batch_size, "learning_rate": FLAGS.learning_rate}
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"seed": FLAGS.seed, "verbose": 2}
    if name == "detection":
        return detect(encoder, train, test, settings)
    if name in ("linear", "transfer"):
        return kb.evaluation.linear_probe(encoder, train, test, **settings)
    if name == "multi_stage":
        return kb.evaluation.multi_stage_probe(encoder, train, test, **settings)
    settings["encoder_rate"] = FLAGS.encoder_rate
    if name == "finetune":
        return kb.evaluation.fine_tune(encoder, train, test, **settings)
    fractions = [float(fraction) for fraction in FLAGS.fraction]
    for fraction in fractions:
        # None of them may leave a class empty; said before the first is trained.
        kb.evaluation.fine_tuning.rows_of_each_class(train.labels, fraction)
    return {f"{one:g}": kb.evaluation.fine_tune(encoder, train, test, one, **settings) for one in fractions}


def judge_features(name, encoder, train, test):
    """What needs the features of the images as they are, once."""
    size = encoder.input_shape[1]
    features = [
        kb.evaluation.extract_features(encoder, images.in_order(crop=size), verbose=1) for images in (train, test)
    ]
    if train.labels.ndim == 2:
        scores = kb.evaluation.multi_label_scores(features[0], train.labels, features[1])
        figures = {"map": "area", "map_11_points": "11-point"}
        return {
            figure: kb.evaluation.mean_average_precision(scores, test.labels, definition)
            for figure, definition in figures.items()
        }
    if name == "linear_fast":
        scores = kb.evaluation.linear_scores(features[0], train.labels, features[1])
    else:
        k = FLAGS.k or (200 if len(train) >= 10_000 else 5)
        scores = kb.evaluation.knn_scores(features[0], train.labels, features[1], k, FLAGS.temperature)
    return {f"top{k}": kb.evaluation.top_k_accuracy(scores, test.labels, k) for k in (1, 5)}


def detect(encoder, train, test, settings):
    """Training images make the scenes to train on, test images those to test on; their sides are three images long."""
    size = encoder.input_shape[1]
    geometry = {"size": 3 * size, "sides": (round(0.6 * size), round(1.25 * size))}
    scenes = [
        kb.data.scenes(*pictures(images, 2000), count=count, seed=FLAGS.seed + place, **geometry)
        for place, (images, count) in enumerate(((train, FLAGS.scenes), (test, FLAGS.scenes // 4)))
    ]
    return kb.evaluation.detection_probe(encoder, *scenes, classes=int(train.labels.max()) + 1, **settings)


def pictures(images, count):
    """Some images with their labels."""
    array, rows = images.sample(count)
    return array, images.labels[rows]


def table(results):
    """The results as text."""
    lines = []
    for name, result in results.items():
        parts = {f"{name} {part}": one for part, one in result.items() if isinstance(one, dict)} or {name: result}
        for part, figures in parts.items():
            shown = "".join(f"  {figure} {value:.3f}" for figure, value in figures.items() if figure != "images")
            lines.append(f"{part:28}{shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
