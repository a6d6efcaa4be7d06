"""What the benchmarks share: a measurement in a process of its own, lightly's loss, and the file of results."""

import importlib.util
import json
import os
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
