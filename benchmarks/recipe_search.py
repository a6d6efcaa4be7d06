"""Searches a recipe for CIFAR-10 on two CPU cores, without looking at the test images.

    python benchmarks/recipe_search.py --data_dir=cifar10.zip --output_dir=runs/search

Candidates are drawn from `SPACE`; the first is `recipes.CIFAR10_SMALL` as it is. In each of three rounds, the best
candidates are trained from scratch with a larger budget of images: 80,000, 200,000, and 400,000, which is that of
`cifar10_small`. They are compared by the linear accuracy on 5,000 training images that no candidate trains on. The
linear classifier has the labels of 20,000 others, for every candidate.

With `--peer`, the same candidates and rounds are trained in PyTorch with lightly's loss (`methods_torch.py`).

    python benchmarks/recipe_search.py --data_dir=cifar10.zip --output_dir=runs/peer_search --peer=unpacked

Two runs at a time, each on one core. Repeat the command to resume: finished runs are kept. `search.json` in the output
folder lists all runs, the best first.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROUNDS = ((80_000, 16), (200_000, 4), (400_000, 2))
LABELED_PER_CLASS, HELD_OUT_FROM = 2000, 4500
HALF_JITTER = (0.2, 0.2, 0.1, 0.05)

# Changes of CIFAR10_SMALL. The first value of each is that of the recipe.
SPACE = {
    "encoder": (("resnet18", 16), ("resnet8", 32), ("resnet18", 20)),
    "per_class": (LABELED_PER_CLASS, 4000),
    "projector": ((1024, 1024, 1024), (512, 512, 512), (2048, 2048), (1024, 1024)),
    "batch_size": (256, 128),
    "learning_rate": (1e-3, 2e-3, 4e-3),
    "schedule": ((0, 1.0), (1, 0.0), (1, 0.1)),
    "redundancy_weight": (0.005, 0.01, 0.02),
    "crop_scale": ((0.08, 1.0), (0.2, 1.0), (0.35, 1.0)),
    "jitter": ((0.4, 0.4, 0.2, 0.1), (0.4, 0.4, 0.4, 0.1), HALF_JITTER),
    "solarization": ((0.0, 0.2), (0.0, 0.0)),
    "beta_2": (0.99, 0.95),
}


def candidates(count, seed=0):
    """Draws candidates; the first is the recipe as it is."""
    rng = random.Random(seed)
    drawn = [{name: values[0] for name, values in SPACE.items()}]
    while len(drawn) < count:
        candidate = {name: rng.choice(values) for name, values in SPACE.items()}
        if candidate not in drawn:
            drawn.append(candidate)
    return drawn


def recipe_of(candidate, images_seen):
    """Returns the recipe of a candidate for a budget of images."""
    import keras_barlow as kb

    encoder, width = candidate["encoder"]
    warmup_epochs, final_fraction = candidate["schedule"]
    return kb.recipes.CIFAR10_SMALL.changed(
        encoder=encoder,
        encoder_options={"width": width},
        epochs=round(images_seen / (10 * candidate["per_class"])),
        warmup_epochs=warmup_epochs,
        final_fraction=final_fraction,
        projector=tuple(candidate["projector"]),
        batch_size=candidate["batch_size"],
        learning_rate=candidate["learning_rate"],
        loss_options={"redundancy_weight": candidate["redundancy_weight"]},
        optimizer_options={"beta_2": candidate["beta_2"]},
        views_options={name: tuple(candidate[name]) for name in ("crop_scale", "jitter", "solarization")},
    )


def split(data_dir, per_class):
    """Returns the images to train on, and those with labels and those held out, each with their labels."""
    import numpy as np

    import keras_barlow as kb

    images, _ = kb.data.load(data_dir, image_size=32, test_per_class=1)
    array, labels = images.read(range(len(images))), np.asarray(images.labels)
    # Position of each image within its class.
    place = np.empty(len(labels), int)
    for label in np.unique(labels):
        place[labels == label] = np.arange((labels == label).sum())
    labeled, held_out = place < LABELED_PER_CLASS, place >= HELD_OUT_FROM
    return array[place < per_class], (array[labeled], labels[labeled]), (array[held_out], labels[held_out])


def train(candidate, images_seen, data_dir, seed=0):
    """Trains a candidate on one core and returns its accuracy on held-out training images."""
    import tensorflow as tf

    import keras_barlow as kb

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    unlabeled, *evaluated = split(data_dir, candidate["per_class"])
    recipe = recipe_of(candidate, images_seen)
    model = recipe.build(len(unlabeled), seed)
    start = time.monotonic()
    batches = kb.data.ArrayImages(unlabeled).batches(recipe.batch_size, seed=seed)
    model.fit(batches, epochs=recipe.epochs, verbose=0)
    seconds = time.monotonic() - start
    pairs = []
    for images, labels in evaluated:
        pairs += [kb.evaluation.extract_features(model, kb.data.ArrayImages(images).in_order(), verbose=0), labels]
    return {"training_seconds": seconds, **kb.evaluation.evaluate_features(*pairs, k=200)}


def train_peer(candidate, images_seen, data_dir, lightly, seed=0):
    """Trains a candidate in PyTorch on one core and returns its accuracy on held-out training images."""
    import numpy as np

    unlabeled, (labeled, train_labels), (test, test_labels) = split(data_dir, candidate["per_class"])
    recipe = recipe_of(candidate, images_seen)
    flags = {
        "lightly": lightly,
        "seed": seed,
        "threads": 1,
        "knn_k": 200,
        "width": recipe.encoder_options["width"],
        "depths": {"resnet8": "1,1,1", "resnet18": "2,2,2,2"}[recipe.encoder],
        "projector": ",".join(map(str, recipe.projector)),
        "redundancy_weight": recipe.loss_options["redundancy_weight"],
        **recipe.optimizer_options,
        **{name: ",".join(map(str, recipe.views_options[name])) for name in ("crop_scale", "jitter", "solarization")},
        **{"flip": 0.5, "jitter_probability": 0.8, "grayscale": 0.2},
    }
    flags |= {
        name: getattr(recipe, name)
        for name in ("epochs", "batch_size", "learning_rate", "warmup_epochs", "final_fraction")
    }
    with tempfile.TemporaryDirectory() as folder:
        arrays = {"labeled_images": labeled, "train_labels": train_labels, "test_images": test}
        np.savez(f"{folder}/images.npz", train_images=unlabeled, test_labels=test_labels, **arrays)
        flags |= {"images": f"{folder}/images.npz", "features": f"{folder}/features.npz"}
        script = pathlib.Path(__file__).with_name("methods_torch.py")
        command = [sys.executable, script, "--uniform_kernels", "--bfloat16"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    return {name: results[name] for name in ("training_seconds", "knn_top1", "linear_top1", "few_label_top1")}


def in_process(arguments, images_seen, candidate):
    """Trains a candidate in a separate process, or reads its result if it has finished before."""
    name = hashlib.sha256(json.dumps([candidate, images_seen], sort_keys=True).encode()).hexdigest()[:16]
    path = arguments.output_dir / f"{name}.json"
    if not path.exists():
        command = [sys.executable, __file__, f"--data_dir={arguments.data_dir}", f"--images={images_seen}"]
        command += [f"--peer={arguments.peer}"] if arguments.peer else []
        done = subprocess.run([*command, f"--candidate={json.dumps(candidate)}"], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"The run of {candidate} failed with exit code {done.returncode}.")
        result = json.loads(done.stdout.splitlines()[-1])
        path.write_text(json.dumps({"images_seen": images_seen, **candidate, **result}))
    result = json.loads(path.read_text())
    accuracy, seconds = result["linear_top1"], result["training_seconds"]
    print(f"{images_seen} images, linear {accuracy:.3f}, {seconds:.0f} s: {candidate}", flush=True)
    return result


def search(arguments):
    """Runs the rounds and writes `search.json`."""
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    chosen, runs = candidates(ROUNDS[0][1]), []
    for images_seen, count in ROUNDS:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            run = functools.partial(in_process, arguments, images_seen)
            results = list(pool.map(run, chosen[:count]))
        runs += results
        ranked = sorted(zip(results, chosen, strict=False), key=lambda pair: -pair[0]["linear_top1"])
        chosen = [candidate for _, candidate in ranked]
        ordered = sorted(runs, key=lambda run: (-run["images_seen"], -run["linear_top1"]))
        (arguments.output_dir / "search.json").write_text(json.dumps(ordered, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder or .zip of images in train/CLASS and test/CLASS.")
    parser.add_argument("--output_dir", type=pathlib.Path, default=pathlib.Path("runs/search"))
    parser.add_argument("--peer", help="Trains in PyTorch: the directory that contains the package lightly.")
    parser.add_argument(
        "--candidate", type=json.loads, help="Trains only this candidate: JSON with a value of SPACE each."
    )
    parser.add_argument("--images", type=int, default=80_000, help="Images seen in training, for --candidate.")
    arguments = parser.parse_args()
    if arguments.candidate:
        settings = arguments.candidate, arguments.images, arguments.data_dir
        result = train_peer(*settings, arguments.peer) if arguments.peer else train(*settings)
        print(json.dumps(result))
    else:
        search(arguments)


if __name__ == "__main__":
    main()
