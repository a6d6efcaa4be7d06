"""Figures of a training run, as PNG files. All images are on 0..255."""

import string

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

_DPI = 120
# Titles of logs that say more than their names.
_TITLES = {
    "invariance": "invariance term",
    "variance": "variance term",
    "covariance": "covariance term",
    "redundancy": "redundancy term, unweighted",
    "knn_top1": "k-NN top-1 accuracy",
}


def plot_views(views, images, path="views.png", step=0):
    """Plots a grid of the images in the first row and each view in a row below. Look at it before you start training.

    Small crops are enlarged to the size of a cell, without interpolation.

    Args:
        views: `keras_barlow.views.Views`, or another layer that returns a tuple of views.
        images: Array `(n, height, width, 3)` on 0..255, or a list of such images of any size.
        path: PNG file to write.
        step: Number that selects the random draws (see `Views`).

    Returns:
        `path`.
    """
    columns = [views(np.asarray(image)[None], step=step + number) for number, image in enumerate(images)]
    rows = {"image": images}
    for index, view in enumerate(zip(*columns, strict=True)):
        letter = string.ascii_uppercase[index : index + 1] or index + 1
        rows[f"view {letter}"] = [np.asarray(image[0]) for image in view]
    figure = Figure(figsize=(1.1 * len(images), 1.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for row, (name, batch) in enumerate(rows.items()):
        for column, image in enumerate(batch):
            _show(axes[row, column], image)
        axes[row, 0].set_ylabel(name)
    return _save(figure, path)


def loss_terms(metrics, path):
    """Plots the loss and the other logs of each epoch, such as the terms of the loss and the k-NN accuracy.

    Args:
        metrics: List with one dictionary per epoch: `epoch`, `loss` and any other logs, such as `invariance`,
            `redundancy` and `knn_top1`.
        path: PNG file to write.

    Returns:
        `path`.
    """
    names = {name for line in metrics for name in line if name not in ("epoch", "skipped")}
    # The loss first, the accuracy last.
    names = sorted(names, key=lambda name: (name != "loss", name == "knn_top1", name))
    figure = Figure(figsize=(3.4 * len(names), 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        lines = [line for line in metrics if name in line]
        axis.plot([line["epoch"] for line in lines], [line[name] for line in lines], marker=".")
        axis.set_title(_TITLES.get(name, name.replace("_", " ")))
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    return _save(figure, path)


def cross_correlation(before, after, path):
    """Plots the cross-correlation matrices before and after training side by side, on the same scale.

    Args:
        before: Array `(D, D)` with entries in [-1, 1].
        after: Array `(D, D)` with entries in [-1, 1].
        path: PNG file to write.

    Returns:
        `path`.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, matrix, name in zip(axes, (before, after), ("before", "after"), strict=True):
        matrix = np.asarray(matrix)
        diagonal = np.diagonal(matrix)
        off = np.sqrt((np.square(matrix).sum() - np.square(diagonal).sum()) / max(1, matrix.size - len(matrix)))
        picture = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(f"{name}: diagonal mean {diagonal.mean():.2f}, off-diagonal RMS {off:.2f}", fontsize=10)
    figure.colorbar(picture, ax=axes, label="correlation")
    return _save(figure, path)


def nearest_neighbors(queries, neighbors, path):
    """Plots test images in the first column and their most similar training images to the right.

    Args:
        queries: Array `(n, height, width, 3)` on 0..255.
        neighbors: Array `(n, k, height, width, 3)`, most similar first.
        path: PNG file to write.

    Returns:
        `path`.
    """
    rows, columns = neighbors.shape[:2]
    figure = Figure(figsize=(0.9 * (columns + 1), 0.95 * rows), layout="constrained")
    axes = figure.subplots(rows, columns + 1, squeeze=False)
    for row in range(rows):
        for column, image in enumerate([queries[row], *neighbors[row]]):
            _show(axes[row, column], image)
    axes[0, 0].set_title("query", fontsize=9)
    for column in range(columns):
        axes[0, column + 1].set_title(f"{column + 1}", fontsize=9)
    return _save(figure, path)


def contact_sheet(rows, path):
    """Plots rows of images, which may have different lengths.

    Args:
        rows: List of arrays `(k, height, width, 3)` on 0..255.
        path: PNG file to write.

    Returns:
        `path`.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(0.95 * columns + 0.4, 0.95 * len(rows) + 0.1), layout="constrained")
    for axis in figure.subplots(len(rows), columns, squeeze=False).ravel():
        axis.set_axis_off()
    for number, row in enumerate(rows):
        for column, image in enumerate(row):
            axis = figure.axes[number * columns + column]
            axis.set_axis_on()
            _show(axis, image)
        figure.axes[number * columns].set_ylabel(f"{number + 1}", rotation=0, ha="right", va="center")
    return _save(figure, path)


def feature_map(features, labels, path, class_names=None, seed=0):
    """Plots features in two dimensions by t-SNE, colored by class.

    Args:
        features: Float array `(n, features)`.
        labels: Integer array `(n,)` that selects the colors, or None.
        path: PNG file to write.
        class_names: Name of each label. None shows the numbers.
        seed: Random seed of the layout.

    Returns:
        `path`.
    """
    features = np.asarray(features, "float32")
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    perplexity = min(30, (len(features) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axis = figure.subplots()
    labels = np.zeros(len(features), int) if labels is None else np.asarray(labels)
    for label in np.unique(labels):
        rows = labels == label
        name = str(label) if class_names is None else class_names[label]
        color = f"C{label}" if label < 10 else None
        axis.scatter(*places[rows].T, s=8, color=color, label=name)
    axis.set_title("t-SNE of the features")
    axis.set_xticks([])
    axis.set_yticks([])
    if 1 < len(np.unique(labels)) <= 20:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2, frameon=False)
    return _save(figure, path)


def table_of_runs(names, scores, paper, path):
    """Plots the mean accuracy over seeds as bars with the range of the seeds, next to the paper's results.

    Args:
        names: List of strings, one per row.
        scores: List with the accuracies in [0, 1] of each row, one per seed; empty if a run failed.
        paper: List with the published accuracy of each row in percent, or None.
        path: PNG file to write.

    Returns:
        `path`.
    """
    published = [value is not None for value in paper]
    panels = 1 + any(published)
    figure = Figure(figsize=(3.2 + 3.6 * panels, 0.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for place, values in enumerate(scores):
        if values:
            percent = 100 * np.asarray(values)
            mean = percent.mean()
            axes[0].barh(place, mean, color="C0", xerr=[[mean - percent.min()], [percent.max() - mean]], capsize=3)
            axes[0].text(1, place, f"{mean:.1f}", va="center", color="white")
    axes[0].set_title("here: top-1, %")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    if any(published):
        for place, value in enumerate(paper):
            if value is not None:
                axes[1].barh(place, value, color="C1")
                axes[1].text(1, place, f"{value:.1f}", va="center", color="white" if value > 10 else "black")
        axes[1].set_title("the paper: ImageNet top-1, %")
    for axis in axes:
        axis.set_xlim(0, 100)
        axis.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def _show(axis, image):
    axis.imshow(np.clip(np.asarray(image), 0, 255).astype("uint8"), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def _save(figure, path):
    figure.savefig(path, dpi=_DPI)
    return path
