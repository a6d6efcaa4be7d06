"""Runs a table of the paper's ablations on a recipe, next to the paper's figures.

    python examples/ablate.py --table=loss                                     # on digits, about 40 minutes
    python examples/ablate.py --table=asymmetry --recipe=cifar10_small --data_dir=cifar10.zip --epochs=10
    python examples/ablate.py --table=optimizer --recipe=cifar10_resnet18 --data_dir=cifar10.zip --epochs=10 \\
        --train_per_class=2000 --changes='{"encoder_options": {"width": 16}, "warmup_epochs": 1}'

Each row is trained with each seed and evaluated by weighted k-NN and a linear probe on the frozen features. Repeat the
command to resume: finished runs are kept, and an interrupted run resumes from its checkpoint. `table.md`, `table.json`
and `table.png` in the output folder are updated after every run.
"""

import dataclasses
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import image_data
import keras
import numpy as np
import recipe_changes
from absl import app, flags
from run_report import mean_and_range, write_json

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_enum("table", "loss", kb.recipes.ablations.names(), "Table to run.")
flags.DEFINE_string("recipe", "digits", f"Recipe that the rows change: {', '.join(kb.recipes.names())}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz of images in train/CLASS and test/CLASS.")
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; the recipe's by default.", lower_bound=2)
flags.DEFINE_string("changes", "{}", "Further changes of the recipe in all rows: JSON, as for Recipe.changed.")
flags.DEFINE_integer("train_per_class", None, "Training images to keep per class; 0 keeps all.", lower_bound=0)
flags.DEFINE_integer("test_per_class", None, "Test images to keep per class; 0 keeps all.", lower_bound=0)
flags.DEFINE_integer("seeds", 2, "Number of runs per row, with different seeds.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Output folder; runs/ablate/<recipe>/<table> by default.")


def main(_):
    try:
        recipe = chosen_recipe()
        # All rows crop the stored images, because shuffled pixels have no files.
        settings = image_data.settings_for(
            recipe,
            train_per_class=FLAGS.train_per_class,
            test_per_class=FLAGS.test_per_class,
            crops_from_files=False,
        )
        train, test = load_images(recipe, settings)
        kb.evaluation.input_checks.check_votes(recipe.knn_k, len(train))
        output = pathlib.Path(FLAGS.output_dir or f"runs/ablate/{recipe.name}/{FLAGS.table}")
        check_folder(output, recipe, settings, len(train))
        rows = kb.recipes.ablations.table(FLAGS.table)
        for row in rows:
            # Fails if the recipe is for a method without these options.
            recipe.changed(**row.changes)
    except (ValueError, OSError) as received:
        sys.exit(f"error: {received}")
    for seed in range(FLAGS.seeds):
        for row in rows:
            folder = output / row.name.replace(" ", "_") / f"seed{seed}"
            if not (folder / "results.json").exists():
                print(f"{row.name}, seed {seed} ...", flush=True)
                run(recipe.changed(**row.changes), seed, *row_images(row, seed, train, test), folder)
                report(rows, recipe, len(train), output)
    report(rows, recipe, len(train), output)
    print((output / "table.md").read_text())


def chosen_recipe():
    """Returns the recipe with the changes of the flags."""
    changes = {name: FLAGS[name].value for name in ("epochs", "batch_size")}
    changes = {name: value for name, value in changes.items() if value is not None}
    return kb.recipes.get(FLAGS.recipe).changed(**changes).changed(**recipe_changes.parsed(FLAGS.changes))


def load_images(recipe, settings):
    """Loads labeled images to train and to test on."""
    if FLAGS.data_dir is None:
        if image_data.dataset_name(recipe) == "digits":
            return image_data.digits()
        raise ValueError(f"The recipe {recipe.name!r} needs images. Received: no --data_dir. Name a folder.")
    train, test = image_data.load(FLAGS.data_dir, recipe, settings)
    if test is None or test.labels is None:
        raise ValueError(
            "Rows are compared by accuracy, so images must be in train/CLASS and test/CLASS. "
            f"Received: {FLAGS.data_dir}, which has no labels or no test images. Sort the images into such folders."
        )
    return image_data.with_checked_labels(train, test)


