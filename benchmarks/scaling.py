"""Cost of a training step on many replicas: counted in traced graphs, and extrapolated by a model.

    python benchmarks/scaling.py --output=benchmarks/results/scaling

Part 1 traces the step of `cifar10_resnet18` with the feature form and the batch form of the loss, on 1, 2 and 4
replicas of one process and on 2 and 4 worker processes. For one replica, it counts the multiplications in matrix
products and convolutions, and the bytes passed to collectives. The model must predict exactly these numbers, or the
benchmark fails. Part 2 extrapolates the model to 1,024 replicas of the machines below. It writes `counts.json`,
`README.md` and `scaling.png`.

Not counted: views, activations and normalization (arithmetic outside matrix products), and a few integers, the numbers
of rows, whose collective costs some microseconds of latency.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness

FORMS = ("feature", "batch")
BATCH, FEATURES = 64, 256
DEVICES = [("replicas", 1), ("replicas", 2), ("replicas", 4), ("workers", 2), ("workers", 4)]
REPLICAS = (1, 8, 64, 256, 1024)
BATCHES = tuple(2**power for power in range(11, 16))


@dataclasses.dataclass(frozen=True)
class Machine:
    """Hardware of one replica: data-sheet values times an estimated utilization.

    Attributes:
        name: Name in the tables.
        network_rate: Multiplications per second in encoder and projector, in bfloat16.
        loss_rate: Multiplications per second in the loss, in float32.
        links: Tuples `(maximum number of replicas, bytes per second sent by a replica, seconds of latency per hop)`.
    """

    name: str
    network_rate: float
    loss_rate: float
    links: tuple

    def link(self, replicas):
        """Returns the bytes per second and the latency between this number of replicas."""
        return next((rate, latency) for limit, rate, latency in self.links if replicas <= limit)


# A multiplication and an addition are two floating-point operations. The utilization is 40% everywhere.
MACHINES = (
    Machine("16-core CPU, 10 Gbit Ethernet", 0.4 * 1.0e12 / 2, 0.4 * 1.0e12 / 2, ((math.inf, 1.25e9, 30e-6),)),
    # 989 TFLOP/s bfloat16, 494 TF32; NVLink 450 GB/s each way. Rings between nodes use all 8 cards of 400 Gbit/s.
    Machine(
        "H100, NVLink and InfiniBand", 0.4 * 989e12 / 2, 0.4 * 494e12 / 2, ((8, 360e9, 3e-6), (math.inf, 320e9, 6e-6))
    ),
    # 459 TFLOP/s bfloat16, float32 in three passes; 4,800 Gbit/s between chips.
    Machine("TPU v5p", 0.4 * 459e12 / 2, 0.4 * 459e12 / 2 / 3, ((math.inf, 300e9, 1e-6),)),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """Properties of encoder and projector that the model needs.

    Attributes:
        forward: Multiplications in one forward pass of one image.
        first: Multiplications in the first layer, which needs no gradient of its input.
        parameters: Number of trainable parameters.
        channels: Number of channels of each batch normalization.
        features: Number of features D of the embeddings.
    """

    forward: int
    first: int
    parameters: int
    channels: tuple
    features: int

    @classmethod
    def of(cls, model):
        """Reads the properties of a built `BarlowTwins` model."""
        import keras

        from keras_barlow import keras_internals

        forward, channels = [], []
        for layer in [*model.encoder.layers, *keras_internals.flat_layers(model.projector)]:
            if isinstance(layer, keras.layers.Conv2D):
                forward.append(math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3]))
            elif isinstance(layer, keras.layers.Dense):
                forward.append(math.prod(layer.kernel.shape))
            elif isinstance(layer, keras.layers.BatchNormalization):
                channels.append(layer.gamma.shape[0])
        parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        return cls(sum(forward), forward[0], parameters, tuple(channels), model.projector.widths[-1])


def cost(network, rows, replicas, form):
    """Returns the multiplications of one replica in a step, and the float32 bytes that it passes to collectives.

    Args:
        network: `Network`.
        rows: Number of rows N in the global batch.
        replicas: Number of replicas R.
        form: Form of the loss, `"feature"` or `"batch"`.

    Returns:
        Dictionary with the multiplications `network` and `loss`, and the lists `statistics`, `embeddings`, `matrix` and
        `gradient` of pairs `(kind, bytes)`.
    """
    own, features = rows // replicas, network.features
    multiplications = {
        # Forward pass, and gradients of inputs and weights, for two views.
        "network": 2 * own * (3 * network.forward - network.first),
        "loss": 3 * own * features**2 if form == "feature" else 4 * own * rows * features,
    }
    none = {"statistics": [], "embeddings": [], "matrix": [], "gradient": []}
    if replicas == 1:
        return {**multiplications, **none}

    def sums(*numbers):
        return [("sum", 4 * number) for number in numbers]

    return {
        **multiplications,
        "statistics": [item for c in network.channels for _ in "ab" for item in sums(2 * c + 1, 2 * c)],
        "embeddings": [("gather", 4 * own * 2 * features), *sums(2 * features + 1)] if form == "batch" else [],
        "matrix": sums(1, 2 * features, 2 * features, features**2) if form == "feature" else [],
        "gradient": sums(network.parameters),
    }


def handed(costs, *parts):
    """Returns the bytes that a replica passes to collectives."""
    return sum(size for part in parts for _, size in costs[part])


def seconds(costs, replicas, machine):
    """Returns the seconds of each part of a step, without overlap: ring bandwidth and tree latency."""
    parts = {"network": costs["network"] / machine.network_rate, "loss": costs["loss"] / machine.loss_rate}
    rate, latency = machine.link(replicas)
    for part in ("statistics", "embeddings", "matrix", "gradient"):
        parts[part] = 0.0
        for kind, size in costs[part]:
            sent = 2 * (replicas - 1) / replicas * size if kind == "sum" else (replicas - 1) * size
            hops = (2 if kind == "sum" else 1) * math.ceil(math.log2(replicas))
            parts[part] += sent / rate + hops * latency
    return parts


def speedup(network, rows, replicas, machine):
    """Returns the speedup over one replica."""

    def total(replicas):
        return min(sum(seconds(cost(network, rows, replicas, form), replicas, machine).values()) for form in FORMS)

    return total(1) / total(replicas)


def loss_seconds(network, rows, replicas, form, machine):
    """Returns the seconds of the loss alone, including its communication."""
    parts = seconds(cost(network, rows, replicas, form), replicas, machine)
    return parts["loss"] + parts["embeddings"] + parts["matrix"]


def small_recipe():
    import keras_barlow as kb

    recipe = kb.recipes.get("cifar10_resnet18")
    return dataclasses.replace(recipe, projector=(FEATURES,) * 3, batch_size=BATCH, precision="float32", epochs=1)


def count(kind, number, form, output):
    """Traces a step on some devices, and writes the counts of the first replica and of the model to a file."""
    import tensorflow as tf

    import keras_barlow as kb

    if kind == "replicas":
        devices = [tf.config.LogicalDeviceConfiguration()] * number
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = kb.distribution.get_strategy({"workers": "multi_worker"}.get(kind, "mirrored" if number > 1 else "none"))
    with strategy.scope():
        model = small_recipe().build(50_000, seed=0)
        model.loss = kb.losses.BarlowTwinsLoss(form=form)
        model.optimizer.build(model.trainable_variables)
    own = BATCH // number
    dataset = kb.distribution.distribute(
        strategy,
        lambda share: tf.data.Dataset.from_tensors(tf.zeros((own, 32, 32, 3), "uint8")).repeat(),
    )
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    graph = step.get_concrete_function(next(iter(dataset))).graph
    counted = counts_of(graph, own)
    network = Network.of(model)
    costs = cost(network, BATCH, number, form)
    predicted = {
        "multiplications": costs["network"] + costs["loss"],
        "bytes": handed(costs, "statistics", "embeddings", "matrix", "gradient"),
    }
    if kb.distribution.is_chief(strategy):
        pathlib.Path(output).write_text(json.dumps({"counted": counted, "model": predicted}))
    kb.distribution.agreement(strategy)(False)


def counts_of(graph, own):
    """Counts the multiplications of the first replica in this process, and the bytes that it passes to collectives."""
    operations = graph.get_operations()
    first = min((op.device for op in operations if op.type == "Conv2D"), default="")
    multiplications = size = 0
    for op in operations:
        if op.type == "AddN" and len({tensor.device for tensor in op.inputs}) > 1:
            # Within one process, the first device sums the gradients.
            size += op.inputs[0].dtype.size * op.inputs[0].shape.num_elements()
        # TensorFlow also traces the gradient of the images, and prunes it because it is unused.
        if op.device != first or not any(tensor.consumers() for tensor in op.outputs):
            continue
        if op.type == "MatMul":
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            # After a gather, the static number of rows is unknown, as in `gram = a all_a^T` and `gram all_a`.
            rows, columns = op.outputs[0].shape
            multiplications += (rows or own) * (columns or BATCH) * (inner or BATCH)
        elif op.type.startswith("Conv2D"):
            # Output or its gradient, and kernel or its gradient, for each of the three kinds of operations.
            images = op.outputs[0] if op.type == "Conv2D" else op.inputs[2]
            kernel = op.outputs[0] if op.type == "Conv2DBackpropFilter" else op.inputs[1]
            multiplications += images.shape.num_elements() * math.prod(kernel.shape[:3])
        elif op.type in ("CollectiveReduceV2", "CollectiveReduceV3"):
            size += op.inputs[0].dtype.size * op.inputs[0].shape.num_elements()
        elif op.type == "CollectiveGatherV2" and op.inputs[0].dtype.is_floating:
            # Padding to the longest removes the static shape: use the shape before padding.
            tensor = op.inputs[0]
            while None in tensor.shape.as_list():
                tensor = tensor.op.inputs[0]
            size += tensor.dtype.size * tensor.shape.num_elements()
    return {"multiplications": multiplications, "bytes": size}


def counts():
    """Part 1: returns the counts and predictions for all devices and forms, which must agree."""
    rows = []
    for kind, number in DEVICES:
        for form in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                output = os.path.join(folder, "counts.json")
                launch = ["-m", "keras_barlow.launch", f"--workers={number}"] if kind == "workers" else []
                flags = ["--count", kind, str(number), form, output]
                subprocess.run([sys.executable, *launch, __file__, *flags], check=True, stderr=subprocess.DEVNULL)
                row = {
                    "devices": f"{number} {kind if number > 1 else kind[:-1]}",
                    "form": form,
                    **json.loads(pathlib.Path(output).read_text()),
                }
            print(row, flush=True)
            rows.append(row)
    different = [row for row in rows if row["counted"] != row["model"]]
    if different:
        raise SystemExit(f"The model must predict the counts. Received: {different}.")
    return rows


def imagenet(features):
    """Returns the paper's network: ResNet-50 on 224 x 224, with a projector of D features."""
    import keras_barlow as kb

    recipe = dataclasses.replace(kb.recipes.get("imagenet_resnet50"), projector=(8,) * 3)
    network = Network.of(recipe.build(1_000_000, seed=0))
    # Replace the projector of width 8, which is fast to build, with one of width D.
    small, large = (2048 * d + 2 * d * d for d in (8, features))
    return dataclasses.replace(
        network,
        forward=network.forward - small + large,
        parameters=network.parameters - small - 4 * 8 + large + 4 * features,
        channels=(*network.channels[:-2], features, features),
        features=features,
    )


