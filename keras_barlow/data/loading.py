"""`load`: the images of a folder, an archive, a NumPy file or a TFDS data set, for training and for testing."""

import pathlib

import numpy as np
from absl import logging

from keras_barlow.data import splits
from keras_barlow.data.decoding import Decoder
from keras_barlow.data.files import Archive, Folder
from keras_barlow.data.images import ArrayImages, FileImages
from keras_barlow.data.records import RecordImages, prepared_builder

_HELD_OUT = 0.1
# Read before anything else is done, so that a folder of broken files does not fail after an hour.
_TRIED_FIRST = 16


def load(
    data_dir,
    image_size,
    dataset=None,
    train_split=None,
    test_split=None,
    train_per_class=None,
    test_per_class=None,
    labels=True,
    skip_corrupt=False,
    download=False,
    memory_limit=2**28,
    seed=0,
):
    """The images to train on and, if there are labels, the images to test on.

    | `data_dir` | taken as |
    |---|---|
    | a folder | image files (JPEG, PNG, WebP, BMP), in sub-folders by class if they have labels |
    | a `.zip` file | the same, read in place |
    | a `.npz` file | arrays `images`, `labels` or `x_train`, `y_train`, `x_test`, `y_test` |
    | with `dataset` | the folder of prepared TFDS data sets; None for TFDS' own |

    A folder or an archive may hold `train/` and `test/` (or `val/`). Where labelled images have no test split, a
    tenth of each class is held out. Every image becomes upright RGB, its short side is resized to `image_size` and
    the centre cut out. Collections up to `memory_limit` are read at once and kept as uint8; larger ones stream from
    disk, in constant memory.

    Images with several labels come from an `.npz` file whose labels are `(n, classes)`, of 1, 0 and -1 (does not
    count), or from a TFDS data set with a list of classes named `labels`, such as `"voc/2007"`, whose difficult
    objects do not count.

    Args:
        data_dir: Path, see above.
        image_size: Side of the images, in pixels.
        dataset: Name of a TFDS data set, such as `"imagenette/160px"`.
        train_split: TFDS split to train on, with an optional slice; `"train"` by default.
        test_split: TFDS split to test on. Where neither split is given: `"test"`, or `"validation"`, or a tenth of
            `"train"`.
        train_per_class: Only the first so many training images of each class, by file name; None for all.
        test_per_class: The same for testing.
        labels: False to ignore classes: nothing can be evaluated then.
        skip_corrupt: True to leave unreadable files out, with a count; every file is read once for that. By
            default such a file is an error that names it.
        download: True to let TFDS download a data set that is not on disk.
        memory_limit: In bytes.
        seed: Of what is held out.

    Returns:
        The pair `(train, test)` of `Images`; test is None without labels.

    Raises:
        ValueError: If there is nothing to read, or what there is cannot serve; the message has the remedy.

    Example:

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = os.path.join(folder, "photos.npz")
    >>> np.savez(path, images=np.zeros((20, 9, 9, 3), "uint8"), labels=np.arange(20) % 2)
    >>> train, test = load(path, image_size=8)
    >>> len(train), len(test), train.array.shape
    (18, 2, (18, 8, 8, 3))
    """
    if dataset is None and (train_split or test_split):
        raise ValueError(
            "train_split and test_split are for TFDS data sets; a folder has its splits as sub-folders train/ and "
            f"test/. Received: train_split={train_split!r}, test_split={test_split!r}, dataset=None."
        )
    decoder = Decoder(image_size)
    if dataset is not None:
        source = dataset
        train, test = _records(dataset, data_dir, train_split, test_split, decoder, labels, download)
    else:
        source = data_dir
        path = pathlib.Path(data_dir).expanduser()
        if path.suffix == ".npz":
            train, test = _arrays(path, decoder, labels)
        else:
            train, test = _files(path, decoder, labels, skip_corrupt)
    train, test = _first(train, train_per_class, source), _first(test, test_per_class, source)
    if len(train) < 2:
        raise ValueError(
            "There must be at least 2 images to train on: the loss compares features over a batch. "
            f"Received: {len(train)} in {source}."
        )
    if isinstance(train, FileImages):
        train.sample(_TRIED_FIRST)
    if not isinstance(train, RecordImages) and train.labels is not None:
        several = train.labels.ndim == 2
        if not several:
            splits.check_classes(train.labels, train.class_names, source)
        if test is None:
            # Images with several labels are of no one class.
            kept, held = splits.hold_out(np.zeros(len(train)) if several else train.labels, _HELD_OUT, seed)
            train, test = train.take(kept), train.take(held)
            logging.info("There is no test split: %d of %d images are held out.", len(held), len(held) + len(kept))
    if train.class_names is None:
        test = None
    return _kept(train, memory_limit), _kept(test, memory_limit)


def every_image(data_dir, image_size, skip_corrupt=False):
    """Every image file of a folder or archive by its name, whatever folders it is in, read when it is needed.

    Args:
        data_dir: Folder or `.zip` file.
        image_size: Side of the images, in pixels; see `load`.
        skip_corrupt: True to leave unreadable files out, with a count. Otherwise the first is an error that names it.

    Returns:
        `FileImages`, with `names` and without labels.

    Raises:
        ValueError: If there is no image.
    """
    files = _opened(pathlib.Path(data_dir).expanduser())
    images = FileImages(files, splits.Split(files.names, None, None), Decoder(image_size))
    return _readable(images, data_dir) if skip_corrupt else images


