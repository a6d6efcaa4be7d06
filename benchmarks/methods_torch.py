"""A peer of `examples/pretrain.py --method`: the recipe `digits` in PyTorch, with the losses of lightly.

    python benchmarks/methods_torch.py --images=digits0.npz --write_images --seed=0
    python benchmarks/methods_torch.py --images=digits0.npz --seed=0 --method=simclr --lightly=unpacked \\
        --projector=256,128 --features=simclr0.npz --output=simclr0.json

The first command draws the images that `pretrain.py --seed=0` trains on. The second trains an encoder on them, writes
its features, and evaluates them with `keras_barlow.evaluation.evaluate_features`, as pretrain.py does; `--evaluate`
repeats only the evaluation. It prints one line of JSON per epoch, and one with the accuracies at the end.

`unpacked` contains the package `lightly`: `python -m zipfile -e lightly-1.6.0-py3-none-any.whl unpacked`. It needs
PyTorch, but neither torchvision nor lightly's other requirements.

The network, its initial distribution, the optimizer, the schedule and the views are those of `recipes.DIGITS`, whose
values are the defaults of the flags; pass the other values of the recipe of a method, such as the projector of SimCLR.
`benchmarks/recipe_search.py --peer` passes those of a candidate for CIFAR-10. If the file of images contains
`labeled_images`, the labels of the classifiers are theirs.
The views are drawn by PIL in the same process. They differ from the recipe's only in that PIL rounds the pixels to
integers after each transform. On two CPU cores a run takes about 4 minutes.
"""

import argparse
import functools
import json
import math
import random
import subprocess
import sys
import time

import harness
import numpy as np

METHODS = ("barlowtwins", "simclr", "vicreg")
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], "float32"), np.array([0.229, 0.224, 0.225], "float32")
SIZE = 32


def views(image, arguments, rng, solarization):
    """Draws a view of a PIL image: crop, flip, jitter, grayscale and solarization, as `views.policy`."""
    from PIL import ImageOps

    image = crop(image, arguments.crop_scale, rng)
    if rng.random() < arguments.flip:
        image = ImageOps.mirror(image)
    if rng.random() < arguments.jitter_probability:
        image = jitter(image, arguments.jitter, rng)
    if rng.random() < arguments.grayscale:
        image = image.convert("L").convert("RGB")
    if rng.random() < solarization:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image)


def crop(image, scale, rng):
    """Crops a random box, resized to the size of the views, as torchvision's RandomResizedCrop."""
    from PIL import Image

    full_width, full_height = image.size
    for _ in range(10):
        area = full_width * full_height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= full_width and 0 < height <= full_height:
            break
    else:
        width, height = full_width, full_height
    left, top = rng.randint(0, full_width - width), rng.randint(0, full_height - height)
    return image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def jitter(image, strengths, rng):
    """Changes brightness, contrast, saturation and hue by random amounts in random order."""
    from PIL import ImageEnhance

    factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths[:3]]
    operations = [
        lambda image: ImageEnhance.Brightness(image).enhance(factors[0]),
        lambda image: ImageEnhance.Contrast(image).enhance(factors[1]),
        lambda image: ImageEnhance.Color(image).enhance(factors[2]),
        functools.partial(shift_hue, turns=rng.uniform(-strengths[3], strengths[3])),
    ]
    rng.shuffle(operations)
    for operation in operations:
        image = operation(image)
    return image


def shift_hue(image, turns):
    from PIL import Image

    hue, saturation, value = image.convert("HSV").split()
    shifted = (np.asarray(hue, "int16") + round(256 * turns)) % 256
    return Image.merge("HSV", (Image.fromarray(shifted.astype("uint8")), saturation, value)).convert("RGB")


