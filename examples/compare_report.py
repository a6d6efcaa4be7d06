"""What `compare.py` reports about its runs: the table, the order of the methods and the picture."""

import itertools
import json

import image_data
import numpy as np
import run_report
from matplotlib.figure import Figure

import keras_barlow as kb

METRICS = {"knn_top1": "k-NN", "linear_top1": "linear", "few_label_top1": "10 labels per class"}
# Fields of `recipes.published.Figures`, and the metric to compare each with.
PUBLISHED = {
    "imagenet_linear": ("ImageNet, linear", "linear_top1"),
    "cifar10_knn": ("CIFAR-10, k-NN", "knn_top1"),
    "cifar10_linear": ("CIFAR-10, linear", "linear_top1"),
}


def collect(runs, errors):
    """Returns the results of all runs: a dictionary from methods to dictionaries from seeds to results.

    Args:
        runs: List of `compare.Run`.
        errors: Dictionary from each failed run to its error.
    """
    results = {run.method: {} for run in runs}
    for run in runs:
        path = run.folder / "results.json"
        result = {"failed": errors[run]} if run in errors else json.loads(path.read_text())
        if run.folder.with_suffix(".resumed").exists():
            # The time of the last process is not that of the run.
            result.pop("seconds", None)
        results[run.method][str(run.seed)] = result
    return results


def write(output, results, recipes):
    """Writes `results.json`, `table.md` and `methods.png`.

    Args:
        output: Output folder.
        results: Results of all runs, as `collect` returns them.
        recipes: Dictionary from each method to its recipe.
    """
    run_report.write_json(output / "results.json", results)
    published = {method: kb.recipes.published.figures(recipe.method) for method, recipe in recipes.items()}
    titles = {method: run_report.title(recipe.method) for method, recipe in recipes.items()}
    first = next(iter(recipes.values()))
    epochs = sorted(recipe.epochs for recipe in recipes.values())
    epochs = " to ".join(dict.fromkeys(str(number) for number in (epochs[0], epochs[-1])))
    columns = ["seeds", *METRICS.values(), "seconds", *(title for title, _ in PUBLISHED.values())]
    untrained = [result["untrained"] for result in next(iter(results.values())).values() if "untrained" in result]
    lines = [
        f"# Methods on {image_data.dataset_name(first)}, {epochs} epochs",
        "",
        "Top-1 accuracy on frozen features in percent: mean over the seeds, and range. On the right, published ones:",
        "ImageNet with ResNet-50 and two views, CIFAR-10 with ResNet-18 (sources: keras_barlow/recipes/published.py).",
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
        f"| untrained | {len(untrained)} | {' | '.join(accuracies(untrained))} | " + " | ".join("----") + " |",
        *(row(titles[method], list(results[method].values()), published[method]) for method in results),
        "",
        *orders(results, published, titles),
    ]
    (output / "table.md").write_text("\n".join(lines) + "\n")
    draw(results, published, titles, output / "methods.png")


def row(title, results, published):
    """Formats the results of a method in Markdown."""
    failed = sum("failed" in result for result in results)
    seeds = f"{len(results)}, {failed} failed" if failed else str(len(results))
    seconds = [result["seconds"] for result in results if "seconds" in result]
    cells = [title, seeds, *accuracies(results), f"{np.mean(seconds):.0f}" if seconds else "-"]
    for field in PUBLISHED:
        value = getattr(published, field)
        cells.append("-" if value is None else f"{value:.1f}")
    if published.imagenet_epochs:
        cells[-len(PUBLISHED)] += f" ({published.imagenet_epochs} epochs)"
    return f"| {' | '.join(cells)} |"


def accuracies(results):
    """Formats each metric of several results."""
    return [run_report.mean_and_range(values(results, metric)) for metric in METRICS]


def values(results, metric):
    """Returns the values of a metric, without the runs that failed."""
    return [result[metric] for result in results if metric in result]


def orders(results, published, titles):
    """Returns lines that compare the order of the methods here with the published orders."""
    lines = []
    for field, (source, metric) in PUBLISHED.items():
        here = {titles[method]: values(runs.values(), metric) for method, runs in results.items()}
        theirs = {titles[method]: getattr(figures, field) for method, figures in published.items()}
        both = [title for title in here if here[title] and theirs[title] is not None]
        if len(both) > 1:
            means = {title: 100 * np.mean(here[title]) for title in both}
            lines += [
                f"- Published, {source}: {ranking({title: theirs[title] for title in both})}",
                f"  - Here, {METRICS[metric]}: {ranking(means)}",
                *reversed_pairs(here, means, theirs),
            ]
    return lines


def ranking(scores):
    """Formats names by their scores in percent, best first."""
    names = sorted(scores, key=scores.get, reverse=True)
    text = names[0]
    for better, name in itertools.pairwise(names):
        text += f" {'=' if round(scores[better], 1) == round(scores[name], 1) else '>'} {name}"
    return text


def reversed_pairs(here, means, theirs):
    """Returns lines with the pairs of methods whose order is not the published one."""
    pairs = {"by more than the range of the seeds": [], "within the range of the seeds": []}
    clearly, barely = pairs.values()
    for better, worse in itertools.permutations(means, 2):
        if means[better] > means[worse] and theirs[better] < theirs[worse]:
            apart = min(here[better]) > max(here[worse]) and min(len(here[better]), len(here[worse])) > 1
            (clearly if apart else barely).append(f"{better} over {worse}")
    return [f"  - Reversed, {how}: {', '.join(names)}" for how, names in pairs.items() if names]


def draw(results, published, titles, path):
    """Draws a dot per seed and a line at the mean for each metric, and the published figures beside them."""
    figure = Figure(figsize=(14, 1.7 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots(1, len(METRICS) + 1, sharey=True)
    for axis, (metric, name) in zip(axes, METRICS.items(), strict=False):
        for place, runs in enumerate(results.values()):
            percent = 100 * np.asarray(values(runs.values(), metric))
            axis.scatter(percent, np.full(len(percent), place), s=22, alpha=0.7, color="C0")
            if len(percent):
                axis.scatter(percent.mean(), place, s=240, marker="|", color="black")
        axis.set_title(f"here: {name}")
    for marker, (field, (source, _)) in zip("ods", PUBLISHED.items(), strict=True):
        figures = [getattr(published[method], field) for method in results]
        known = [(value, place) for place, value in enumerate(figures) if value is not None]
        if known:
            axes[-1].scatter(*zip(*known, strict=True), marker=marker, label=source, s=30)
    axes[-1].set_title("published")
    if axes[-1].collections:
        figure.legend(loc="outside lower right", ncols=len(PUBLISHED), frameon=False)
    axes[0].set_yticks(range(len(results)), [titles[method] for method in results])
    axes[0].set_ylim(len(results) - 0.5, -0.5)
    for axis in axes:
        axis.set_xlabel("top-1, %")
        axis.margins(x=0.12)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
