"""Views per second of the paper's two policies: this library, keras-cv's layers, and PIL on all cores.

    python benchmarks/views.py --size=32 --results=benchmarks/results/views_32.json
    python benchmarks/views.py --size=224 --results=benchmarks/results/views_224.json

Every contender turns uint8 images into view A and view B with the same policy: crop and bicubic resize (bilinear in
keras-cv), flip, jitter, grayscale, blur, solarization. The images are `--stored` pixels square: 32 for views of 32, and
256 for views of 224. The contenders alternate, each in a separate process; PIL uses one process per core, like data
loaders. The result is the median over rounds of the median batch.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import time

import harness
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CONTENDERS = ("keras_barlow", "keras_cv", "pil")


def images_of(count, size):
    """Returns noise images. The time of these operations does not depend on the content."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype="uint8")


def seconds_of_tensorflow(views, images, repeats):
    """Returns the seconds of each batch in a traced function, as in a training step."""
    import tensorflow as tf

    images = tf.constant(images)
    step = tf.function(lambda images: views(images, training=True))
    seconds = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        for view in step(images):
            view[0, 0, 0, 0].numpy()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def keras_barlow(images, size, repeats):
    import keras_barlow as kb

    return seconds_of_tensorflow(kb.views.barlow_twins(size, seed=0), images, repeats)


def keras_cv(images, size, repeats):
    import keras_barlow as kb

    return seconds_of_tensorflow(kb.views.keras_cv_barlow_twins(size), images, repeats)


def pil(images, size, repeats):
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        portions = np.array_split(images, 4 * os.cpu_count())
        seconds = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            pool.starmap(pil_pairs, [(portion, size) for portion in portions])
            seconds.append(time.perf_counter() - started)
    return seconds[1:]


def pil_pairs(images, size):
    """Computes both views of each image with PIL, like torchvision's transforms. Returns only their number."""
    from PIL import Image

    pairs = [
        [np.asarray(pil_view(Image.fromarray(image), size, *policy)) for policy in ((1.0, 0.0), (0.1, 0.2))]
        for image in images
    ]
    return len(pairs)


def pil_view(image, size, blur, solarization):
    from PIL import Image, ImageEnhance, ImageFilter, ImageOps

    image = harness.pil_crop(image, size)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        operations = [
            lambda image: ImageEnhance.Brightness(image).enhance(random.uniform(0.6, 1.4)),
            lambda image: ImageEnhance.Contrast(image).enhance(random.uniform(0.6, 1.4)),
            lambda image: ImageEnhance.Color(image).enhance(random.uniform(0.8, 1.2)),
            lambda image: pil_hue(image, random.uniform(-0.1, 0.1)),
        ]
        random.shuffle(operations)
        for operation in operations:
            image = operation(image)
    if random.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if random.random() < blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    if random.random() < solarization:
        image = ImageOps.solarize(image, 128)
    return image


def pil_hue(image, turns):
    from PIL import Image

    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(turns * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="side of the views")
    parser.add_argument("--stored", type=int, help="side of the stored images; default: 32 or 256")
    parser.add_argument("--batch", type=int, help="images per batch; default: 256 at 32 px, 64 at 224 px")
    parser.add_argument("--repeats", type=int, default=11, help="number of measured batches")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender, alternating")
    parser.add_argument("--results", help="JSON file to write")
    parser.add_argument("--contender", choices=CONTENDERS, help="measure only this one and print views per second")
    arguments = parser.parse_args()
    stored = arguments.stored or (32 if arguments.size == 32 else 256)
    batch = arguments.batch or (256 if arguments.size <= 64 else 64)
    if arguments.contender:
        images = images_of(batch, stored)
        seconds = globals()[arguments.contender](images, arguments.size, arguments.repeats)
        print(2 * batch / statistics.median(seconds))
        return
    settings = ["--size", arguments.size, "--stored", stored, "--batch", batch, "--repeats", arguments.repeats]
    rounds = harness.in_turn(__file__, CONTENDERS, arguments.rounds, *settings)
    rates = {name: statistics.median(values) for name, values in rounds.items()}
    for name, values in rounds.items():
        ratio = rates["keras_barlow"] / rates[name]
        print(f"{name:14}{rates[name]:8.0f} views/s, {ratio:5.2f}x, of {', '.join(f'{value:.0f}' for value in values)}")
    results = {"size": arguments.size, "stored": stored, "batch": batch, "views_per_second": rates, "rounds": rounds}
    harness.write(results, arguments.results)


if __name__ == "__main__":
    main()
