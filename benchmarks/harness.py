"""Shared parts of the benchmarks: measurements in separate processes, parts of the peers, and the results file."""

import importlib.util
import json
import math
import os
import random
import subprocess
import sys


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


def write(results, path):
    """Writes results and the kind of machine as JSON, unless `path` is None."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**results, "cpus": os.cpu_count(), "machine": os.uname().machine}, file, indent=2)
            file.write("\n")