def report(rows, folder):
    """Part 2: writes the tables and the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    import keras_barlow as kb

    networks = {features: imagenet(features) for features in (1024, 2048, 4096, 8192, 16384)}
    paper = networks[8192]
    lines = [
        "# Many replicas: counts and a model",
        "",
        f"`python benchmarks/scaling.py --output={folder}`. Counts are exact. All times are PREDICTIONS",
        "from data sheets, at 40% of peak arithmetic, without overlap of communication. No such machine was used.",
        "",
        "## Counts in the traced step, equal to the model",
        "",
        f"`cifar10_resnet18`, batch {BATCH}, D = {FEATURES}; one replica. The bytes include batch-norm statistics, "
        "embeddings or matrix, and gradient.",
        "",
        "| devices | form | million multiplications | bytes passed to collectives |",
        "|---|---|---|---|",
    ]
    for row in rows:
        counted = row["counted"]
        lines.append(
            f"| {row['devices']} | {row['form']} | {counted['multiplications'] / 1e6:,.1f} | {counted['bytes']:,} |"
        )
    lines += [
        "",
        "## The paper's step on many replicas",
        "",
        f"ResNet-50 on 224 x 224, projector 3 x 8192, N = 2048: {paper.parameters / 1e6:.0f} million weights, "
        f"{(paper.parameters - imagenet_encoder(paper)) / 1e6:.0f} of them in the projector. Milliseconds per step:",
        "",
        "| machine | replicas | form | network | loss | BN sums | loss exchange | gradient | images/s | efficiency |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    efficiency = {}
    for machine in MACHINES:
        for replicas in REPLICAS:
            form = "batch" if kb.losses.batch_form_is_cheaper(2048, 8192, replicas) else "feature"
            parts = seconds(cost(paper, 2048, replicas, form), replicas, machine)
            total = sum(parts.values())
            efficiency[machine.name, replicas] = speedup(paper, 2048, replicas, machine) / replicas
            lines.append(
                f"| {machine.name} | {replicas} | {form} | {1e3 * parts['network']:,.1f} | {1e3 * parts['loss']:.2f} | "
                f"{1e3 * parts['statistics']:.1f} | {1e3 * (parts['embeddings'] + parts['matrix']):.2f} | "
                f"{1e3 * parts['gradient']:.1f} | {2048 / total:,.0f} | "
                f"{100 * efficiency[machine.name, replicas]:.0f} % |"
            )
    lines += [
        "",
        "Efficiency for larger batches, with the cheaper form:",
        "",
        "| machine | replicas | " + " | ".join(f"N = {rows_}" for rows_ in BATCHES) + " |",
        "|---" * (2 + len(BATCHES)) + "|",
    ]
    for machine in MACHINES:
        for replicas in REPLICAS[1:]:
            cells = [f"{100 * speedup(paper, rows_, replicas, machine) / replicas:.0f} %" for rows_ in BATCHES]
            lines.append(f"| {machine.name} | {replicas} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The loss is never the bottleneck. On Ethernet, the gradient is, mostly that of the projector. Between",
        "accelerators, latency is: batch normalization needs 220 small sums per step, one after another, which take",
        "longer on 64 H100 than everything else together. Larger batches help in both cases.",
        "",
        "## When the batch form is faster",
        "",
        "Time of the loss alone with communication, feature form / batch form: above 1, the batch form is faster.",
        'Bold: `form="auto"` selects the batch form.',
        "",
    ]
    worst = 1.0
    for machine in MACHINES:
        lines += [f"### {machine.name}", "", "| D | R | " + " | ".join(f"N = {rows_}" for rows_ in BATCHES) + " |"]
        lines.append("|---" * 7 + "|")
        for features, network in networks.items():
            for replicas in (8, 64, 1024):
                cells = []
                for rows_ in BATCHES:
                    feature, batch = (loss_seconds(network, rows_, replicas, form, machine) for form in FORMS)
                    chosen = kb.losses.batch_form_is_cheaper(rows_, features, replicas)
                    worst = max(worst, (batch if chosen else feature) / min(batch, feature))
                    cells.append(f"**{feature / batch:.2f}**" if chosen else f"{feature / batch:.2f}")
                lines.append(f"| {features} | {replicas} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        f"In these tables, `auto` takes at most {worst:.1f} times as long as the better form.",
        "",
        "## Cost of the projector's gradient",
        "",
        "| D | weights of the projector | bytes | " + " | ".join(f"{m.name}, 64 replicas" for m in MACHINES) + " |",
        "|---" * (3 + len(MACHINES)) + "|",
    ]
    for features in networks:
        weights = 2048 * features + 2 * features**2 + 4 * features
        cells = []
        for machine in MACHINES:
            rate, _ = machine.link(64)
            cells.append(f"{1e3 * 2 * 63 / 64 * 4 * weights / rate:,.1f} ms")
        sizes = [f"{weights / 1e6:.0f} M", f"{4 * weights / 1e6:,.0f} MB"]
        lines.append("| " + " | ".join([str(features), *sizes, *cells]) + " |")
    lines += ["", "![Efficiency and time of the loss](scaling.png)", ""]

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for machine, color in zip(MACHINES, ("tab:blue", "tab:green", "tab:orange"), strict=True):
        shares = [100 * efficiency[machine.name, replicas] for replicas in REPLICAS]
        left.plot(REPLICAS, shares, "o-", color=color, label=machine.name)
        for form, style in zip(FORMS, ("--", "-"), strict=True):
            times = [1e3 * loss_seconds(paper, rows_, 64, form, machine) for rows_ in BATCHES]
            right.plot(BATCHES, times, style, color=color, label=f"{machine.name.split(',')[0]}, {form} form")
    left.set(xscale="log", xlabel="replicas", ylabel="efficiency, %", ylim=(0, 105))
    left.set(title="ResNet-50, N = 2048, D = 8192")
    left.set_xticks(REPLICAS, REPLICAS)
    right.set(xscale="log", yscale="log", xlabel="global batch N", ylabel="ms", title="The loss, D = 8192, 64 replicas")
    right.set_xticks(BATCHES, BATCHES)
    left.legend(fontsize=8)
    right.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3)
    for axes in (left, right):
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "scaling.png", dpi=120)
    (folder / "README.md").write_text("\n".join(lines))


def imagenet_encoder(network):
    """Returns the number of weights in the encoder alone."""
    d = network.features
    return network.parameters - (2048 * d + 2 * d * d + 4 * d)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="folder to write")
    parser.add_argument("--counts", help="counts.json of an earlier run, instead of part 1")
    parser.add_argument("--count", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        kind, number, form, output = options.count
        count(kind, int(number), form, output)
        return
    folder = options.output or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if options.counts:
        rows = json.loads(pathlib.Path(options.counts).read_text())["counts"]
    else:
        rows = counts()
        harness.write({"counts": rows}, folder / "counts.json")
    report(rows, folder)
    print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
