"""Trains several methods with several seeds on one protocol, and sets the results beside the published ones.

    python examples/compare.py --methods=barlowtwins,simclr --seeds=0,1           # on digits
    python examples/compare.py --recipe=cifar10_small --data_dir=cifar10.zip      # all methods

On two CPU cores, a run takes about 3 minutes on digits and 10 minutes with cifar10_small. The runs are those of
pretrain.py, one after another in separate processes, and its other flags, such as --epochs, apply to all of them.
Repeat the command to resume: finished runs are kept, failed runs are tried again, and an interrupted run resumes from
its checkpoint. A failed run does not stop the others; at the end, the exit code is 1.

The output folder contains `results.json`, `table.md`, `methods.png`, and for each run a folder and a log.
"""

import collections
import contextlib
import dataclasses
import fcntl
import json
import pathlib
import signal
import subprocess
import sys

import compare_report
import pretrain
from absl import app, flags
from run_report import write_json

import keras_barlow as kb

FLAGS = flags.FLAGS
flags.DEFINE_list("methods", pretrain.METHODS, "Methods to compare, separated by commas.")
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of the runs of each method, separated by commas.")

SCRIPT = pathlib.Path(pretrain.__file__)
AGAIN = "To resume, repeat the command."
# Flags of pretrain.py that are set here for each run, or that would leave a run without results.
NOT_SHARED = {
    "method": "Use --methods.",
    "seed": "Use --seeds.",
    "resume": "Leave it out: runs are always resumed.",
    "max_seconds": "Leave it out, and stop the command with Ctrl-C.",
    "labels": "Leave it out: methods are compared by accuracy.",
}

Run = collections.namedtuple("Run", "method seed folder")


def main(_):
    try:
        arguments = shared_arguments()
        methods, seeds = chosen_methods(), chosen_seeds()
        output = pathlib.Path(FLAGS.output_dir or f"runs/compare/{FLAGS.recipe}")
        recipes = {method: pretrain.chosen_recipe(method) for method in methods}
        pretrain.check_source(recipes[methods[0]])
        check_folder(output, arguments, recipes)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    runs = [Run(method, seed, output / method / f"seed{seed}") for seed in seeds for method in methods]
    with locked(output) as lock:
        errors = {run: error for run in runs if (error := train(run, arguments, lock))}
        compare_report.write(output, compare_report.collect(runs, errors), recipes)
    print((output / "table.md").read_text())
    if errors:
        sys.exit(f"error: {len(errors)} of {len(runs)} runs failed. Repeat the command to try them again.")


def shared_arguments():
    """Returns the flags of pretrain.py on the command line, as arguments of every run."""
    arguments = [flag for flag in FLAGS.get_flags_for_module(pretrain) if flag.present]
    for flag in arguments:
        if flag.name in NOT_SHARED:
            raise ValueError(
                f"All runs must have the same flags and end with an evaluation. Received: {flag.serialize()}. "
                f"{NOT_SHARED[flag.name]}"
            )
    return sorted(flag.serialize() for flag in arguments if flag.name != "output_dir")


def chosen_methods():
    """Returns the names of the methods, in lower case."""
    methods = [name.strip().lower() for name in FLAGS.methods]
    check_list("methods", methods)
    for name in methods:
        if name not in pretrain.METHODS:
            raise ValueError(f"Unknown method. Received: {name!r}. Known methods: {', '.join(pretrain.METHODS)}.")
    return methods


def chosen_seeds():
    """Returns the seeds as integers."""
    for text in FLAGS.seeds:
        if not text.strip().isdecimal():
            raise ValueError(f"--seeds must be integers from 0. Received: {text!r}. Use, for example, --seeds=0,1.")
    seeds = [int(text) for text in FLAGS.seeds]
    check_list("seeds", seeds)
    return seeds


def check_list(name, values):
    """Refuses an empty list, and one that contains a value twice."""
    if not values:
        raise ValueError(f"--{name} must not be empty. Received: --{name}= without a value. Leave it out or add some.")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"--{name} must differ from each other. Received: {value!r} twice. Remove one.")


def check_folder(output, arguments, recipes):
    """Creates the output folder, or refuses one whose runs have other settings: runs are compared with each other."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "settings.json"
    if not path.exists() and any(output.iterdir()):
        raise ValueError(
            f"The output folder must be empty or hold a comparison. Received: {output}, which holds other files. "
            "Choose another --output_dir."
        )
    existing = json.loads(path.read_text()) if path.exists() else {"flags": arguments, "recipes": {}}
    recipes = json.loads(json.dumps({method: dataclasses.asdict(recipe) for method, recipe in recipes.items()}))
    different = [] if existing["flags"] == arguments else ["flags (" + " ".join(existing["flags"]) + ")"]
    for method in recipes.keys() & existing["recipes"].keys():
        before, now = existing["recipes"][method], recipes[method]
        different += sorted(f"{name} of {method}" for name in now if now[name] != before.get(name))
    if different:
        raise ValueError(
            f"All runs of a comparison must have the same settings. Received: other {', '.join(different)} than those "
            f"in {output}. Choose another --output_dir."
        )
    write_json(path, {"flags": arguments, "recipes": {**existing["recipes"], **recipes}})


@contextlib.contextmanager
def locked(output):
    """Holds a lock on the output folder; it waits for a run that has outlived its killed command."""
    with open(output / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for a run that is still writing to {output} ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def stop(number, frame):
    """Handles SIGTERM and Ctrl-C."""
    sys.exit(f"Stopped by {signal.Signals(number).name}. {AGAIN}")


def train(run, arguments, lock):
    """Trains and evaluates a run, unless it is finished.

    Args:
        run: `Run`.
        arguments: Arguments of pretrain.py that all runs share.
        lock: Open file whose lock the process of the run holds too.

    Returns:
        The last line of the log if the run failed, or None.
    """
    if (run.folder / "results.json").exists():
        return None
    log = run.folder.with_suffix(".log")
    print(f"{run.method}, seed {run.seed} ... (log: {log})", flush=True)
    log.parent.mkdir(exist_ok=True)
    if kb.checkpoint.list_checkpoints(run.folder / "checkpoints"):
        # Only part of its time will be known.
        run.folder.with_suffix(".resumed").touch()
    own = [f"--method={run.method}", f"--seed={run.seed}", f"--output_dir={run.folder}", "--resume"]
    with open(log, "ab") as file:
        outputs = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        command = [sys.executable, SCRIPT, *arguments, *own]
        # In a separate session, so that Ctrl-C reaches the run only as a SIGTERM of this process.
        process = subprocess.Popen(command, **outputs, start_new_session=True, pass_fds=[lock.fileno()])
        try:
            process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if (run.folder / "results.json").exists():
        return None
    lines = log.read_text(errors="replace").split("\n")
    error = next((line.strip()[-500:] for line in reversed(lines) if line.strip()), f"exit code {process.returncode}")
    print(f"{run.method}, seed {run.seed} failed: {error}", flush=True)
    return error


if __name__ == "__main__":
    app.run(main)
