"""Loss and gradient: this library, the D x D form with automatic differentiation, and lightly.

    python benchmarks/loss.py --output=benchmarks/results/loss.json
    python benchmarks/loss.py --features=128 --output=benchmarks/results/loss_128.json

For each batch size N and D features (8192 by default), the benchmark reports the median time of value and gradient over
9 runs (99 for few features), the extra memory at the peak, and the data that each of 8 replicas passes to collectives.
The latter is counted while tracing; for lightly it is the sum of one matrix, according to its source. lightly's column
needs PyTorch and `--lightly`, the path of its `barlow_twins_loss.py` (lightly itself imports torchvision). Every
measurement runs in a separate process, one after another, and all ratios are within one run.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import numpy as np

WEIGHT = 0.0051
REPLICAS = 8


def embeddings(rows, features):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(rows, features))
    return [(shared + rng.normal(size=shared.shape)).astype("float32") for _ in range(2)]


def ours(rows, features, _):
    """Value and gradient of `BarlowTwinsLoss`, as computed by the training step."""
    import tensorflow as tf

    import keras_barlow as kb

    z_a, z_b = map(tf.constant, embeddings(rows, features))
    step = tf.function(kb.losses.BarlowTwinsLoss(WEIGHT).value_and_gradient)
    return lambda: float(step(z_a, z_b)[0]["loss"])


def matrix(rows, features, _):
    """The D x D form of other implementations, with automatic differentiation."""
    import tensorflow as tf

    z_a, z_b = map(tf.constant, embeddings(rows, features))

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


def lightly(rows, features, path):
    """lightly's loss in PyTorch."""
    import torch

    criterion = harness.lightly_loss(path, WEIGHT)
    z_a, z_b = (torch.from_numpy(z).requires_grad_() for z in embeddings(rows, features))

    def step():
        z_a.grad = z_b.grad = None
        loss = criterion(z_a, z_b)
        loss.backward()
        return float(loss.detach())

    return step


def measure(name, rows, features, path):
    """Measures the median time and extra memory of one loss in this process."""
    step = {"ours": ours, "matrix": matrix, "lightly": lightly}[name](rows, features, path)
    if name != "lightly":
        # Let TensorFlow load its libraries first, so that they do not count as memory of the loss.
        import tensorflow as tf

        tf.linalg.matmul(tf.ones((64, 64)), tf.ones((64, 64)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = step()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    # Repeat more often if a call takes only a millisecond.
    for _ in range(9 if features > 1000 else 99):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return {"ms": 1e3 * statistics.median(times), "extra_mib": (peak - before) / 1024, "loss": value}


def exchanged(rows, form, features):
    """Counts the MiB that one of 8 replicas passes to collectives while the loss is traced on 8 logical devices."""
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

    # Count at the calls, because TensorFlow's gather pads its rows and hides their number in the graph.
    for name in ("gather_rows", "sum_over_replicas"):
        setattr(kb.distribution, name, counted(getattr(kb.distribution, name)))

    @tf.function
    def step():
        z = tf.zeros((rows // REPLICAS, features))
        return strategy.run(lambda: loss.value_and_gradient(z, z, total_rows=rows)[1:])

    step.get_concrete_function()
    return sum(sizes) / REPLICAS / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--lightly", help="path of lightly's loss/barlow_twins_loss.py")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--measure", nargs=2, metavar=("LOSS", "ROWS"), help="used internally for subprocesses")
    parser.add_argument("--exchanged", nargs=2, metavar=("ROWS", "FORM"), help="used internally for subprocesses")
    arguments = parser.parse_args()
    features = arguments.features
    if arguments.exchanged:
        print(json.dumps(exchanged(int(arguments.exchanged[0]), arguments.exchanged[1], features)))
        return
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]), features, arguments.lightly)))
        return
    names = ["ours", "matrix"] + ["lightly"] * bool(arguments.lightly)
    options = ["--features", features, *(["--lightly", arguments.lightly] if arguments.lightly else [])]
    results = {"features": features, "rows": {}}
    print(f"{'N':>6} {'loss':10} {'ms':>9} {'extra MiB':>10} {'times ours':>11} {'MiB exchanged':>14}")
    for rows in arguments.rows:
        row = results["rows"][rows] = {}
        for name in names:
            row[name] = harness.in_process(__file__, *options, "--measure", name, rows)
            row[name]["times_ours"] = row[name]["ms"] / row["ours"]["ms"]
            form = {"ours": "auto", "matrix": "feature"}.get(name)
            row[name]["exchanged_mib"] = (
                harness.in_process(__file__, *options, "--exchanged", rows, form) if form else features**2 * 4 / 2**20
            )
            print(
                f"{rows:6} {name:10} {row[name]['ms']:9.1f} {row[name]['extra_mib']:10.0f} "
                f"{row[name]['times_ours']:11.2f} {row[name]['exchanged_mib']:14.0f}",
                flush=True,
            )
        losses = [row[name]["loss"] for name in names]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
    harness.write(results, arguments.output)


if __name__ == "__main__":
    main()
