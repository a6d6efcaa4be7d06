"""Photographs per second, from files to batches of two random 224 px crops: this library and PIL, on all cores.

    python benchmarks/input_pipeline.py --photos=photos.zip --results=benchmarks/results/input_pipeline.json

The archive is first unpacked to a temporary folder. Both contenders decode each photograph once, sample two boxes from
the same distribution, resize them with antialiased bicubic interpolation, and return uint8 batches to this process. PIL
runs in a pool of one thread per core (it releases the GIL) and in a pool of one process per core; the faster pool
counts. The contenders alternate, each in a separate process. The result is the median over rounds of the median pass
over the photographs.
"""

import argparse
import concurrent.futures
import os
import pathlib
import statistics
import tempfile
import time
import zipfile

import harness
import numpy as np
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CONTENDERS = ("keras_barlow", "pil_threads", "pil_processes")
SIZE, BATCH, PASSES = 224, 32, 9


def keras_barlow(folder):
    """Returns the seconds of each pass over the photographs after a warm-up pass, and the images per pass."""
    import keras_barlow as kb

    train, _ = kb.data.load(folder, image_size=SIZE, labels=False, memory_limit=0)
    crop = kb.augmentations.RandomResizedCrop(SIZE, SIZE)
    steps = len(train) // BATCH
    batches = iter(train.crop_pairs(BATCH, crop).stream())
    return timed(lambda: [next(batches) for _ in range(steps)]), steps * BATCH


def pil_threads(folder):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return pil_passes(folder, pool)


def pil_processes(folder):
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        return pil_passes(folder, pool)


def pil_passes(folder, pool):
    paths = sorted(map(str, pathlib.Path(folder).rglob("*.*")))
    batches = [paths[start : start + BATCH] for start in range(0, len(paths) - BATCH + 1, BATCH)]
    return timed(lambda: list(pool.map(pil_batch, batches))), len(batches) * BATCH


def pil_batch(paths):
    """Returns two uint8 arrays `(n, size, size, 3)` of crops like those of torchvision's RandomResizedCrop."""
    pairs = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        pairs.append([np.asarray(harness.pil_crop(image, SIZE)) for _ in range(2)])
    return [np.stack(crops) for crops in zip(*pairs, strict=True)]


def timed(one_pass):
    seconds = []
    for _ in range(PASSES + 1):
        started = time.perf_counter()
        one_pass()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="zip archive of photographs, or a folder with --contender")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender, alternating")
    parser.add_argument("--results", help="JSON file to write")
    parser.add_argument("--contender", choices=CONTENDERS, help="measure only this one and print images per second")
    arguments = parser.parse_args()
    if arguments.contender:
        seconds, images = globals()[arguments.contender](arguments.photos)
        print(images / statistics.median(seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(arguments.photos) as archive:
            archive.extractall(folder)
        rounds = harness.in_turn(__file__, CONTENDERS, arguments.rounds, "--photos", folder)
        rates = {name: statistics.median(values) for name, values in rounds.items()}
        for name, values in rounds.items():
            print(f"{name:14}{rates[name]:8.0f} images/s, of {', '.join(f'{value:.0f}' for value in values)}")
    best = max(rates["pil_threads"], rates["pil_processes"])
    print(f"{rates['keras_barlow'] / best:.2f}x the faster of the two")
    harness.write({"crop": SIZE, "batch": BATCH, "images_per_second": rates, "rounds": rounds}, arguments.results)


if __name__ == "__main__":
    main()