def network(widths, first, depths, uniform):
    """Returns the encoder and the projector, both initialized as in keras_barlow.

    Args:
        widths: Widths of the layers of the projector.
        first: Width of the first stage of the encoder.
        depths: Number of blocks of each stage.
        uniform: Whether the kernels of the encoder have PyTorch's default distribution instead of torchvision's.
    """
    import torch
    from torch import nn

    def convolution(before, channels, kernel, stride):
        layer = nn.Conv2d(before, channels, kernel, stride, kernel // 2, bias=False)
        if not uniform:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return nn.Sequential(layer, nn.BatchNorm2d(channels))

    class Block(nn.Module):
        def __init__(self, before, channels, stride):
            super().__init__()
            self.residual = nn.Sequential(
                convolution(before, channels, 3, stride), nn.ReLU(), convolution(channels, channels, 3, 1)
            )
            same = stride == 1 and before == channels
            self.shortcut = nn.Identity() if same else convolution(before, channels, 1, stride)

        def forward(self, x):
            return torch.relu(self.residual(x) + self.shortcut(x))

    blocks, before = [], first
    for stage, depth in enumerate(depths):
        for block in range(depth):
            blocks.append(Block(before, first * 2**stage, 2 if stage and not block else 1))
            before = first * 2**stage
    encoder = nn.Sequential(convolution(3, first, 3, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    # PyTorch's default for linear layers, uniform within 1 / sqrt(inputs), is that of `Projector`.
    layers = []
    for width in widths[:-1]:
        layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        before = width
    return encoder, nn.Sequential(*layers, nn.Linear(before, widths[-1], bias=False))


def criterion(arguments):
    """Returns the loss of the method, lightly's class."""
    load = functools.partial(harness.lightly_class, arguments.lightly)
    if arguments.method == "simclr":
        return load("loss.ntx_ent_loss", "NTXentLoss")(arguments.temperature)
    if arguments.method == "vicreg":
        return load("loss.vicreg_loss", "VICRegLoss")(*arguments.vicreg_weights)
    return load("loss.barlow_twins_loss", "BarlowTwinsLoss")(arguments.redundancy_weight)


def rate_at(step, arguments, steps_per_epoch):
    """Learning rate of a step: linear warm-up from 0, then cosine decay."""
    warmup_steps = arguments.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return arguments.learning_rate * step / warmup_steps
    part = (step - warmup_steps) / max(1, arguments.epochs * steps_per_epoch - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return arguments.learning_rate * (arguments.final_fraction + (1 - arguments.final_fraction) * cosine)


def as_tensor(images):
    """Standardizes a list of uint8 images, as the first layer of the encoders does."""
    import torch

    scaled = (np.stack(images).astype("float32") / 255 - MEAN) / DEVIATION
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def train(images, arguments):
    """Trains and returns the encoder."""
    import torch
    from PIL import Image

    torch.manual_seed(arguments.seed)
    rng, order = random.Random(arguments.seed), np.random.default_rng(arguments.seed)
    encoder, projector = network(arguments.projector, arguments.width, arguments.depths, arguments.uniform_kernels)
    model = torch.nn.Sequential(encoder, projector).to(memory_format=torch.channels_last)
    loss_of = criterion(arguments)
    optimizer = torch.optim.AdamW(
        model.parameters(), 0.0, (0.9, arguments.beta_2), eps=1e-7, weight_decay=arguments.weight_decay
    )
    pictures, started = [Image.fromarray(image) for image in images], time.time()
    steps = len(images) // arguments.batch_size
    for epoch in range(arguments.epochs):
        rows, total = order.permutation(len(images)), 0.0
        for step in range(steps):
            batch = rows[step * arguments.batch_size :][: arguments.batch_size]
            pair = [
                as_tensor([views(pictures[row], arguments, rng, share) for row in batch])
                for share in arguments.solarization
            ]
            # One forward pass per view, so that batch normalization sees one view, as in the recipe.
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
                embeddings = [model(view.contiguous(memory_format=torch.channels_last)) for view in pair]
            loss = loss_of(*(embedding.float() for embedding in embeddings))
            for group in optimizer.param_groups:
                group["lr"] = rate_at(epoch * steps + step, arguments, steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        seconds = round(time.time() - started, 1)
        print(json.dumps({"epoch": epoch + 1, "loss": total / steps, "seconds": seconds}), flush=True)
    return encoder


def extract(encoder, images):
    """Returns the features of images, in inference mode."""
    import torch

    encoder.eval()
    with torch.no_grad():
        return np.concatenate([encoder(as_tensor(images[i : i + 512])).numpy() for i in range(0, len(images), 512)])


def write_images(arguments):
    """Draws the digits of a seed and writes them."""
    import keras_barlow as kb

    (train_images, train_labels), (test_images, test_labels) = kb.data.digits(seed=arguments.seed)
    arrays = {"train_images": train_images, "test_images": test_images}
    np.savez(arguments.images, train_labels=train_labels, test_labels=test_labels, **arrays)


def evaluate(path, k):
    """Prints the accuracies of features, by the protocol of pretrain.py, as a line of JSON."""
    import keras_barlow as kb

    with np.load(path) as arrays:
        names = ("train_features", "train_labels", "test_features", "test_labels")
        print(json.dumps(kb.evaluation.evaluate_features(*(arrays[name] for name in names), k=k)))


def numbers(kind, count=None):
    """Returns a parser of numbers separated by commas."""

    def parse(text):
        parsed = tuple(map(kind, text.split(",")))
        if count and len(parsed) != count:
            raise argparse.ArgumentTypeError(f"it must be {count} numbers")
        return parsed

    return parse


def flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="digits.npz", help=".npz file of the images")
    parser.add_argument("--write_images", action="store_true", help="draw the digits of --seed into --images")
    parser.add_argument("--evaluate", metavar="FEATURES", help="evaluate the .npz file of a run and exit")
    parser.add_argument("--lightly", help="directory that contains the package lightly")
    parser.add_argument("--method", choices=METHODS, default="barlowtwins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", default="features.npz", help=".npz file to write the features to")
    parser.add_argument("--output", help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--knn_k", type=int, default=5)
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=int, default=25)
    recipe.add_argument("--batch_size", type=int, default=64)
    recipe.add_argument("--width", type=int, default=16)
    recipe.add_argument("--depths", type=numbers(int), default=(1, 1, 1))
    recipe.add_argument("--uniform_kernels", action="store_true")
    recipe.add_argument("--bfloat16", action="store_true")
    recipe.add_argument("--projector", type=numbers(int), default=(256, 256))
    recipe.add_argument("--learning_rate", type=float, default=5e-3)
    recipe.add_argument("--weight_decay", type=float, default=1e-6)
    recipe.add_argument("--beta_2", type=float, default=0.95)
    recipe.add_argument("--warmup_epochs", type=int, default=1)
    recipe.add_argument("--final_fraction", type=float, default=0.2)
    recipe.add_argument("--crop_scale", type=numbers(float, 2), default=(0.5, 1.0))
    recipe.add_argument("--flip", type=float, default=0.0)
    recipe.add_argument("--jitter", type=numbers(float, 4), default=(0.6, 0.4, 0.9, 0.5))
    recipe.add_argument("--jitter_probability", type=float, default=1.0)
    recipe.add_argument("--grayscale", type=float, default=0.3)
    recipe.add_argument("--solarization", type=numbers(float, 2), default=(0.0, 0.0))
    losses = parser.add_argument_group("losses")
    losses.add_argument("--redundancy_weight", type=float, default=0.005, help="lambda of Barlow Twins")
    losses.add_argument("--temperature", type=float, default=0.5, help="temperature of SimCLR")
    losses.add_argument("--vicreg_weights", type=numbers(float, 3), default=(25.0, 25.0, 1.0))
    return parser


def main():
    arguments = flags().parse_args()
    if arguments.evaluate:
        evaluate(arguments.evaluate, arguments.knn_k)
        return
    if arguments.write_images:
        write_images(arguments)
        return
    if arguments.lightly is None:
        flags().error("--lightly must be the directory that contains the package lightly")
    import torch

    torch.set_num_threads(arguments.threads)
    with np.load(arguments.images) as arrays:
        data = dict(arrays)
    started = time.time()
    encoder = train(data["train_images"], arguments)
    seconds = round(time.time() - started, 1)
    evaluated = {"train": data.get("labeled_images", data["train_images"]), "test": data["test_images"]}
    features = {f"{split}_features": extract(encoder, images) for split, images in evaluated.items()}
    labels = {name: data[name] for name in ("train_labels", "test_labels")}
    np.savez(arguments.features, **features, **labels)
    # In a separate process, because it imports TensorFlow.
    command = [sys.executable, __file__, "--evaluate", arguments.features, "--knn_k", str(arguments.knn_k)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results = {"method": arguments.method, "seed": arguments.seed, **json.loads(done.stdout.splitlines()[-1])}
    results["training_seconds"] = seconds
    print(json.dumps(results))
    paths = ("images", "lightly", "features", "output", "write_images", "evaluate")
    settings = {name: value for name, value in vars(arguments).items() if name not in paths}
    harness.write({**results, "settings": settings, "torch": torch.__version__}, arguments.output)


if __name__ == "__main__":
    main()
