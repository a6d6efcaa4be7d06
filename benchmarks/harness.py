"""What the benchmarks share: measurements in processes of their own, parts of the peers, the file of results."""

import importlib.util
import json
import math
import os
import random
import subprocess
import sys


def in_process(script, *arguments):
    """Runs a benchmark again as a process of its own and reads the JSON of its last line."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(script, contenders, rounds, *arguments):
    """Measures contenders one after the other, each in a process of its own, and all of them again.

    Returns:
        For each contender the list of what it printed last, a number, round by round.
    """
    measured = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in contenders:
            measured[name].append(in_process(script, "--contender", name, *arguments))
    return measured


def pil_crop(image, size):
    """A random crop of a PIL image, resized to a square, as torchvision's RandomResizedCrop makes it."""
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
    """lightly's `BarlowTwinsLoss`, from its one file: the package imports torchvision."""
    specification = importlib.util.spec_from_file_location("lightly_loss", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.BarlowTwinsLoss(redundancy_weight)


def write(results, path):
    """Writes results as JSON, with the machine they were measured on, if there is a path."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**results, "cpus": os.cpu_count(), "machine": os.uname().machine}, file, indent=2)
            file.write("\n")
