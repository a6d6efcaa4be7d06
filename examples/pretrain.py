"""Pre-trains an encoder with Barlow Twins, evaluates it and exports it.

    python examples/pretrain.py

With no flags: the `digits` recipe, whose data are drawn on the spot. Two CPU cores, about 3 minutes. It ends
with a table like

                        k-NN   linear   10 labels a class
    raw pixels         0.615    0.131               0.125
    untrained          0.208    0.348               0.156
    Barlow Twins       0.925    0.958               0.824

and leaves `results.json`, `metrics.jsonl`, `encoder/` (SavedModel), `model.keras`, TensorBoard events and five
pictures in `runs/digits`. With your own images:

    python examples/pretrain.py --recipe=cifar10_resnet18 --data_dir=photos      # a folder, .zip or .npz
    python examples/pretrain.py --recipe=cifar10_resnet18 --dataset=cifar10 --download

An interrupted run goes on with the same command and --resume. Several workers on this machine:

    python -m keras_barlow.launch --workers=2 examples/pretrain.py
"""

import json
import os
import pathlib
import signal
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
flags.DEFINE_enum("strategy", "auto", kb.distribution.strategies.NAMES, "Which replicas to train on.")
flags.DEFINE_bool("resume", False, "Go on where the run in --output_dir stopped; without a checkpoint, begin.")
flags.DEFINE_integer("checkpoint_every", None, "Steps between two checkpoints, besides every epoch's.", lower_bound=1)
flags.DEFINE_integer("keep_checkpoints", 3, "How many to keep.", lower_bound=1)
flags.DEFINE_float("max_seconds", None, "Save and end after so long.", lower_bound=1.0)
flags.DEFINE_bool("skip_nonfinite", False, "Leave out steps whose loss is NaN or infinite, in place of an error.")
flags.DEFINE_integer("seed", 0, "Of the weights, the views, the order of the images and the digits.")

PICTURE_COLUMNS = 12


# Logistic regression on raw pixels takes minutes beyond this many numbers.
PIXEL_LIMIT = 2**24


