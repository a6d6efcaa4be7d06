"""What a step costs on many replicas: counted in traced graphs, and carried on by a model that the counts check.

    python benchmarks/scaling.py --output=benchmarks/results/scaling

Part 1 traces the step of `cifar10_resnet18` with the feature and with the batch form of the loss, on 1, 2 and 4
replicas of one process and on 2 and 4 worker processes, and counts for one replica the multiplications of its matrix
products and convolutions, and the bytes that it hands to collectives. The model must give the same numbers, to the
last one, or the benchmark fails. Part 2 carries the model to 1,024 replicas of the machines below. It writes
`counts.json`, `README.md` and `scaling.png`.

Not counted: views, activations and normalisation (arithmetic that no product of matrices does), and a few integers,
the numbers of rows, of which a collective is some microseconds of latency.
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
    """What carries a replica, from data sheets, and a guess at how much of it a program gets.

    Attributes:
        name: For tables.
        network_rate: Multiplications per second of encoder and projector, in bfloat16.
        loss_rate: The same of the loss, in float32.
        links: Pairs `(up to how many replicas, bytes per second that a replica sends, seconds of latency per hop)`.
    """

    name: str
    network_rate: float
    loss_rate: float
    links: tuple

    def link(self, replicas):
        """Bytes per second and latency among so many replicas."""
        return next((rate, latency) for limit, rate, latency in self.links if replicas <= limit)


# A multiplication and an addition are two floating point operations. 40 % of what the data sheet says, on all of them.
MACHINES = (
    Machine("16-core CPU, 10 Gbit Ethernet", 0.4 * 1.0e12 / 2, 0.4 * 1.0e12 / 2, ((math.inf, 1.25e9, 30e-6),)),
    # 989 TFLOP/s bfloat16, 494 TF32; NVLink 450 GB/s each way. Rings between nodes leave by all 8 cards of 400 Gbit/s.
    Machine(
        "H100, NVLink and InfiniBand", 0.4 * 989e12 / 2, 0.4 * 494e12 / 2, ((8, 360e9, 3e-6), (math.inf, 320e9, 6e-6))
    ),
    # 459 TFLOP/s bfloat16, float32 by three passes; 4,800 Gbit/s between chips.
    Machine("TPU v5p", 0.4 * 459e12 / 2, 0.4 * 459e12 / 2 / 3, ((math.inf, 300e9, 1e-6),)),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """What the model has to know of encoder and projector.

    Attributes:
        forward: Multiplications of one image through both, once.
        first: Those of the first layer, of which the images need no gradient.
        parameters: Number of trainable weights.
        channels: Channels of each batch normalisation.
        features: D.
    """

    forward: int
    first: int
    parameters: int
    channels: tuple
    features: int

    @classmethod
    def of(cls, model):
        """Reads them from a built `BarlowTwins`."""
        import keras

        forward, channels = [], []
        for layer in [*model.encoder.layers, *model.projector._flatten_layers(include_self=False)]:
            if isinstance(layer, keras.layers.Conv2D):
                forward.append(math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3]))
            elif isinstance(layer, keras.layers.Dense):
                forward.append(math.prod(layer.kernel.shape))
            elif isinstance(layer, keras.layers.BatchNormalization):
                channels.append(layer.gamma.shape[0])
        parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        return cls(sum(forward), forward[0], parameters, tuple(channels), model.projector.widths[-1])


def cost(network, rows, replicas, form):
    """What one replica does in a step: multiplications, and bytes of float32 that it hands to collectives.

    Args:
        network: `Network`.
        rows: N of the global batch.
        replicas: R.
        form: Of the loss.

    Returns:
        A dictionary: `network` and `loss`, multiplications; `statistics`, `embeddings`, `matrix` and `gradient`, lists
        of `(kind, bytes)`.
    """
    own, features = rows // replicas, network.features
    multiplications = {
        # Forward, and back to inputs and weights, of two views.
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
        "statistics": [one for c in network.channels for _ in "ab" for one in sums(2 * c + 1, 2 * c)],
        "embeddings": [("gather", 4 * own * 2 * features), *sums(2 * features + 1)] if form == "batch" else [],
        "matrix": sums(1, 2 * features, 2 * features, features**2) if form == "feature" else [],
        "gradient": sums(network.parameters),
    }


def handed(costs, *parts):
    """Bytes that a replica hands to collectives."""
    return sum(size for part in parts for _, size in costs[part])


def seconds(costs, replicas, machine):
    """Seconds of the parts of a step, one after the other: rings for the bytes, trees for the latency."""
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
    """How many times as fast as on one replica."""

    def total(replicas):
        return min(sum(seconds(cost(network, rows, replicas, form), replicas, machine).values()) for form in FORMS)

    return total(1) / total(replicas)


def loss_seconds(network, rows, replicas, form, machine):
    """Those of the loss alone, its exchanges included."""
    parts = seconds(cost(network, rows, replicas, form), replicas, machine)
    return parts["loss"] + parts["embeddings"] + parts["matrix"]


def small_recipe():
    import keras_barlow as kb

    recipe = kb.recipes.get("cifar10_resnet18")
    return dataclasses.replace(recipe, projector=(FEATURES,) * 3, batch_size=BATCH, precision="float32", epochs=1)


def count(kind, number, form, output):
    """Traces a step on some devices; the first replica's counts, beside the model's, to a file."""
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
    modelled = {
        "multiplications": costs["network"] + costs["loss"],
        "bytes": handed(costs, "statistics", "embeddings", "matrix", "gradient"),
    }
    if kb.distribution.is_chief(strategy):
        pathlib.Path(output).write_text(json.dumps({"counted": counted, "model": modelled}))
    kb.distribution.agreement(strategy)(False)


def counts_of(graph, own):
    """Multiplications of the first replica in this process, and bytes that it hands to collectives."""
    operations = graph.get_operations()
    first = min((op.device for op in operations if op.type == "Conv2D"), default="")
    multiplications = size = 0
    for op in operations:
        if op.type == "AddN" and len({tensor.device for tensor in op.inputs}) > 1:
            # Inside of one process the first device sums the gradients.
            size += op.inputs[0].dtype.size * op.inputs[0].shape.num_elements()
        # TensorFlow traces the gradient of the images too, and drops it since nothing reads it.
        if op.device != first or not any(tensor.consumers() for tensor in op.outputs):
            continue
        if op.type == "MatMul":
            inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            # After a gather TensorFlow knows no numbers of rows: `gram = a all_a^T` and `gram all_a` then.
            rows, columns = op.outputs[0].shape
            multiplications += (rows or own) * (columns or BATCH) * (inner or BATCH)
        elif op.type.startswith("Conv2D"):
            # Output (or its gradient) and kernel (or its gradient), whichever of the three it is.
            images = op.outputs[0] if op.type == "Conv2D" else op.inputs[2]
            kernel = op.outputs[0] if op.type == "Conv2DBackpropFilter" else op.inputs[1]
            multiplications += images.shape.num_elements() * math.prod(kernel.shape[:3])
        elif op.type in ("CollectiveReduceV2", "CollectiveReduceV3"):
            size += op.inputs[0].dtype.size * op.inputs[0].shape.num_elements()
        elif op.type == "CollectiveGatherV2" and op.inputs[0].dtype.is_floating:
            # Padded to the longest, and so without a static shape: that of what is padded.
            tensor = op.inputs[0]
            while None in tensor.shape.as_list():
                tensor = tensor.op.inputs[0]
            size += tensor.dtype.size * tensor.shape.num_elements()
    return {"multiplications": multiplications, "bytes": size}


def counts():
    """Part 1: for every kind of devices and form what was counted and what the model says; they must agree."""
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
    wrong = [row for row in rows if row["counted"] != row["model"]]
    if wrong:
        raise SystemExit(f"The model must give what is counted. Received: {wrong}")
    return rows


def imagenet(features):
    """The paper's network, ResNet-50 on 224 x 224, with a projector of D features, which its weights are no part of."""
    import keras_barlow as kb

    recipe = dataclasses.replace(kb.recipes.get("imagenet_resnet50"), projector=(8,) * 3)
    network = Network.of(recipe.build(1_000_000, seed=0))
    # The projector of 8 is taken away, and one of D put in its place.
    small, large = (2048 * d + 2 * d * d for d in (8, features))
    return dataclasses.replace(
        network,
        forward=network.forward - small + large,
        parameters=network.parameters - small - 4 * 8 + large + 4 * features,
        channels=(*network.channels[:-2], features, features),
        features=features,
    )


