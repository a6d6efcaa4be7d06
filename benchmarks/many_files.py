"""Time and memory to start training from a folder of 100,000 tiny files.

    python benchmarks/many_files.py > benchmarks/results/many_files.json

Creates two folders of 32 x 32 JPEGs in ten classes; the first has a tenth of the files of the second. For each folder
and loader, a separate process measures the seconds from the call to the first batch and to the end of the first
training step, the images per second over the next 20 batches, and the memory growth since the call. The peer is Keras'
`image_dataset_from_directory`.
"""

import argparse
import io
import json
import os
import pathlib
import platform
import resource
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import numpy as np
from PIL import Image

CLASSES = 10
BATCH = 256


def make_files(folder, count):
    """Writes `count` JPEGs of a few hundred bytes each."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(64):
        blocks = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype="uint8"))
        content = io.BytesIO()
        blocks.resize((32, 32)).save(content, "JPEG")
        contents.append(content.getvalue())
    for name in range(CLASSES):
        (folder / str(name)).mkdir(parents=True)
    for number in range(count):
        (folder / str(number % CLASSES) / f"{number:07}.jpg").write_bytes(contents[number % 64])


def memory():
    """Returns the current resident memory of the process in MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(loader, folder):
    """Measures one loader on one folder in this process."""
    import keras

    import keras_barlow as kb

    encoder = kb.encoders.resnet((1,), input_shape=(32, 32, 3), stem="small", width=8)
    model = kb.BarlowTwins(encoder, kb.Projector((64,)), kb.views.barlow_twins(32))
    model.compile("sgd")
    before, started = memory(), time.perf_counter()
    if loader == "keras_barlow":
        batches = kb.data.load(folder, image_size=32)[0].batches(BATCH).stream()
    else:
        batches = keras.utils.image_dataset_from_directory(
            folder, label_mode=None, image_size=(32, 32), batch_size=BATCH, verbose=False
        )
    iterator = iter(batches)
    images = next(iterator)
    first_batch = time.perf_counter() - started
    model.train_on_batch(images)
    first_step = time.perf_counter() - started
    middle = memory()
    started = time.perf_counter()
    for _ in range(20):
        next(iterator)
    rate = 20 * BATCH / (time.perf_counter() - started)
    return {
        "first_batch_s": round(first_batch, 2),
        "first_step_s": round(first_step, 2),
        "images_per_s": round(rate),
        "gained_at_first_step_mib": round(middle - before, 1),
        "gained_at_the_end_mib": round(memory() - before, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, metavar=("LOADER", "FOLDER"), help="used internally for subprocesses")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    results = {"command": "python benchmarks/many_files.py", "cpus": os.cpu_count(), "machine": platform.machine()}
    with tempfile.TemporaryDirectory() as temporary:
        for count in (arguments.files // 10, arguments.files):
            folder = pathlib.Path(temporary) / str(count)
            make_files(folder, count)
            for loader in ("keras_barlow", "image_dataset_from_directory"):
                print(f"{loader}, {count} files ...", file=sys.stderr, flush=True)
                measured = harness.in_process(__file__, "--measure", loader, folder)
                results.setdefault(loader, {})[str(count)] = measured
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
