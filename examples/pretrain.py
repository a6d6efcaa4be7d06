"""Pre-trains an encoder with Barlow Twins, evaluates it and exports it.

    python examples/pretrain.py

With no flags: the `digits` recipe, whose data are drawn on the spot. Two CPU cores, about 3 minutes. It ends
with a table like

                        k-NN   linear   10 labels a class
    raw pixels         0.615    0.131               0.125
    untrained          0.208    0.348               0.156
    Barlow Twins       0.933    0.959               0.827

and leaves `results.json`, `metrics.jsonl`, `encoder/` (SavedModel), `model.keras`, TensorBoard events and five
pictures in `runs/digits`. With your own images:

    python examples/pretrain.py --recipe=cifar10_resnet18 --data_dir=photos      # a folder, .zip or .npz
    python examples/pretrain.py --recipe=cifar10_resnet18 --dataset=cifar10 --download
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import dataclasses

import keras
import numpy as np
from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_string("recipe", "digits", f"What to train: {', '.join(kb.recipes.names())}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz of images; with --dataset, where TFDS keeps its data.")
flags.DEFINE_string("dataset", None, "Name of a TFDS data set, in place of a folder.")
flags.DEFINE_string("train_split", None, "TFDS split to train on, such as train[:90%].")
flags.DEFINE_string("test_split", None, "TFDS split to test on.")
flags.DEFINE_integer("train_per_class", None, "Only so many training images of each class; 0 for all.", lower_bound=0)
flags.DEFINE_integer("test_per_class", None, "The same for testing.", lower_bound=0)
flags.DEFINE_bool("download", False, "Let TFDS download the data set if it is not on disk.")
flags.DEFINE_bool("labels", True, "Whether sub-folders are classes; without them nothing is evaluated.")
flags.DEFINE_bool("skip_corrupt", False, "Leave unreadable files out, with a count, in place of an error.")
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; the recipe's by default.", lower_bound=2)
flags.DEFINE_string("output_dir", None, "Folder to write; runs/<recipe> by default.")
flags.DEFINE_integer("seed", 0, "Of the weights, the views, the order of the images and the digits.")

PICTURE_COLUMNS = 12


# Logistic regression on raw pixels takes minutes beyond this many numbers.
PIXEL_LIMIT = 2**24


def main(_):
    started = time.time()
    try:
        recipe = chosen_recipe()
        output = empty_folder(FLAGS.output_dir or f"runs/{recipe.name}")
        train, test = load_data(recipe)
        if isinstance(train, kb.data.ArrayImages):
            # There are no files to crop from.
            recipe = dataclasses.replace(recipe, crops_from_files=False)
        model = recipe.build(len(train), seed=FLAGS.seed)
    except ValueError as error:
        sys.exit(f"error: {error}")

    tested = f"{len(test)} to test on" if test else "none to test on: without labels nothing is evaluated"
    print(f"{recipe.name}: {len(train)} images to train on, {tested}; {recipe.epochs} epochs", flush=True)
    results, probes = {}, []
    if test:
        results = baselines(model, train, test, recipe)
        labelled = [(images.in_order(crop=recipe.image_size), images.labels) for images in (train, test)]
        probes = [kb.callbacks.KNNProbe(*labelled, k=recipe.knn_k, every=max(1, recipe.epochs // 4))]
    shown = test or train
    views = recipe.views(FLAGS.seed)
    correlation_before = cross_correlation(model, views, shown)

    metrics = output / "metrics.jsonl"
    model.fit(
        training_batches(train, views, recipe),
        epochs=recipe.epochs,
        callbacks=[
            *probes,
            kb.callbacks.MetricsLog(metrics),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
        ],
    )

    features = [features_of(model, images, recipe) for images in (train, shown)]
    if test:
        print("Evaluating the trained encoder ...", flush=True)
        results.update(evaluate(features, train, test, recipe))
    model.save(output / "model.keras")
    kb.export.save_encoder(model, output / "encoder")
    print("Drawing ...", flush=True)
    draw(output, model, views, features, train, shown, correlation_before)
    results["epochs"] = recipe.epochs
    results["images_seen"] = int(model.optimizer.iterations) * recipe.batch_size
    results["seconds"] = round(time.time() - started, 1)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(f"{results['seconds']:.0f} s. Everything is in {output}; load the encoder with hub.load('{output}/encoder').")


def chosen_recipe():
    """The recipe of the flags, with what they change."""
    recipe = kb.recipes.get(FLAGS.recipe)
    names = ("epochs", "batch_size", "train_per_class", "test_per_class")
    changes = {name: FLAGS[name].value for name in names}
    return dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})


def empty_folder(path):
    """Creates the folder, unless it holds another run."""
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"The output folder must be empty, so that no other run is overwritten. Received: {path}, which is not. "
            f"Choose another --output_dir, or delete {path}."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def load_data(recipe):
    """The images to train on, and those to test on or None."""
    if FLAGS.data_dir is not None or FLAGS.dataset is not None:
        return kb.data.load(
            FLAGS.data_dir,
            image_size=recipe.stored_size or recipe.image_size,
            dataset=FLAGS.dataset,
            train_split=FLAGS.train_split,
            test_split=FLAGS.test_split,
            train_per_class=recipe.train_per_class or None,
            test_per_class=recipe.test_per_class or None,
            labels=FLAGS.labels,
            skip_corrupt=FLAGS.skip_corrupt,
            download=FLAGS.download,
            seed=FLAGS.seed,
            **({"memory_limit": 0} if recipe.crops_from_files else {}),
        )
    if recipe.name != "digits":
        raise ValueError(
            f"The recipe {recipe.name!r} needs images. Received: neither --data_dir nor --dataset. "
            "Name a folder, a .zip, a .npz, or a TFDS data set."
        )
    return tuple(kb.data.ArrayImages(images, labels) for images, labels in kb.data.digits(seed=FLAGS.seed))


def training_batches(train, views, recipe):
    """Batches of stored images, or of pairs of crops."""
    if recipe.crops_from_files:
        return train.crop_pairs(recipe.batch_size, (views.layers_a[0], views.layers_b[0]), seed=FLAGS.seed)
    return train.batches(recipe.batch_size, seed=FLAGS.seed)


def baselines(model, train, test, recipe):
    """What raw pixels and the untrained encoder reach."""
    print("Evaluating raw pixels and the untrained encoder ...", flush=True)
    results = {}
    if len(train) * 3 * train.image_size**2 <= PIXEL_LIMIT:
        pixels = [images.read(range(len(images))).reshape(len(images), -1) for images in (train, test)]
        results["pixels"] = evaluate(pixels, train, test, recipe)
    features = [features_of(model, images, recipe) for images in (train, test)]
    results["untrained"] = evaluate(features, train, test, recipe)
    return results


def features_of(model, images, recipe):
    """Features of all images, in order."""
    return kb.evaluation.extract_features(model, images.in_order(crop=recipe.image_size))


def evaluate(features, train, test, recipe):
    """k-NN, linear and few-label accuracy."""
    return kb.evaluation.evaluate_features(features[0], train.labels, features[1], test.labels, k=recipe.knn_k)


def cross_correlation(model, views, images):
    """The cross-correlation matrix of two views of up to 1,024 images, in inference mode."""
    view_a, view_b = views(images.sample(1024)[0], step=0)
    return kb.ops.cross_correlation(model.project(view_a), model.project(view_b))


def draw(output, model, views, features, train, shown, correlation_before):
    """The five pictures of a run."""
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    images, rows = shown.sample(PICTURE_COLUMNS)
    kb.plots.plot_views(views, images, output / "views.png")
    kb.plots.loss_terms(metrics, output / "loss.png")
    correlation_after = cross_correlation(model, views, shown)
    kb.plots.cross_correlation(correlation_before, correlation_after, output / "cross_correlation.png")
    # Among the images it was trained on, an image is its own first neighbour.
    itself = int(shown is train)
    neighbors, _ = kb.evaluation.nearest_neighbors(features[1][rows], features[0], k=min(8 + itself, len(train)))
    neighbors = neighbors[:, itself:]
    pictures = train.read(neighbors.reshape(-1)).reshape(*neighbors.shape, *images.shape[1:])
    kb.plots.nearest_neighbors(images, pictures, output / "nearest_neighbors.png")
    few = np.linspace(0, len(shown) - 1, min(2000, len(shown))).astype(int)
    labels = None if shown.labels is None else shown.labels[few]
    kb.plots.feature_map(features[1][few], labels, output / "feature_map.png")


def table(results):
    """The results as a short table."""
    rows = {"raw pixels": results.get("pixels"), "untrained": results.get("untrained"), "Barlow Twins": results}
    if "untrained" not in results:
        return "Without labels there is nothing to compare."
    lines = [f"{'':16}{'k-NN':>8}{'linear':>9}{'10 labels a class':>20}"]
    for name, row in rows.items():
        if row is not None:
            few = f"{row['few_label_top1']:20.3f}" if "few_label_top1" in row else f"{'fewer in a class':>20}"
            lines.append(f"{name:16}{row['knn_top1']:8.3f}{row['linear_top1']:9.3f}{few}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