def report(rows, folder):
    """Part 2: the tables and the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    import keras_barlow as kb

    networks = {features: imagenet(features) for features in (1024, 2048, 4096, 8192, 16384)}
    paper = networks[8192]
    lines = [
        "# Many replicas: counts and a model",
        "",
        f"`python benchmarks/scaling.py --output={folder}`. The counts are exact; everything in seconds is a MODEL:",
        "data sheets, 40 % of their arithmetic, and exchanges that do not overlap with it. No such machine was used.",
        "",
        "## Counted in the traced step, and equal to the model",
        "",
        f"`cifar10_resnet18`, batch {BATCH}, D = {FEATURES}; one replica. `BN` statistics, embeddings or matrix, and "
        "gradient are all in the bytes.",
        "",
        "| devices | form | million multiplications | bytes handed to collectives |",
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
        f"{(paper.parameters - imagenet_encoder(paper)) / 1e6:.0f} of them the projector's. Milliseconds of a step:",
        "",
        "| machine | replicas | form | network | loss | BN sums | loss' exchange | gradient | images/s | efficiency |",
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
        "The same for larger batches, efficiency with the cheaper form:",
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
        "What it says. The loss is nowhere the bottleneck. On Ethernet it is the gradient, most of it the projector's.",
        "Between accelerators it is latency: batch normalisation has 220 small sums in a step, each waiting for the",
        "one before, on 64 H100 more time than all the rest together. Larger batches repair both.",
        "",
        "## Where the batch form stops paying",
        "",
        "The loss alone, arithmetic and exchange, as feature form / batch form: above 1 the batch form is faster. In",
        'bold where `form="auto"` takes the batch form.',
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
        f"`auto` is nowhere in these tables more than {worst:.1f} times as slow as the better form.",
        "",
        "## What the projector's gradient costs",
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
    lines += ["", "![Efficiency and the loss' time](scaling.png)", ""]

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for machine, colour in zip(MACHINES, ("tab:blue", "tab:green", "tab:orange"), strict=True):
        shares = [100 * efficiency[machine.name, replicas] for replicas in REPLICAS]
        left.plot(REPLICAS, shares, "o-", color=colour, label=machine.name)
        for form, style in zip(FORMS, ("--", "-"), strict=True):
            times = [1e3 * loss_seconds(paper, rows_, 64, form, machine) for rows_ in BATCHES]
            right.plot(BATCHES, times, style, color=colour, label=f"{machine.name.split(',')[0]}, {form} form")
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
    """Weights of the encoder alone."""
    d = network.features
    return network.parameters - (2048 * d + 2 * d * d + 4 * d)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="folder to write")
    parser.add_argument("--counts", help="counts.json of an earlier run, in place of part 1")
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
