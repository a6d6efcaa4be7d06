"""What `pretrain.py` reports about a run: scores, pictures, the model card and the final table."""

import dataclasses
import json

import image_data
import keras
import numpy as np

import keras_barlow as kb
from keras_barlow.whole_files import replacing

# Names of classes that are not the usual names of their methods.
TITLES = {"BarlowTwins": "Barlow Twins"}
PICTURE_COLUMNS = 12
# With more numbers than this, logistic regression on raw pixels takes minutes.
PIXEL_LIMIT = 2**24


def measure_before_training(run):
    """Scores raw pixels and the untrained encoder, for the final comparison: `before.json` and `before.npy`.

    All workers extract features; only the chief scores and writes them.
    """
    results = {}
    if run.test:
        run.say("Evaluating raw pixels and the untrained encoder ...")
        sources = (run.train, run.test)
        features = image_data.features(run.model, sources, run.recipe.image_size)
        if run.chief and len(run.train) * 3 * run.train.image_size**2 <= PIXEL_LIMIT:
            pixels = [images.read(range(len(images))).reshape(len(images), -1) for images in sources]
            results["pixels"] = scores(run, pixels)
        if run.chief:
            results["untrained"] = scores(run, features)
    if run.chief:
        np.save(run.output / "before.npy", cross_correlation(run))
        # Written last, so that its presence means that both files exist.
        write_json(run.output / "before.json", results)


def title(method):
    """Returns the usual name of a method, such as "Barlow Twins" for `BarlowTwins`."""
    return TITLES.get(method, method)


def scores(run, features):
    """Returns the k-NN, linear and few-label accuracy of features of the training and the test images."""
    return kb.evaluation.evaluate_features(
        features[0], run.train.labels, features[1], run.test.labels, k=run.recipe.knn_k
    )


def cross_correlation(run):
    """Returns the cross-correlation matrix of the first two views of up to 1,024 images, in inference mode."""
    views = run.views(run.shown.sample(1024)[0], step=0)[:2]
    # In float32, as in the loss, regardless of the precision of the layers.
    embeddings = [keras.ops.cast(run.model.project(view), "float32") for view in views]
    return kb.losses.cross_correlation(*embeddings)


def draw(run, features):
    """Draws the five pictures of a run.

    Args:
        run: `pretrain.Run`.
        features: Features of the training images and of the shown images.
    """
    output, shown = run.output, run.shown
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    images, rows = shown.sample(PICTURE_COLUMNS)
    kb.plots.plot_views(run.views, images, output / "views.png")
    kb.plots.loss_terms(metrics, output / "loss.png")
    before = np.load(output / "before.npy")
    kb.plots.cross_correlation(before, cross_correlation(run), output / "cross_correlation.png")
    # A training image is its own nearest neighbor.
    itself = int(shown is run.train)
    neighbors, _ = kb.evaluation.nearest_neighbors(features[1][rows], features[0], k=min(8 + itself, len(run.train)))
    neighbors = neighbors[:, itself:]
    pictures = run.train.read(neighbors.reshape(-1)).reshape(*neighbors.shape, *images.shape[1:])
    kb.plots.nearest_neighbors(images, pictures, output / "nearest_neighbors.png")
    few = np.linspace(0, len(shown) - 1, min(2000, len(shown))).astype(int)
    labels = None if shown.labels is None else shown.labels[few]
    kb.plots.feature_map(features[1][few], labels, output / "feature_map.png")


def card(run, source, results):
    """Returns the contents of the model card.

    Args:
        run: `pretrain.Run`.
        source: Where the images come from.
        results: Dictionary of scores.
    """
    recipe = {**dataclasses.asdict(run.recipe), **dataclasses.asdict(run.settings)}
    return {
        "method": title(run.recipe.method),
        "recipe": {name: value for name, value in recipe.items() if value is not None},
        "data": f"{len(run.train)} images of {source}",
        "metrics": {name: value for name, value in results.items() if name.endswith("top1")},
    }


def table(results, method):
    """Formats the results as a short table, with a row for the name of the method."""
    rows = {"raw pixels": results.get("pixels"), "untrained": results.get("untrained"), title(method): results}
    if "untrained" not in results:
        return "There is nothing to compare without labels."
    lines = [f"{'':16}{'k-NN':>8}{'linear':>9}{'10 labels a class':>20}"]
    for name, row in rows.items():
        if row is not None:
            few = f"{row['few_label_top1']:20.3f}" if "few_label_top1" in row else f"{'fewer in a class':>20}"
            lines.append(f"{name:16}{row['knn_top1']:8.3f}{row['linear_top1']:9.3f}{few}")
    return "\n".join(lines)


def mean_and_range(values):
    """Formats fractions as their mean and range in percent; a single one has no range."""
    if not values:
        return "-"
    values = 100 * np.asarray(values)
    spread = f" ({values.min():.1f} to {values.max():.1f})" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def write_json(path, content):
    """Writes a JSON file, which an interruption never leaves incomplete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
