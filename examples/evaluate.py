"""Judges an encoder by the field's protocols, on any images with labels.

    python examples/evaluate.py --encoder=runs/digits                                      # on digits, k-NN and linear
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=linear --epochs=100
    python examples/evaluate.py --encoder=runs/photos --data_dir=photos --protocol=semi_supervised --fraction=0.1

| protocol | what is trained |
|---|---|
| `knn` | nothing: weighted votes of the nearest training images |
| `linear_fast` | logistic regression on features of the images as they are |
| `linear` | a linear classifier on frozen features of random crops and flips, the paper's recipe |
| `multi_stage` | the same on the pooled features after every stage, in one training |
| `semi_supervised` | encoder and classifier, on a share of the labels of each class |
| `finetune` | encoder and classifier, on all labels |

Another data set than that of pre-training makes each of them a transfer. The result is printed, and written as JSON.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

import keras_barlow as kb

PROTOCOLS = ("knn", "linear_fast", "linear", "multi_stage", "semi_supervised", "finetune")

FLAGS = flags.FLAGS
flags.DEFINE_string("encoder", None, "A run's folder, a .keras file, or a SavedModel.", required=True)
flags.DEFINE_list("protocol", ["knn", "linear_fast"], f"Some of {', '.join(PROTOCOLS)}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz with train/CLASS and test/CLASS; digits without it.")
flags.DEFINE_integer("train_per_class", None, "Only so many training images of each class.", lower_bound=1)
flags.DEFINE_integer("test_per_class", None, "The same for testing.", lower_bound=1)
flags.DEFINE_integer("stored_size", None, "Side to which images are brought before they are cropped.", lower_bound=1)
flags.DEFINE_integer("k", None, "Neighbours of the k-NN; 200, or 5 for a few images.", lower_bound=1)
flags.DEFINE_float("temperature", 0.1, "Of the k-NN.", lower_bound=1e-6)
flags.DEFINE_integer("epochs", None, "Of what is trained; the paper's 100, or 20 for fine-tuning.", lower_bound=1)
flags.DEFINE_integer("batch_size", 256, "Of what is trained.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "Of the classifier; the paper's 0.3, or 0.5 for fine-tuning.")
flags.DEFINE_float("encoder_rate", 0.005, "Of the encoder, for fine-tuning.")
flags.DEFINE_float("fraction", 0.1, "Share of the labels of each class, for semi_supervised.")
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
    except (ValueError, OSError) as received:
        sys.exit(f"error: {received}")
    print(table({name: results[name] for name in FLAGS.protocol}))
    print(f"Written to {output}.")


def load_data(size):
    if FLAGS.data_dir is None:
        train, test = (kb.data.ArrayImages(*pair) for pair in kb.data.digits(seed=0))
    else:
        # 256 pixels for 224, as the field has it; small images as they are.
        stored = FLAGS.stored_size or (round(size * 8 / 7) if size > 64 else size)
        per_class = {"train_per_class": FLAGS.train_per_class, "test_per_class": FLAGS.test_per_class}
        train, test = kb.data.load(FLAGS.data_dir, image_size=stored, **per_class)
    kb.evaluation.heads.check_labels(train, test)
    return train, test


def evaluate(name, encoder, train, test):
    """One protocol: a dictionary of `top1` and `top5`, or one of those for each stage."""
    if name in ("knn", "linear_fast"):
        size = encoder.input_shape[1]
        features = [
            kb.evaluation.extract_features(encoder, images.in_order(crop=size), verbose=1) for images in (train, test)
        ]
        if name == "linear_fast":
            scores = kb.evaluation.linear_scores(features[0], train.labels, features[1])
        else:
            k = FLAGS.k or (200 if len(train) >= 10_000 else 5)
            scores = kb.evaluation.knn_scores(features[0], train.labels, features[1], k, FLAGS.temperature)
        return {f"top{k}": kb.evaluation.top_k_accuracy(scores, test.labels, k) for k in (1, 5)}
    settings = {"batch_size": FLAGS.batch_size, "seed": FLAGS.seed, "verbose": 2}
    if FLAGS.learning_rate is not None:
        settings["learning_rate"] = FLAGS.learning_rate
    if name in ("linear", "multi_stage"):
        run = kb.evaluation.linear_probe if name == "linear" else kb.evaluation.multi_stage_probe
        return run(encoder, train, test, epochs=FLAGS.epochs or 100, **settings)
    fraction = FLAGS.fraction if name == "semi_supervised" else None
    settings["encoder_rate"] = FLAGS.encoder_rate
    return kb.evaluation.fine_tune(encoder, train, test, fraction, epochs=FLAGS.epochs or 20, **settings)


def table(results):
    """The results as text."""
    lines = [f"{'':28}{'top-1':>8}{'top-5':>8}"]
    for name, result in results.items():
        parts = {name: result} if "top1" in result else {f"{name} {part}": one for part, one in result.items()}
        lines += [f"{part:28}{one['top1']:8.3f}{one['top5']:8.3f}" for part, one in parts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
