"""The loss and its gradient: ours, the D x D form by automatic differentiation, and lightly's.

    python benchmarks/loss.py --output=benchmarks/results/loss.json
    python benchmarks/loss.py --features=128 --output=benchmarks/results/loss_128.json

For each batch size N and D features, 8192 unless told: the median of 9 times of value and gradient (99 for few
features), the extra memory at the peak, and what each of 8 replicas hands to collectives, counted while tracing
(lightly's: its one sum of the matrix, by its source). lightly's column needs PyTorch and `--lightly`, the path of its
`barlow_twins_loss.py` (lightly itself imports torchvision). Every row and column runs in a process of its own, one
after the other, and the ratios are of one run.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

FEATURES = int(os.environ.get("FEATURES", 8192))
WEIGHT = 0.0051
# More where a call takes a millisecond.
REPEATS = 9 if FEATURES > 1000 else 99
REPLICAS = 8


def embeddings(rows):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(rows, FEATURES))
    return [(shared + rng.normal(size=shared.shape)).astype("float32") for _ in range(2)]


def ours(rows):
    """`BarlowTwinsLoss`, value and gradient as the training step takes them."""
    import tensorflow as tf

    import keras_barlow as kb

    z_a, z_b = map(tf.constant, embeddings(rows))
    step = tf.function(kb.losses.BarlowTwinsLoss(WEIGHT).value_and_gradient)
    return lambda: float(step(z_a, z_b)[0].loss)


def matrix(rows):
    """The D x D form, as every other implementation has it, by automatic differentiation."""
    import tensorflow as tf

    z_a, z_b = map(tf.constant, embeddings(rows))

    @tf.function
    def step(z_a, z_b):
        with tf.GradientTape() as tape:
            tape.watch([z_a, z_b])
            a, b = ((z - tf.reduce_mean(z, 0)) / tf.sqrt(tf.math.reduce_variance(z, 0) + 1e-5) for z in (z_a, z_b))
            c = tf.matmul(a, b, transpose_a=True) / rows
            diagonal = tf.linalg.diag_part(c)
            off_diagonal = tf.reduce_sum(tf.square(c)) - tf.reduce_sum(tf.square(diagonal))
            loss = tf.reduce_sum(tf.square(1.0 - diagonal)) + WEIGHT * off_diagonal
        return loss, tape.gradient(loss, [z_a, z_b])

    return lambda: float(step(z_a, z_b)[0])


def lightly(rows):
    """lightly's loss in PyTorch."""
    import torch

    specification = importlib.util.spec_from_file_location("peer", os.environ["LIGHTLY_LOSS"])
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    criterion = module.BarlowTwinsLoss(WEIGHT)
    z_a, z_b = (torch.from_numpy(z).requires_grad_() for z in embeddings(rows))

    def step():
        z_a.grad = z_b.grad = None
        loss = criterion(z_a, z_b)
        loss.backward()
        return float(loss.detach())

    return step


def measure(name, rows):
    """Median time and extra memory of one loss, in this process."""
    step = {"ours": ours, "matrix": matrix, "lightly": lightly}[name](rows)
    if name != "lightly":
        # A first call on other data loads what TensorFlow loads once; what remains is the loss's own.
        import tensorflow as tf

        tf.linalg.matmul(tf.ones((64, 64)), tf.ones((64, 64)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = step()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return {"ms": 1e3 * statistics.median(times), "extra_mib": (peak - before) / 1024, "loss": value}


def exchanged(rows, form):
    """MiB that one of 8 replicas hands to collectives, counted while the loss is traced on 8 logical devices."""
    import tensorflow as tf

    import keras_barlow as kb

    devices = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(REPLICAS)])
    loss = kb.losses.BarlowTwinsLoss(WEIGHT, form=form)
    sizes = []

    def counted(collective):
        def call(x):
            sizes.append(x.shape.num_elements() * x.dtype.size)
            return collective(x)

        return call

    # TensorFlow's gather pads its rows in the graph, where their number is no longer seen: count at the calls.
    for name in ("gather_rows", "sum_over_replicas"):
        setattr(kb.distribution, name, counted(getattr(kb.distribution, name)))

    @tf.function
    def step():
        z = tf.zeros((rows // REPLICAS, FEATURES))
        return strategy.run(lambda: loss.value_and_gradient(z, z, rows)[1:])

    step.get_concrete_function()
    return sum(sizes) / REPLICAS / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--lightly", help="path of lightly's loss/barlow_twins_loss.py")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--measure", nargs=2, metavar=("LOSS", "ROWS"), help="for the processes of its own")
    parser.add_argument("--exchanged", nargs=2, metavar=("ROWS", "FORM"), help="the same")
    arguments = parser.parse_args()
    if arguments.exchanged:
        print(json.dumps(exchanged(int(arguments.exchanged[0]), arguments.exchanged[1])))
        return
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]))))
        return
    names = ["ours", "matrix"] + ["lightly"] * bool(arguments.lightly)
    environment = {**os.environ, "LIGHTLY_LOSS": arguments.lightly or "", "FEATURES": str(arguments.features)}

    def in_process(*command):
        command = [sys.executable, __file__, *command]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    results = {"features": arguments.features, "cpus": os.cpu_count(), "machine": platform.machine(), "rows": {}}
    print(f"{'N':>6} {'loss':10} {'ms':>9} {'extra MiB':>10} {'times ours':>11} {'MiB exchanged':>14}")
    for rows in arguments.rows:
        row = results["rows"][rows] = {}
        for name in names:
            row[name] = in_process("--measure", name, str(rows))
            row[name]["times_ours"] = row[name]["ms"] / row["ours"]["ms"]
            form = {"ours": "auto", "matrix": "feature"}.get(name)
            row[name]["exchanged_mib"] = (
                in_process("--exchanged", str(rows), form) if form else arguments.features**2 * 4 / 2**20
            )
            print(
                f"{rows:6} {name:10} {row[name]['ms']:9.1f} {row[name]['extra_mib']:10.0f} "
                f"{row[name]['times_ours']:11.2f} {row[name]['exchanged_mib']:14.0f}",
                flush=True,
            )
        losses = [row[name]["loss"] for name in names]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