def inference_size(size):
    """The side to which an image is brought before the centre of `size` pixels is cut out.

    Args:
        size: Side of an encoder's images, in pixels.

    Returns:
        256 for 224, as the field has it, and in proportion; up to 64 pixels the size itself.

    Example:

    >>> inference_size(224), inference_size(32)
    (256, 32)
    """
    return round(size * 8 / 7) if size > 64 else size


def _opened(path):
    if not path.exists():
        raise ValueError(f"The images must be in a folder, a .zip or a .npz file. Received: {path}, no such folder.")
    return Folder(path) if path.is_dir() else Archive(path)


def _readable(images, source):
    images, errors = images.readable()
    if errors:
        logging.warning("%d of %d files cannot be read and are left out:", len(errors), len(images) + len(errors))
        for error in errors[:10]:
            logging.warning("  %s", error.split("Received: ")[1].split(" Delete")[0])
    if not len(images):
        raise ValueError(f"There must be a readable image. Received: {source}, whose {len(errors)} files are none.")
    return images


def _files(path, decoder, labels, skip_corrupt):
    files = _opened(path)
    pair = [split and FileImages(files, split, decoder) for split in splits.find_splits(files.names, path, labels)]
    return [images and _readable(images, path) for images in pair] if skip_corrupt else pair


def _records(dataset, data_dir, train_split, test_split, decoder, labels, download):
    builder = prepared_builder(dataset, data_dir, download)
    if train_split is None and test_split is None:
        train_split = "train"
        test_split = next((name for name in ("test", "validation") if name in builder.info.splits), None)
        if test_split is None and RecordImages(builder, train_split, decoder, labels).class_names is not None:
            train_split, test_split = "train[:90%]", "train[90%:]"
            logging.info("There is no test split: the last tenth of the examples is held out.")
    return [split and RecordImages(builder, split, decoder, labels) for split in (train_split or "train", test_split)]


def _arrays(path, decoder, labels):
    try:
        # np.load leaves a file open that it cannot read.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    # A truncated file raises zipfile.BadZipFile, EOFError, OSError or zlib.error.
    except Exception as error:
        raise ValueError(f"The file must be a readable .npz file. Received: {path} ({error}).") from error
    pair = []
    for image_key, label_key in (("x_train", "y_train"), ("x_test", "y_test")):
        if image_key == "x_train" and "images" in arrays:
            image_key, label_key = "images", "labels"
        if image_key not in arrays:
            pair.append(None)
            continue
        images, numbers = arrays[image_key], arrays.get(label_key) if labels else None
        if images.ndim not in (3, 4):
            raise ValueError(
                f"Images must have the shape (n, height, width[, channels]). Received: {image_key} of shape "
                f"{images.shape} in {path}."
            )
        fitted = [decoder.fit(image, f"image {row} of {image_key}") for row, image in enumerate(images)]
        class_names = None
        if numbers is not None:
            numbers = _numbers(numbers, len(images), f"{label_key} of {path}")
            classes = numbers.shape[1] if numbers.ndim == 2 else int(numbers.max()) + 1
            class_names = tuple(str(number) for number in range(classes))
        pair.append(ArrayImages(np.stack(fitted), None if numbers is None else numbers.astype("int64"), class_names))
    if pair[0] is None:
        raise ValueError(
            f"The file must hold an array images, or x_train. Received: {path} with {', '.join(arrays) or 'nothing'}."
        )
    return pair


def _numbers(labels, count, name):
    """Labels `(n,)`, of which `(n, 1)` is another form, or `(n, classes)` for images with several."""
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = labels.dtype.kind in "iub"
    if labels.ndim == 1 and len(labels) == count and whole and labels.min() >= 0:
        return labels
    if labels.ndim == 2 and len(labels) == count and whole and labels.min() >= -1 and labels.max() <= 1:
        return labels.astype("int64")
    raise ValueError(
        "There must be one label for each image, an integer from 0, or a row for each image that says of each class "
        "whether the image has it: 1, 0, or -1 where it does not count. "
        f"Received: {name} of shape {labels.shape} and dtype {labels.dtype} for {count} images."
    )


def _first(images, per_class, source):
    if images is None or per_class is None:
        return images
    if images.class_names is None:
        raise ValueError(
            f"train_per_class and test_per_class need classes. Received: {source}, which has none. Leave them out "
            "(--train_per_class=0 --test_per_class=0 where a recipe sets them)."
        )
    if isinstance(images, RecordImages):
        images = images.in_memory()
    if images.labels.ndim == 2:
        raise ValueError(
            "train_per_class and test_per_class need one class for each image. "
            f"Received: {source}, whose images have several labels. Leave them out."
        )
    return images.take(splits.first_of_each_class(images.labels, per_class))


def _kept(images, memory_limit):
    """In memory, if there is room."""
    if images is None or isinstance(images, ArrayImages):
        return images
    return images.in_memory() if 3 * images.image_size**2 * len(images) <= memory_limit else images
