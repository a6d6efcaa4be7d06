"""Shared parts of the benchmarks: measurements in separate processes, parts of the peers, and the results file."""

import importlib.util
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import types


def in_process(script, *arguments):
    """Runs a benchmark script in a separate process and parses the last line of its output as JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(script, contenders, rounds, *arguments):
    """Measures contenders alternately, each in a separate process.

    Returns:
        Dictionary from each contender to the list of its results, one number per round.
    """
    measured = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in contenders:
            measured[name].append(in_process(script, "--contender", name, *arguments))
    return measured


def pil_crop(image, size):
    """Returns a random crop of a PIL image, resized to a square, like torchvision's RandomResizedCrop."""
    from PIL import Image

    width, height = image.size
    while True:
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            break
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    return image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)


def lightly_loss(path, redundancy_weight):
    """Returns lightly's `BarlowTwinsLoss`, loaded from its source file, because the package imports torchvision."""
    specification = importlib.util.spec_from_file_location("lightly_loss", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.BarlowTwinsLoss(redundancy_weight)


def lightly_class(directory, module, name):
    """Returns a class of lightly, such as `("loss.ntx_ent_loss", "NTXentLoss")`, without importing the whole package.

    The package imports torchvision. Packages without their `__init__` stand in for it, so that only the module and what
    it needs are imported.

    Args:
        directory: Directory that contains the package `lightly`.
        module: Module, relative to `lightly`.
        name: Name of the class.
    """
    root = pathlib.Path(directory) / "lightly"
    if not (root / "loss").is_dir():
        raise SystemExit(f"error: --lightly must contain the package lightly. Received: {directory}. Unpack its wheel.")
    for package in ("", "loss", "utils", "models", "models.modules"):
        standin = types.ModuleType(".".join(filter(None, ("lightly", package))))
        standin.__path__ = [str(root / package.replace(".", "/"))]
        sys.modules.setdefault(standin.__name__, standin)
    # Imports torchvision too, and is only used by distributed runs.
    sys.modules.setdefault("lightly.models.utils", types.ModuleType("lightly.models.utils"))
    sys.modules["lightly.models"].utils = sys.modules["lightly.models.utils"]
    return getattr(importlib.import_module(f"lightly.{module}"), name)


def write(results, path):
    """Writes results and the kind of machine as JSON, unless `path` is None."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**results, "cpus": os.cpu_count(), "machine": os.uname().machine}, file, indent=2)
            file.write("\n")
