"""Runs a table of the paper's ablations over a recipe, and sets its figures beside the paper's.

    python examples/ablate.py --table=loss                                     # on digits, about 40 minutes
    python examples/ablate.py --table=asymmetry --recipe=cifar10_small --data_dir=cifar10.zip --epochs=10

Every row is trained with every seed and judged by weighted k-NN and a linear probe on its frozen features. The same
command goes on where it stopped: finished runs are kept, and one that was interrupted goes on from its checkpoint.
`table.md`, `table.json` and `table.png` in the output folder grow with every run.
"""

import dataclasses
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_enum("table", "loss", kb.recipes.ablations.names(), "Which table.")
flags.DEFINE_string("recipe", "digits", f"What its rows change: {', '.join(kb.recipes.names())}.")
flags.DEFINE_string("data_dir", None, "Folder, .zip or .npz of images in train/CLASS and test/CLASS.")
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's by default.", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Images per step; the recipe's by default.", lower_bound=2)
flags.DEFINE_integer("train_per_class", None, "Only so many training images of each class; 0 for all.", lower_bound=0)
flags.DEFINE_integer("test_per_class", None, "The same for testing.", lower_bound=0)
flags.DEFINE_integer("seeds", 2, "Runs of each row.", lower_bound=1)
flags.DEFINE_string("output_dir", None, "Folder to write; runs/ablate/<recipe>/<table> by default.")


def main(_):
    try:
        recipe = chosen_recipe()
        train, test = load_data(recipe)
        kb.evaluation.input_checks.check_votes(recipe.knn_k, len(train))
        output = pathlib.Path(FLAGS.output_dir or f"runs/ablate/{recipe.name}/{FLAGS.table}")
        check_folder(output, recipe, len(train))
    except (ValueError, OSError) as received:
        sys.exit(f"error: {received}")
    rows = kb.recipes.ablations.table(FLAGS.table)
    for seed in range(FLAGS.seeds):
        for row in rows:
            folder = output / row.name.replace(" ", "_") / f"seed{seed}"
            if not (folder / "results.json").exists():
                print(f"{row.name}, seed {seed} ...", flush=True)
                run(recipe, row, seed, train, test, folder)
                report(rows, recipe, len(train), output)
    report(rows, recipe, len(train), output)
    print((output / "table.md").read_text())


def chosen_recipe():
    recipe = kb.recipes.get(FLAGS.recipe)
    names = ("epochs", "batch_size", "train_per_class", "test_per_class")
    changes = {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}
    # One source of crops for every row, shuffled pixels too.
    return dataclasses.replace(recipe, **changes, crops_from_files=False)


def load_data(recipe):
    if FLAGS.data_dir is None:
        if recipe.name != "digits":
            raise ValueError(f"The recipe {recipe.name!r} needs images. Received: no --data_dir. Name a folder.")
        return tuple(kb.data.ArrayImages(*pair) for pair in kb.data.digits(seed=0))
    train, test = kb.data.load(
        FLAGS.data_dir,
        image_size=recipe.stored_size or recipe.image_size,
        train_per_class=recipe.train_per_class or None,
        test_per_class=recipe.test_per_class or None,
    )
    if test is None or test.labels is None:
        raise ValueError(
            "The rows are compared by their accuracy, so the images must be in train/CLASS and test/CLASS. "
            f"Received: {FLAGS.data_dir}, which has no labels or no test images."
        )
    # Before anything is trained.
    return kb.evaluation.input_checks.checked_images(train, test)


def check_folder(output, recipe, images):
    """Runs of one table only: they are compared with each other."""
    settings = {"table": FLAGS.table, "images": images, **dataclasses.asdict(recipe)}
    settings = json.loads(json.dumps(settings))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "settings.json"
    if path.exists() and (known := json.loads(path.read_text())) != settings:
        different = sorted(name for name in settings if settings[name] != known.get(name))
        raise ValueError(
            f"All runs of a table must have the same settings. Received: other {', '.join(different)} than those in "
            f"{output}. Choose another --output_dir."
        )
    write(path, settings)


def run(recipe, row, seed, train, test, folder):
    """Trains and judges one row with one seed: `results.json`."""
    keras.utils.clear_session()
    recipe = dataclasses.replace(recipe, **row.changes)
    sources = [train, test]
    if row.shuffled:
        arrays = [kb.recipes.ablations.shuffled_pixels(images.read(range(len(images))), seed) for images in sources]
        sources = [kb.data.ArrayImages(a, images.labels) for a, images in zip(arrays, sources, strict=True)]
    model = recipe.build(len(sources[0]), seed=seed)
    results = {}
    checkpoints = kb.callbacks.Checkpoints(folder / "checkpoints", keep=1)
    try:
        model.fit(
            sources[0].batches(recipe.batch_size, seed=seed),
            epochs=recipe.epochs,
            verbose=2,
            callbacks=[kb.callbacks.MetricsLog(folder / "metrics.jsonl"), checkpoints],
        )
        if checkpoints.interrupted:
            sys.exit(f"Stopped by {checkpoints.interrupted}. The same command goes on with this run.")
        features = [
            kb.evaluation.extract_features(model, images.in_order(crop=recipe.image_size)) for images in sources
        ]
        if not all(np.isfinite(one).all() for one in features):
            raise FloatingPointError("The features of the trained encoder are NaN or infinite.")
        results = kb.evaluation.evaluate_features(
            features[0], sources[0].labels, features[1], sources[1].labels, k=recipe.knn_k
        )
    except FloatingPointError as error:
        results["failed"] = str(error)
    write(folder / "results.json", results)
    for path in kb.checkpoint.list_checkpoints(folder / "checkpoints"):
        path.unlink()


def report(rows, recipe, images, output):
    """`table.json`, `table.md` and `table.png` of what is there."""
    scores = {row.name: [] for row in rows}
    for row in rows:
        for path in sorted((output / row.name.replace(" ", "_")).glob("seed*/results.json")):
            scores[row.name].append(json.loads(path.read_text()))
    write(output / "table.json", scores)
    lines = [
        f"# {FLAGS.table}: {recipe.name}, {images} images, {recipe.epochs} epochs, batch {recipe.batch_size}",
        "",
        "Top-1 accuracy in per cent on frozen features, mean over the seeds and their range; the paper's is on",
        "ImageNet, ResNet-50, 300 epochs, linear.",
        "",
        "| | seeds | k-NN | linear | the paper |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        runs = scores[row.name]
        cells = [spread([one[name] for one in runs if name in one]) for name in ("knn_top1", "linear_top1")]
        failed = sum("failed" in one for one in runs)
        seeds = f"{len(runs)}, {failed} failed" if failed else str(len(runs))
        lines.append(f"| {row.name} | {seeds} | {' | '.join(cells)} | {'-' if row.paper is None else row.paper} |")
    (output / "table.md").write_text("\n".join(lines) + "\n")
    linear = [[one["linear_top1"] for one in scores[row.name] if "linear_top1" in one] for row in rows]
    kb.plots.table_of_runs([row.name for row in rows], linear, [row.paper for row in rows], output / "table.png")


def spread(values):
    """Mean and range, as text."""
    if not values:
        return "-"
    values = 100 * np.asarray(values)
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"


def write(path, content):
    """JSON, whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.rename(path)


if __name__ == "__main__":
    app.run(main)
