"""Pre-trains an encoder, evaluates it and exports it.

    python examples/pretrain.py

Without flags, it runs the `digits` recipe on images that it draws itself. It takes about 3 minutes on two CPU cores:

                        k-NN   linear   10 labels a class
    raw pixels         0.615    0.131               0.125
    untrained          0.208    0.348               0.156
    Barlow Twins       0.925    0.958               0.824

It leaves results, logs, model, encoder (SavedModel) and pictures in `runs/digits`. Other methods, and your own images:

    python examples/pretrain.py --method=simclr                                  # in runs/digits_simclr
    python examples/pretrain.py --recipe=cifar10_resnet18 --data_dir=photos      # a folder, .zip or .npz
    python examples/pretrain.py --recipe=cifar10_resnet18 --dataset=cifar10 --download

--resume resumes an interrupted run. `python -m keras_barlow.launch --workers=2` instead of `python` starts two workers.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import image_data
import keras
import run_report
from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_string("recipe", "digits", f"Recipe to train: {', '.join(kb.recipes.names('BarlowTwins'))}.")
METHODS = [name.lower() for name in kb.methods.__all__]
flags.DEFINE_enum("method", None, METHODS, "Method; Barlow Twins by default.", case_sensitive=False)
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz of images; with --dataset, the data folder of TFDS.")
flags.DEFINE_string("dataset", None, "Name of a TFDS dataset to use instead of a folder.")
flags.DEFINE_string("train_split", None, "TFDS split to train on, such as train[:90%].")
flags.DEFINE_string("test_split", None, "TFDS split to test on.")
flags.DEFINE_integer("train_per_class", None, "Training images to keep per class; 0 keeps all.", lower_bound=0)
flags.DEFINE_integer("test_per_class", None, "Test images to keep per class; 0 keeps all.", lower_bound=0)
flags.DEFINE_bool("download", False, "Whether TFDS may download the dataset if it is not on disk.")
flags.DEFINE_bool("labels", True, "Whether subfolders are classes. Without labels, nothing is evaluated.")
flags.DEFINE_bool("skip_corrupt", False, "Whether to skip and count unreadable files instead of failing.")
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; the recipe's by default.", lower_bound=2)
flags.DEFINE_string("output_dir", None, "Output folder; runs/<name of the recipe> by default.")
flags.DEFINE_enum("strategy", "auto", kb.distribution.strategies.NAMES, "How to distribute training over replicas.")
flags.DEFINE_bool("resume", False, "Whether to resume the run in --output_dir; without a checkpoint, it begins.")
flags.DEFINE_integer("checkpoint_every", None, "Steps between checkpoints, in addition to every epoch.", lower_bound=1)
flags.DEFINE_integer("keep_checkpoints", 3, "Number of checkpoints to keep.", lower_bound=1)
flags.DEFINE_float("max_seconds", None, "Time after which to save and stop.", lower_bound=1.0)
flags.DEFINE_bool("skip_nonfinite", False, "Whether to skip steps with a NaN or infinite loss instead of failing.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the views, the order of the images and the digits.")

# Flags about the images of --data_dir or --dataset.
SOURCE = ("train_split", "test_split", "train_per_class", "test_per_class", "labels", "skip_corrupt", "download")
AGAIN = "To resume, repeat the command with --resume."


@dataclasses.dataclass
class Run:
    """What a run consists of.

    Attributes:
        chief: Whether this is the worker that prints and writes.
        replicas: Number of replicas.
        output: Output folder.
        recipe: `recipes.Recipe` with the changes of the flags.
        settings: `image_data.ImageSettings`.
        train: `data.Images` to train on.
        test: `data.Images` to test on, or None.
        views: `views.Views` layer with all transforms.
        model: Compiled model.
        batches: Batches to train on.
        probes: Callbacks that evaluate the encoder during training.
    """

    chief: bool
    replicas: int
    output: pathlib.Path
    recipe: kb.recipes.Recipe
    settings: image_data.ImageSettings
    train: Any
    test: Any
    views: Any
    model: Any
    batches: Any
    probes: list

    @property
    def shown(self):
        """Images for the pictures."""
        return self.test or self.train

    def say(self, line):
        """Prints a line, on the chief only."""
        if self.chief:
            print(line, flush=True)


def main(_):
    started = time.time()
    exit_on_sigterm("nothing is trained yet")
    run, on_any_worker = prepare_on_all_workers()
    if on_any_worker(run.chief and (run.output / "results.json").exists()):
        run.say(f"The run in {run.output} is finished.")
        return
    announce(run)
    if not on_any_worker(run.chief and (run.output / "before.json").exists()):
        run_report.measure_before_training(run)
    checkpoints = train(run, started)
    if checkpoints.interrupted:
        run.say(f"Stopped by {checkpoints.interrupted} and saved {checkpoints.last}. {AGAIN}")
        return
    exit_on_sigterm("the training is done and saved")
    features = image_data.features(run.model, (run.train, run.shown), run.recipe.image_size)
    if run.chief:
        results = evaluate_and_export(run, features, started)
    # Workers wait for the chief: the strategy takes one that exits early for one that crashed.
    on_any_worker(False)
    if run.chief:
        print(run_report.table(results, run.recipe.method))
        where = f"Everything is in {run.output}; load the encoder with hub.load('{run.output}/encoder')."
        print(f"{results['seconds']:.0f} s. {where}")


def prepare_on_all_workers():
    """Prepares the run on each worker. If one cannot start, all exit with an error.

    Returns:
        `Run`, and a function with which the workers find out whether a condition holds on any of them.
    """
    strategy, run, error = None, None, None
    try:
        strategy = kb.distribution.get_strategy(FLAGS.strategy)
        run = prepare(strategy)
    except ValueError as received:
        error = received
    on_any_worker = kb.distribution.agreement(strategy) if strategy else bool
    if on_any_worker(error is not None):
        sys.exit(f"error: {error or 'another worker cannot start'}")
    return run, on_any_worker


def prepare(strategy):
    """Loads the images and builds the model: everything that can fail before training."""
    chief = kb.distribution.is_chief(strategy)
    recipe = chosen_recipe(FLAGS.method)
    settings = image_data.settings_for(
        recipe, train_per_class=FLAGS.train_per_class, test_per_class=FLAGS.test_per_class
    )
    output = pathlib.Path(FLAGS.output_dir or f"runs/{recipe.name}")
    if chief:
        check_folder(output)
    train, test = load_images(recipe, settings)
    probes = []
    if test:
        train, test = image_data.with_checked_labels(train, test)
        probes = [knn_probe(recipe, train, test)]
    if isinstance(train, kb.data.ArrayImages):
        # There are no files to crop from.
        settings = dataclasses.replace(settings, crops_from_files=False)
    views = recipe.views(FLAGS.seed)
    batches = image_data.training_batches(train, views, recipe, settings, FLAGS.seed)
    with strategy.scope():
        model = recipe.build(len(train), FLAGS.seed, without=image_data.omitted_transforms(settings))
    batches.check(strategy.num_replicas_in_sync)
    replicas = strategy.num_replicas_in_sync
    return Run(chief, replicas, output, recipe, settings, train, test, views, model, batches, probes)


def chosen_recipe(method):
    """Returns the recipe for a method, or the recipe's own for None, with the changes of the flags."""
    changes = {name: FLAGS[name].value for name in ("epochs", "batch_size")}
    if FLAGS.skip_nonfinite:
        changes["method_options"] = {"skip_nonfinite": True}
    recipe = kb.recipes.get(FLAGS.recipe, method)
    return recipe.changed(**{name: value for name, value in changes.items() if value is not None})


