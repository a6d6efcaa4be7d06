"""Evaluates an encoder by the protocols of the field, on any labeled images.

    python examples/evaluate.py --encoder=runs/digits                                      # on digits, k-NN and linear
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=linear --epochs=100
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=semi_supervised --fraction=0.01,0.1

| protocol | what is trained |
|---|---|
| `knn` | nothing: weighted votes of the nearest training images |
| `linear_fast` | logistic regression on features of the images without augmentation |
| `linear` | a linear classifier on frozen features of random crops and flips, the paper's protocol |
| `multi_stage` | linear classifiers on the pooled features after every stage, trained together |
| `semi_supervised` | encoder and classifier, on a fraction of the labels of each class |
| `finetune` | encoder and classifier, on all labels |
| `transfer` | the classifier of `linear`, for another dataset; a regression per label if images have several |
| `detection` | KerasHub's RetinaNet with the encoder as its backbone, on scenes composed of the images |

Images with several labels come from an .npz file with labels `(n, classes)` of 1 and 0, or from a TFDS dataset such as
voc/2007. Their metric is mean average precision, as an area and by the 11 points of VOC07; that of boxes is COCO's
average precision. The detectors of the paper (C4, Detectron2) belong to another framework.

The results are printed and written as JSON. On two CPU cores the first command takes about 20 seconds.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import image_data
from absl import app, flags

import keras_barlow as kb
from keras_barlow.whole_files import replacing

PROTOCOLS = ("knn", "linear_fast", "linear", "multi_stage", "semi_supervised", "finetune", "transfer", "detection")

FLAGS = flags.FLAGS
flags.DEFINE_string("encoder", None, "Folder of a run, .keras file, or SavedModel.", required=True)
flags.DEFINE_list("protocol", ["knn", "linear_fast"], f"Protocols to run, of {', '.join(PROTOCOLS)}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz with train/CLASS and test/CLASS; digits by default.")
flags.DEFINE_string("dataset", None, "Name of a TFDS dataset, prepared in --data_dir or in TFDS' own folder.")
flags.DEFINE_integer("train_per_class", None, "Training images to keep per class.", lower_bound=1)
flags.DEFINE_integer("test_per_class", None, "Test images to keep per class.", lower_bound=1)
flags.DEFINE_integer("stored_size", None, "Side to which images are resized before they are cropped.", lower_bound=1)
flags.DEFINE_integer("k", None, "Neighbors of the k-NN; 200, or 5 for fewer than 10,000 images.", lower_bound=1)
flags.DEFINE_float("temperature", 0.1, "Softmax temperature of the k-NN votes.", lower_bound=1e-6)
flags.DEFINE_integer("epochs", None, "Epochs of training; 100 as in the paper, 20 for fine-tuning.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; 256 as in the paper, 16 for detection.", lower_bound=1)
flags.DEFINE_float(
    "learning_rate", None, "Learning rate of the classifier; 0.3 as in the paper, 0.5 to fine-tune, 0.001 to detect."
)
flags.DEFINE_integer("scenes", 500, "Scenes to train a detector on; a quarter as many test it.", lower_bound=4)
flags.DEFINE_float("encoder_rate", 0.005, "Learning rate of the encoder in fine-tuning.")
flags.DEFINE_list("fraction", ["0.1"], "Fractions of the labels per class for semi_supervised; 0.01,0.1 in the paper.")
flags.DEFINE_integer("seed", 0, "Seed of everything random.")
flags.DEFINE_string("output", None, "JSON file to write; evaluation.json in the folder of the run by default.")


def main(_):
    try:
        unknown = [name for name in FLAGS.protocol if name not in PROTOCOLS]
        if unknown:
            raise ValueError(f"Unknown protocol. Received: {unknown[0]!r}. Known protocols: {', '.join(PROTOCOLS)}.")
        encoder = kb.export.load_encoder(FLAGS.encoder)
        train, test = load_images(encoder.input_shape[1])
        path = pathlib.Path(FLAGS.encoder)
        output = pathlib.Path(FLAGS.output or (path if path.is_dir() else path.parent) / "evaluation.json")
        results = json.loads(output.read_text()) if output.exists() else {}
        output.parent.mkdir(parents=True, exist_ok=True)
        for name in FLAGS.protocol:
            print(f"{name}: {len(train)} images to train on, {len(test)} to test on", flush=True)
            results[name] = evaluate(name, encoder, train, test)
            with replacing(output) as unfinished:
                unfinished.write_text(json.dumps(results, indent=2) + "\n")
    except (ValueError, OSError, ImportError) as received:
        sys.exit(f"error: {received}")
    print(table({name: results[name] for name in FLAGS.protocol}))
    print(f"Written to {output}.")


def load_images(size):
    """Loads labeled images to train and to test on, larger than the encoder's size if they are photographs."""
    if FLAGS.data_dir is None and FLAGS.dataset is None:
        train, test = image_data.digits()
    else:
        if size is None and FLAGS.stored_size is None:
            raise ValueError(
                "An encoder of free size needs the size of the images. Received: no --stored_size. Pass the image size "
                "of the pre-training, such as --stored_size=224."
            )
        stored_size = FLAGS.stored_size or kb.data.inference_size(size)
        per_class = {"train_per_class": FLAGS.train_per_class, "test_per_class": FLAGS.test_per_class}
        train, test = kb.data.load(FLAGS.data_dir, image_size=stored_size, dataset=FLAGS.dataset, **per_class)
    return image_data.with_checked_labels(train, test, several=FLAGS.protocol == ["transfer"])