def main(_):
    started = time.time()
    on_sigterm("nothing is trained yet")
    strategy, chief, error = None, True, None
    try:
        strategy = kb.distribution.get_strategy(FLAGS.strategy)
        chief = kb.distribution.is_chief(strategy)
        recipe = chosen_recipe()
        output = pathlib.Path(FLAGS.output_dir or f"runs/{recipe.name}")
        if chief:
            check_folder(output)
        train, test = load_data(recipe)
        probes = []
        if test:
            train, test = kb.evaluation.input_checks.checked_images(train, test)
            labeled = [(images.in_order(crop=recipe.image_size), images.labels) for images in (train, test)]
            probes = [kb.callbacks.KNNProbe(*labeled, k=recipe.knn_k, every=max(1, recipe.epochs // 4))]
        if isinstance(train, kb.data.ArrayImages):
            # There are no files to crop from.
            recipe = dataclasses.replace(recipe, crops_from_files=False)
        views = recipe.views(FLAGS.seed)
        with strategy.scope():
            model = recipe.build(len(train), seed=FLAGS.seed)
        batches = training_batches(train, views, recipe)
        batches.check(strategy.num_replicas_in_sync)
    except ValueError as received:
        error = received
    on_any_worker = kb.distribution.agreement(strategy) if strategy else bool
    if on_any_worker(error is not None):
        sys.exit(f"error: {error or 'another worker cannot start'}")
    if on_any_worker(chief and (output / "results.json").exists()):
        say(chief, f"The run in {output} is finished.")
        return
    if FLAGS.resume and chief and not kb.checkpoint.list_checkpoints(output / "checkpoints"):
        say(chief, f"There is nothing to resume in {output}: this run begins.")

    tested = f"{len(test)} to test on" if test else "none to test on: without labels nothing is evaluated"
    replicas = strategy.num_replicas_in_sync
    on = f", {replicas} replicas" if replicas > 1 else ""
    say(chief, f"{recipe.name}: {len(train)} images to train on, {tested}; {recipe.epochs} epochs{on}")
    shown = test or train
    if not on_any_worker(chief and (output / "before.json").exists()):
        before(output, model, views, train, test, recipe, chief)

    seconds = None if FLAGS.max_seconds is None else max(1.0, FLAGS.max_seconds - (time.time() - started))
    checkpoints = kb.callbacks.Checkpoints(
        output / "checkpoints", every=FLAGS.checkpoint_every, keep=FLAGS.keep_checkpoints, max_seconds=seconds
    )
    try:
        model.fit(
            batches,
            epochs=recipe.epochs,
            callbacks=[
                *probes,
                kb.callbacks.MetricsLog(output / "metrics.jsonl"),
                keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
                checkpoints,
            ],
        )
    except (ValueError, OSError, FloatingPointError, RuntimeError) as received:
        sys.exit(f"error: {received}")
    if checkpoints.interrupted:
        say(chief, f"Stopped by {checkpoints.interrupted} and saved {checkpoints.last}. {AGAIN}")
        return
    on_sigterm("the training is done and saved")

    features = [features_of(model, images, recipe) for images in (train, shown)]
    if not chief:
        # Whoever leaves early looks like one that has crashed.
        on_any_worker(False)
        return
    results = json.loads((output / "before.json").read_text())
    if test:
        print("Evaluating the trained encoder ...", flush=True)
        results.update(evaluate(features, train, test, recipe))
    model.save(output / "model.keras")
    kb.export.save_encoder(model, output / "encoder", card=card(recipe, len(train), results))
    print("Drawing ...", flush=True)
    draw(output, model, views, features, train, shown)
    results["epochs"] = recipe.epochs
    results["images_seen"] = len(batches) * recipe.epochs * recipe.batch_size
    results["seconds"] = round(time.time() - started, 1)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    on_any_worker(False)
    print(table(results))
    print(f"{results['seconds']:.0f} s. Everything is in {output}; load the encoder with hub.load('{output}/encoder').")


AGAIN = "Go on with the same command and --resume."


def say(chief, line):
    """Of several workers the first speaks."""
    if chief:
        print(line, flush=True)


def on_sigterm(state):
    """Outside of the training, where there is nothing to save, SIGTERM ends the run at once."""

    def end(number, frame):
        print(f"Stopped by SIGTERM: {state}. {AGAIN}", flush=True)
        # Not sys.exit, which would wait for other workers.
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


def chosen_recipe():
    """The recipe of the flags, with what they change."""
    recipe = kb.recipes.get(FLAGS.recipe)
    names = ("epochs", "batch_size", "train_per_class", "test_per_class")
    changes = {name: FLAGS[name].value for name in names}
    changes["skip_nonfinite"] = FLAGS.skip_nonfinite or None
    return dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})


def check_folder(path):
    """Creates the folder, unless it holds another run."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"The output must be a folder. Received: {path}, a file. Choose another --output_dir.")
    if not FLAGS.resume and path.exists() and any(path.iterdir()):
        raise ValueError(
            f"The output folder must be empty, so that no other run is overwritten. Received: {path}, which is not. "
            f"Go on with that run with --resume, choose another --output_dir, or delete {path}."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"The output folder must be one that can be written. Received: {error}.") from error


def load_data(recipe):
    """The images to train on, and those to test on or None."""
    if FLAGS.data_dir is not None or FLAGS.dataset is not None:
        train, test = kb.data.load(
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
        if test is not None and train.labels.ndim == 2:
            raise ValueError(
                "Training is watched with one label for each image. Received: images with several labels. "
                "Add --nolabels; examples/evaluate.py --protocol=transfer judges the encoder with them."
            )
        return train, test
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


def before(output, model, views, train, test, recipe, chief):
    """What raw pixels and the untrained encoder reach, for the comparison at the end: `before.json` and `.npy`."""
    results = {}
    if test:
        say(chief, "Evaluating raw pixels and the untrained encoder ...")
        features = [features_of(model, images, recipe) for images in (train, test)]
        if chief and len(train) * 3 * train.image_size**2 <= PIXEL_LIMIT:
            pixels = [images.read(range(len(images))).reshape(len(images), -1) for images in (train, test)]
            results["pixels"] = evaluate(pixels, train, test, recipe)
        if chief:
            results["untrained"] = evaluate(features, train, test, recipe)
    if chief:
        np.save(output / "before.npy", cross_correlation(model, views, test or train))
        # Written last and renamed: it says that both files are there.
        (output / "before.unfinished").write_text(json.dumps(results) + "\n")
        (output / "before.unfinished").rename(output / "before.json")


def features_of(model, images, recipe):
    """Features of all images, in order."""
    return kb.evaluation.extract_features(model, images.in_order(crop=recipe.image_size))


def evaluate(features, train, test, recipe):
    """k-NN, linear and few-label accuracy."""
    return kb.evaluation.evaluate_features(features[0], train.labels, features[1], test.labels, k=recipe.knn_k)


def cross_correlation(model, views, images):
    """The cross-correlation matrix of two views of up to 1,024 images, in inference mode."""
    view_a, view_b = views(images.sample(1024)[0], step=0)
    # In float32, as the loss takes them whatever the precision of the layers.
    embeddings = [keras.ops.cast(model.project(view), "float32") for view in (view_a, view_b)]
    return kb.losses.cross_correlation(*embeddings)


def draw(output, model, views, features, train, shown):
    """The five pictures of a run."""
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    images, rows = shown.sample(PICTURE_COLUMNS)
    kb.plots.plot_views(views, images, output / "views.png")
    kb.plots.loss_terms(metrics, output / "loss.png")
    correlation_after = cross_correlation(model, views, shown)
    kb.plots.cross_correlation(np.load(output / "before.npy"), correlation_after, output / "cross_correlation.png")
    # Among the images it was trained on, an image is its own first neighbour.
    itself = int(shown is train)
    neighbors, _ = kb.evaluation.nearest_neighbors(features[1][rows], features[0], k=min(8 + itself, len(train)))
    neighbors = neighbors[:, itself:]
    pictures = train.read(neighbors.reshape(-1)).reshape(*neighbors.shape, *images.shape[1:])
    kb.plots.nearest_neighbors(images, pictures, output / "nearest_neighbors.png")
    few = np.linspace(0, len(shown) - 1, min(2000, len(shown))).astype(int)
    labels = None if shown.labels is None else shown.labels[few]
    kb.plots.feature_map(features[1][few], labels, output / "feature_map.png")


def card(recipe, count, results):
    """What the model card says of the run."""
    source = FLAGS.dataset or (FLAGS.data_dir and pathlib.Path(FLAGS.data_dir).name) or "scikit-learn's digits, drawn"
    metrics = {name: value for name, value in results.items() if name.endswith("top1")}
    return {
        "recipe": {name: value for name, value in dataclasses.asdict(recipe).items() if value is not None},
        "data": f"{count} images of {source}",
        "metrics": metrics,
    }


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
