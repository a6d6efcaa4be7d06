"""Images per second of the whole training step: this library, and the same network in PyTorch with lightly's loss.

    python benchmarks/train_step.py --lightly=.../lightly/loss/barlow_twins_loss.py \\
        --output=benchmarks/results/train_step.json

ResNet-18 of width 16 on 32 x 32 pixels, 256 pairs of views, Adam; projectors 2048 x 3 and 8192 x 3; float32 and
bfloat16. PyTorch runs channels-last, with autocast for bfloat16. The views are precomputed, so only the step is timed.
Every measurement runs in a separate process, alternating between the two, and reports the median over steps. All ratios
are within one run.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import numpy as np

ROWS, SIZE, WIDTH, WEIGHT, RATE = 256, 32, 16, 0.005, 1e-3
WARM_UP, STEPS = 3, 9


def views():
    rng = np.random.default_rng(0)
    shared = rng.uniform(0, 255, (ROWS, SIZE, SIZE, 3))
    return [np.clip(shared + rng.normal(0, 20, shared.shape), 0, 255).astype("float32") for _ in range(2)]


def ours(features, precision, _):
    """Returns a step of `BarlowTwins.train_on_batch` and the number of trainable weights."""
    import keras
    import tensorflow as tf

    import keras_barlow as kb

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
    model = kb.BarlowTwins(
        kb.encoders.resnet18(input_shape=(SIZE, SIZE, 3), stem="small", width=WIDTH),
        kb.Projector((features,) * 3),
        loss=kb.losses.BarlowTwinsLoss(WEIGHT),
    )
    model.compile(keras.optimizers.Adam(RATE))
    pair = tuple(map(tf.constant, views()))
    return lambda: model.train_on_batch(pair), sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def pytorch(features, precision, path):
    """Returns a step of the same network in PyTorch with lightly's loss, and the number of trainable weights."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, before, channels, stride):
            super().__init__()
            self.residual = nn.Sequential(
                nn.Conv2d(before, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.shortcut = nn.Identity()
            if stride != 1:
                convolution = nn.Conv2d(before, channels, 1, stride, bias=False)
                self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(channels))

        def forward(self, x):
            return torch.relu(self.residual(x) + self.shortcut(x))

    layers = [nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
    before = WIDTH
    for stage in range(4):
        channels = WIDTH * 2**stage
        layers += [Block(before, channels, 2 if stage else 1), Block(channels, channels, 1)]
        before = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(before, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(inplace=True)]
        before = features
    layers += [nn.Linear(before, features, bias=False)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    criterion = harness.lightly_loss(path, WEIGHT)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    pair = [torch.from_numpy((view / 255 - 0.45) / 0.225).permute(0, 3, 1, 2) for view in views()]
    pair = [view.contiguous(memory_format=torch.channels_last) for view in pair]

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            z_a, z_b = (model(view) for view in pair)
        loss = criterion(z_a.float(), z_b.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach().item()

    return step, sum(parameter.numel() for parameter in model.parameters())


def measure(name, features, precision, path):
    step, weights = {"ours": ours, "pytorch": pytorch}[name](features, precision, path)
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return {"images_per_second": ROWS / statistics.median(times), "weights": weights}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lightly", help="path of lightly's loss/barlow_twins_loss.py")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--measure", nargs=3, metavar=("NAME", "FEATURES", "PRECISION"), help="used internally")
    arguments = parser.parse_args()
    if arguments.measure:
        name, features, precision = arguments.measure
        print(json.dumps(measure(name, int(features), precision, arguments.lightly)))
        return
    cells = [(features, precision) for features in (2048, 8192) for precision in ("float32", "bfloat16")]
    names = ["ours"] + ["pytorch"] * bool(arguments.lightly)
    options = ["--lightly", arguments.lightly] if arguments.lightly else []
    results = {"images": ROWS, "cells": []}
    print(f"{'projector':>10} {'precision':10}" + "".join(f"{name + ', images/s':>20}" for name in names) + "  ratio")
    for features, precision in cells:
        row = {"projector": features, "precision": precision}
        for name in names:
            row[name] = harness.in_process(__file__, *options, "--measure", name, features, precision)
        speeds = [row[name]["images_per_second"] for name in names]
        row["ratio"] = speeds[0] / speeds[-1]
        if len({row[name]["weights"] for name in names}) != 1:
            raise RuntimeError(f"Both networks must have the same number of weights. Received: {row}.")
        results["cells"].append(row)
        print(
            f"{features:10} {precision:10}" + "".join(f"{speed:20.1f}" for speed in speeds) + f"{row['ratio']:7.2f}",
            flush=True,
        )
    harness.write(results, arguments.output)


if __name__ == "__main__":
    main()