def check_folder(path):
    """Creates the output folder, unless it holds another run."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"The output must be a folder. Received: {path}, a file. Choose another --output_dir.")
    if not FLAGS.resume and path.exists() and any(path.iterdir()):
        raise ValueError(
            f"The output folder must be empty, so that no other run is overwritten. Received: {path}, which is not. "
            f"Resume that run with --resume, choose another --output_dir, or delete {path}."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The output folder must be writable. Received: {error}. Choose another --output_dir."
        ) from error


def check_source(recipe):
    """Refuses to train without images, and flags about images that are not used."""
    image_data.check_source(recipe, FLAGS.data_dir or FLAGS.dataset, [name for name in SOURCE if FLAGS[name].present])


def load_images(recipe, settings):
    """Loads the training images, and the test images or None."""
    check_source(recipe)
    if FLAGS.data_dir is None and FLAGS.dataset is None:
        return image_data.digits(FLAGS.seed)
    names = ("dataset", "train_split", "test_split", "labels", "skip_corrupt", "download", "seed")
    train, test = image_data.load(FLAGS.data_dir, recipe, settings, **{name: FLAGS[name].value for name in names})
    if test is not None and train.labels.ndim == 2:
        raise ValueError(
            "The k-NN during training needs one label per image. Received: images with several labels. "
            "Add --nolabels; examples/evaluate.py --protocol=transfer evaluates the encoder with them."
        )
    return train, test


def knn_probe(recipe, train, test):
    """Returns a callback that evaluates the encoder by k-NN about four times during training."""
    labeled = [(images.in_order(crop=recipe.image_size), images.labels) for images in (train, test)]
    return kb.callbacks.KNNProbe(*labeled, k=recipe.knn_k, every=max(1, recipe.epochs // 4))


def announce(run):
    """Prints what is about to be trained."""
    if FLAGS.resume and run.chief and not kb.checkpoint.list_checkpoints(run.output / "checkpoints"):
        run.say(f"There is nothing to resume in {run.output}: this run begins.")
    tested = f"{len(run.test)} to test on" if run.test else "none to test on: without labels nothing is evaluated"
    replicas = f", {run.replicas} replicas" if run.replicas > 1 else ""
    run.say(f"{run.recipe.name}: {len(run.train)} images to train on, {tested}; {run.recipe.epochs} epochs{replicas}")


def train(run, started):
    """Trains the model, or resumes its training.

    Returns:
        `callbacks.Checkpoints`, which knows whether training was interrupted.
    """
    seconds = None if FLAGS.max_seconds is None else max(1.0, FLAGS.max_seconds - (time.time() - started))
    checkpoints = kb.callbacks.Checkpoints(
        run.output / "checkpoints", every=FLAGS.checkpoint_every, keep=FLAGS.keep_checkpoints, max_seconds=seconds
    )
    callbacks = [
        *run.probes,
        kb.callbacks.MetricsLog(run.output / "metrics.jsonl"),
        keras.callbacks.TensorBoard(run.output / "tensorboard", write_graph=False),
        checkpoints,
    ]
    try:
        run.model.fit(run.batches, epochs=run.recipe.epochs, callbacks=callbacks)
    except (ValueError, OSError, FloatingPointError, RuntimeError) as received:
        sys.exit(f"error: {received}")
    return checkpoints


def evaluate_and_export(run, features, started):
    """Evaluates the features, saves the model, exports the encoder and draws the pictures.

    Returns:
        The dictionary that is written to `results.json`, the last file of a run.
    """
    results = json.loads((run.output / "before.json").read_text())
    if run.test:
        run.say("Evaluating the trained encoder ...")
        results.update(run_report.scores(run, features))
    run.model.save(run.output / "model.keras")
    source = FLAGS.dataset or (FLAGS.data_dir and pathlib.Path(FLAGS.data_dir).name) or "scikit-learn's digits, drawn"
    kb.export.save_encoder(run.model, run.output / "encoder", card=run_report.card(run, source, results))
    run.say("Drawing ...")
    run_report.draw(run, features)
    results["epochs"] = run.recipe.epochs
    results["images_seen"] = len(run.batches) * run.recipe.epochs * run.recipe.batch_size
    results["seconds"] = round(time.time() - started, 1)
    run_report.write_json(run.output / "results.json", results)
    return results


def exit_on_sigterm(state):
    """Makes SIGTERM exit immediately: outside of training there is nothing to save."""

    def end(number, frame):
        print(f"Stopped by SIGTERM: {state}. {AGAIN}", flush=True)
        # Not sys.exit, which would wait for other workers.
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    app.run(main)