def evaluate(name, encoder, train, test):
    """Runs one protocol. Returns a dictionary of metrics, or one such dictionary per stage or fraction."""
    if name in ("knn", "linear_fast") or train.labels.ndim == 2:
        return evaluate_features(name, encoder, train, test)
    options = {option: FLAGS[option].value for option in ("epochs", "batch_size", "learning_rate")}
    options = {option: value for option, value in options.items() if value is not None}
    options |= {"seed": FLAGS.seed, "verbose": 2}
    if name == "detection":
        return detect(encoder, train, test, options)
    if name in ("linear", "transfer"):
        return kb.evaluation.linear_probe(encoder, train, test, **options)
    if name == "multi_stage":
        return kb.evaluation.multi_stage_probe(encoder, train, test, **options)
    options["encoder_rate"] = FLAGS.encoder_rate
    if name == "finetune":
        return kb.evaluation.fine_tune(encoder, train, test, **options)
    fractions = [float(fraction) for fraction in FLAGS.fraction]
    for fraction in fractions:
        # Refuses fractions that leave a class empty, before any of them is trained.
        kb.evaluation.fine_tuning.rows_of_each_class(train.labels, fraction)
    return {f"{part:g}": kb.evaluation.fine_tune(encoder, train, test, part, **options) for part in fractions}


def evaluate_features(name, encoder, train, test):
    """Runs a protocol that needs the features of each image only once."""
    features = image_data.features(encoder, (train, test), encoder.input_shape[1], verbose=1)
    if train.labels.ndim == 2:
        scores = kb.evaluation.multi_label_scores(features[0], train.labels, features[1])
        definitions = {"map": "area", "map_11_points": "11-point"}
        return {
            metric: kb.evaluation.mean_average_precision(scores, test.labels, definition)
            for metric, definition in definitions.items()
        }
    if name == "linear_fast":
        scores = kb.evaluation.linear_scores(features[0], train.labels, features[1])
    else:
        k = FLAGS.k or (200 if len(train) >= 10_000 else 5)
        scores = kb.evaluation.knn_scores(features[0], train.labels, features[1], k, FLAGS.temperature)
    return {f"top{k}": kb.evaluation.top_k_accuracy(scores, test.labels, k) for k in (1, 5)}


def detect(encoder, train, test, options):
    """Trains a detector on scenes, three images wide, of training images and tests it on scenes of test images."""
    size = encoder.input_shape[1] or train.image_size
    geometry = {"size": 3 * size, "sides": (round(0.6 * size), round(1.25 * size))}
    scenes = [
        kb.data.scenes(*sample(images, 2000), count=count, seed=FLAGS.seed + number, **geometry)
        for number, (images, count) in enumerate(((train, FLAGS.scenes), (test, FLAGS.scenes // 4)))
    ]
    return kb.evaluation.detection_probe(encoder, *scenes, classes=int(train.labels.max()) + 1, **options)


def sample(images, count):
    """Returns up to `count` images and their labels."""
    array, rows = images.sample(count)
    return array, images.labels[rows]


def table(results):
    """Formats the results as text."""
    lines = []
    for name, result in results.items():
        parts = {f"{name} {part}": one for part, one in result.items() if isinstance(one, dict)} or {name: result}
        for part, metrics in parts.items():
            values = "".join(f"  {metric} {value:.3f}" for metric, value in metrics.items() if metric != "images")
            lines.append(f"{part:28}{values}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
