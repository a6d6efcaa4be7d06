"""Pre-trains an encoder with Barlow Twins, evaluates it and exports it.

    python examples/pretrain.py

With no flags: the `digits` recipe, whose data are drawn on the spot. Two CPU cores, about 5 minutes. It ends
with a table like

                        k-NN   linear   10 labels a class
    raw pixels         0.615    0.131               0.125
    untrained          0.302    0.231               0.124
    Barlow Twins       0.844    0.923               0.711

and leaves `results.json`, `metrics.jsonl`, `encoder/` (SavedModel), `model.keras`, TensorBoard events and five
pictures in `runs/digits`.
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
import tensorflow as tf
from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_string("recipe", "digits", f"What to train: {', '.join(kb.recipes.names())}.")
flags.DEFINE_string("data_dir", None, "Folder with train/<class>/ and test/<class>/ images; `digits` needs none.")
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; the recipe's by default.", lower_bound=2)
flags.DEFINE_string("output_dir", None, "Folder to write; runs/<recipe> by default.")
flags.DEFINE_integer("seed", 0, "Of the weights, the views, the order of the images and the digits.")

PICTURE_COLUMNS = 12


def main(_):
    started = time.time()
    if not tf.config.list_physical_devices("GPU"):
        # One operation at a time with all cores in it: on two cores a step took 110 ms in place of 160.
        tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        recipe = chosen_recipe()
        output = empty_folder(FLAGS.output_dir or f"runs/{recipe.name}")
        train, test = load_data(recipe)
        model = recipe.build(len(train[0]), seed=FLAGS.seed)
    except ValueError as error:
        sys.exit(f"error: {error}")

    print(f"{recipe.name}: {len(train[0])} images to train on, {len(test[0])} to test on, {recipe.epochs} epochs")
    print("Evaluating raw pixels and the untrained encoder ...", flush=True)
    pixels = [images.reshape(len(images), -1) for images, _ in (train, test)]
    results = {"pixels": evaluate(pixels, train, test, recipe)}
    results["untrained"] = evaluate(features_of(model, train, test), train, test, recipe)
    correlation_before = cross_correlation(model, test)

    metrics = output / "metrics.jsonl"
    model.fit(
        kb.data.batches(train[0], recipe.batch_size, seed=FLAGS.seed),
        epochs=recipe.epochs,
        callbacks=[
            kb.callbacks.KNNProbe(train, test, k=recipe.knn_k, every=max(1, recipe.epochs // 3)),
            kb.callbacks.MetricsLog(metrics),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
        ],
    )

    print("Evaluating the trained encoder ...", flush=True)
    features = features_of(model, train, test)
    results.update(evaluate(features, train, test, recipe))
    model.save(output / "model.keras")
    kb.export.save_encoder(model, output / "encoder")
    print("Drawing ...", flush=True)
    draw(output, model, features, train, test, correlation_before)
    results["epochs"] = recipe.epochs
    results["images_seen"] = int(model.optimizer.iterations) * recipe.batch_size
    results["seconds"] = round(time.time() - started, 1)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(f"{results['seconds']:.0f} s. Everything is in {output}; load the encoder with hub.load('{output}/encoder').")


def chosen_recipe():
    """The recipe of the flags, with what they change."""
    recipe = kb.recipes.get(FLAGS.recipe)
    changes = {"epochs": FLAGS.epochs, "batch_size": FLAGS.batch_size}
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
    """`(train_images, train_labels), (test_images, test_labels)`."""
    if FLAGS.data_dir is not None:
        return kb.data.image_folder(FLAGS.data_dir, recipe.image_size)
    if recipe.name != "digits":
        raise ValueError(f"The recipe {recipe.name!r} needs images. Received: no --data_dir. Name their folder.")
    return kb.data.digits(seed=FLAGS.seed)


def features_of(model, train, test):
    """Features of the training and the test images."""
    return [kb.evaluation.extract_features(model, images) for images, _ in (train, test)]


def evaluate(features, train, test, recipe):
    """k-NN, linear and few-label accuracy."""
    return kb.evaluation.evaluate_features(features[0], train[1], features[1], test[1], k=recipe.knn_k)


def cross_correlation(model, test):
    """The cross-correlation matrix of two views of up to 1,024 test images, in inference mode."""
    view_a, view_b = model.views(test[0][:1024], step=0)
    return kb.ops.cross_correlation(model.project(view_a), model.project(view_b))


def draw(output, model, features, train, test, correlation_before):
    """The five pictures of a run."""
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    shown = np.linspace(0, len(test[0]) - 1, PICTURE_COLUMNS).astype(int)
    images = test[0][shown]
    kb.plots.view_pairs(images, *model.views(images, step=0), output / "views.png")
    kb.plots.loss_terms(metrics, output / "loss.png")
    kb.plots.cross_correlation(correlation_before, cross_correlation(model, test), output / "cross_correlation.png")
    neighbors, _ = kb.evaluation.nearest_neighbors(features[1][shown], features[0], k=8)
    kb.plots.nearest_neighbors(images, train[0][neighbors], output / "nearest_neighbors.png")
    kb.plots.feature_map(features[1][:2000], test[1][:2000], output / "feature_map.png")


def table(results):
    """The results as a short table."""
    lines = [f"{'':16}{'k-NN':>8}{'linear':>9}{'10 labels a class':>20}"]
    for name, row in (
        ("raw pixels", results["pixels"]),
        ("untrained", results["untrained"]),
        ("Barlow Twins", results),
    ):
        lines.append(f"{name:16}{row['knn_top1']:8.3f}{row['linear_top1']:9.3f}{row['few_label_top1']:20.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