def check_folder(output, recipe, settings, num_images):
    """Refuses an output folder whose runs have other settings: the runs of a table are compared with each other."""
    values = {**dataclasses.asdict(recipe), **dataclasses.asdict(settings)}
    values = json.loads(json.dumps({"table": FLAGS.table, "images": num_images, **values}))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "settings.json"
    if path.exists() and (existing := json.loads(path.read_text())) != values:
        different = sorted(name for name in values if values[name] != existing.get(name))
        raise ValueError(
            f"All runs of a table must have the same settings. Received: other {', '.join(different)} than those in "
            f"{output}. Choose another --output_dir."
        )
    write_json(path, values)


def row_images(row, seed, train, test):
    """Returns the training and test images of a row."""
    if not row.shuffled:
        return train, test
    return [
        kb.data.ArrayImages(image_data.shuffled_pixels(images.read(range(len(images))), seed), images.labels)
        for images in (train, test)
    ]


def run(recipe, seed, train, test, folder):
    """Trains and evaluates a recipe and writes `results.json`."""
    keras.utils.clear_session()
    model = recipe.build(len(train), seed=seed)
    results = {}
    checkpoints = kb.callbacks.Checkpoints(folder / "checkpoints", keep=1)
    try:
        model.fit(
            train.batches(recipe.batch_size, seed=seed),
            epochs=recipe.epochs,
            verbose=2,
            callbacks=[kb.callbacks.MetricsLog(folder / "metrics.jsonl"), checkpoints],
        )
        if checkpoints.interrupted:
            sys.exit(f"Stopped by {checkpoints.interrupted}. Repeat the command to resume this run.")
        features = image_data.features(model, (train, test), recipe.image_size)
        if not all(np.isfinite(part).all() for part in features):
            raise FloatingPointError("The features of the trained encoder are NaN or infinite.")
        results = kb.evaluation.evaluate_features(features[0], train.labels, features[1], test.labels, k=recipe.knn_k)
    except FloatingPointError as error:
        results["failed"] = str(error)
    write_json(folder / "results.json", results)
    for path in kb.checkpoint.list_checkpoints(folder / "checkpoints"):
        path.unlink()


def report(rows, recipe, num_images, output):
    """Writes `table.json`, `table.md` and `table.png` from the runs that have finished."""
    scores = {row.name: [] for row in rows}
    for row in rows:
        for path in sorted((output / row.name.replace(" ", "_")).glob("seed*/results.json")):
            scores[row.name].append(json.loads(path.read_text()))
    write_json(output / "table.json", scores)
    changes = [] if FLAGS.changes == "{}" else [f"With `--changes='{FLAGS.changes}'`.", ""]
    lines = [
        f"# {FLAGS.table}: {recipe.name}, {num_images} images, {recipe.epochs} epochs, batch {recipe.batch_size}",
        "",
        *changes,
        "Top-1 accuracy on frozen features in percent: mean over the seeds, and range. The paper's is for ImageNet,",
        "ResNet-50, 300 epochs, linear.",
        "",
        "| | seeds | k-NN | linear | the paper |",
        "|---|---|---|---|---|",
        *(table_row(row, scores[row.name]) for row in rows),
    ]
    (output / "table.md").write_text("\n".join(lines) + "\n")
    linear = [[result["linear_top1"] for result in scores[row.name] if "linear_top1" in result] for row in rows]
    kb.plots.table_of_runs([row.name for row in rows], linear, [row.paper for row in rows], output / "table.png")


def table_row(row, results):
    """Formats the results of a row in Markdown."""
    cells = [mean_and_range([one[name] for one in results if name in one]) for name in ("knn_top1", "linear_top1")]
    failed = sum("failed" in one for one in results)
    seeds = f"{len(results)}, {failed} failed" if failed else str(len(results))
    return f"| {row.name} | {seeds} | {' | '.join(cells)} | {'-' if row.paper is None else row.paper} |"


if __name__ == "__main__":
    app.run(main)
