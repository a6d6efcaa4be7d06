"""`load`: training and test images from a folder, an archive, a NumPy file or a TFDS dataset."""

import numpy as np
from absl import logging

from keras_barlow.data import splits
from keras_barlow.data.decoding import Decoder
from keras_barlow.data.files import Archive, Folder
from keras_barlow.data.images import ArrayImages, FileImages
from keras_barlow.data.names import LeftOut, printable, user_path
from keras_barlow.data.npz import read_npz
from keras_barlow.data.per_class import first_of_each_class
from keras_barlow.data.tfds import RecordImages, prepared_builder

_HELD_OUT = 0.1
# Number of images to read immediately, so that a folder of broken files does not fail an hour later.
_CHECKED_FIRST = 16


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
    """Loads images for training and, if they have labels, images for testing.

    | `data_dir` | contents |
    |---|---|
    | a folder | image files (JPEG, PNG, WebP, BMP, TIFF, GIF); a subfolder per class if they have labels |
    | a `.zip` file | the same layout, read without unpacking |
    | a `.npz` file | arrays `images`, `labels`; or `x_train`, `y_train`, `x_test`, `y_test`; or `train_images`, ... |
    | with `dataset` | the folder of prepared TFDS datasets; None for TFDS' default |

    A folder or an archive may contain `train/` and `test/` (or `val/`), and `unlabeled/`, which is used for training if
    `labels=False`; `splits.find_splits` has the details. If labeled images have no test split, a tenth of each class is
    held out. A warning counts and names everything that is skipped: files of other formats, folders without an image,
    unused splits.

    Every image is converted to upright RGB; its shorter side is resized to `image_size`, and the center is cropped.
    Datasets up to `memory_limit` are read immediately and kept in memory as uint8; larger ones are streamed from disk
    in constant memory.

    Multi-label images come from a `.npz` file with labels `(n, classes)` of 1, 0 and -1 (ignored), or from a TFDS
    dataset with a sequence of classes named `labels`, such as `"voc/2007"`, whose difficult objects are ignored.

    Args:
        data_dir: Path of the images, as in the table above; `~` is the user's home directory.
        image_size: Side of the images, in pixels.
        dataset: Name of a TFDS dataset, such as `"imagenette/160px"`.
        train_split: TFDS split to train on, with an optional slice; `"train"` by default.
        test_split: TFDS split to test on. If neither split is passed: `"test"`, or else `"validation"`, or else a tenth
            of `"train"`.
        train_per_class: Number of training images to keep per class, the first by file name; None keeps all.
        test_per_class: Number of test images to keep per class, the first by file name; None keeps all.
        labels: Whether to use the classes. Without classes nothing can be evaluated.
        skip_corrupt: Whether to skip unreadable files and log their number, which takes one pass over all files. By
            default an unreadable file raises an error that names it.
        download: Whether TFDS may download a dataset that is not on disk.
        memory_limit: Size in bytes up to which a dataset is kept in memory.
        seed: Integer that determines which images are held out.

    Returns:
        The pair `(train, test)` of `Images`; `test` is None without labels.

    Raises:
        ValueError: If there are no images, or they cannot be used; the message says what to do.

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
            "train_split and test_split are for TFDS datasets. "
            f"Received: train_split={train_split!r}, test_split={test_split!r}, dataset=None. "
            "Put the splits of a folder into the subfolders train/ and test/."
        )
    decoder, left_out = Decoder(image_size), LeftOut()
    if dataset is not None:
        source = dataset
        data_dir = None if data_dir is None else user_path(data_dir)
        train, test = _records(dataset, data_dir, train_split, test_split, decoder, labels, download)
    else:
        path = user_path(data_dir)
        source = printable(path)
        if path.suffix.lower() == ".npz" and _checked_path(path).is_file():
            train, test = read_npz(path, decoder, labels, left_out)
        else:
            train, test = _files(path, decoder, labels, skip_corrupt, left_out)
        if left_out:
            logging.warning("Skipped in %s: %s", source, left_out)
    train, test = _first(train, train_per_class, source), _first(test, test_per_class, source)
    if len(train) < 2:
        raise ValueError(
            "There must be at least 2 images to train on: the loss compares features over a batch. "
            f"Received: {len(train)} in {source}. Add images."
        )
    if isinstance(train, FileImages):
        train.sample(_CHECKED_FIRST)
    if not isinstance(train, RecordImages) and train.labels is not None:
        multi_label = train.labels.ndim == 2
        if not multi_label:
            splits.check_classes(train.labels, train.class_names, source)
        if test is None:
            # Multi-label images cannot be stratified by class.
            strata = np.zeros(len(train)) if multi_label else train.labels
            train_rows, test_rows = splits.hold_out(strata, _HELD_OUT, seed)
            logging.info("There is no test split: %d of %d images are held out.", len(test_rows), len(train))
            train, test = train.take(train_rows), train.take(test_rows)
    if train.class_names is None:
        test = None
    return _in_memory_if_small(train, memory_limit), _in_memory_if_small(test, memory_limit)


def every_image(data_dir, image_size, skip_corrupt=False):
    """Opens all image files of a folder or archive, at any depth and without labels, and reads them on demand.

    Args:
        data_dir: Path of a folder or a `.zip` file.
        image_size: Side of the images, in pixels: the shorter side is resized to it, and the center is cropped.
        skip_corrupt: Whether to skip unreadable files and log their number. By default an unreadable file raises an
            error that names it.

    Returns:
        `FileImages`, whose `names` are the paths of the files.

    Raises:
        ValueError: If there is no image.
    """
    path = user_path(data_dir)
    files = _opened(path)
    if files.left_out:
        logging.warning("Skipped in %s: %s", printable(path), files.left_out)
    images = FileImages(files, splits.Split(files.names, None, None), Decoder(image_size))
    return _readable(images, path) if skip_corrupt else images


def _checked_path(path):
    """Returns the path of a folder or a file; rejects pipes and devices, which may never end."""
    try:
        if path.is_dir() or path.is_file():
            return path
        problem = "neither a file nor a folder" if path.exists() or path.is_symlink() else "no such folder or file"
    except OSError as error:
        problem = error.strerror
    raise ValueError(
        f"The images must be in a folder, a .zip or a .npz file. Received: {printable(path)}, {problem}. "
        "Check --data_dir."
    )


def _opened(path):
    return Folder(path) if _checked_path(path).is_dir() else Archive(path)


def _readable(images, source):
    images, errors = images.readable()
    if errors:
        logging.warning("%d of %d files cannot be read and are skipped:", len(errors), len(images) + len(errors))
        for error in errors[:10]:
            logging.warning("  %s", error.split("Received: ")[1].split(" Delete")[0])
    if not len(images):
        raise ValueError(
            "There must be a readable image. "
            f"Received: {printable(source)}, where {len(errors)} files failed. Replace the damaged files."
        )
    return images


def _files(path, decoder, labels, skip_corrupt, left_out):
    files = _opened(path)
    left_out.update(files.left_out)
    pair = splits.find_splits(files.names, printable(path), labels, left_out, files.folders)
    pair = [split and FileImages(files, split, decoder) for split in pair]
    return [images and _readable(images, path) for images in pair] if skip_corrupt else pair


def _records(dataset, data_dir, train_split, test_split, decoder, labels, download):
    builder = prepared_builder(dataset, data_dir, download)
    if train_split is None and test_split is None:
        train_split = "train"
        test_split = _test_split(builder, decoder, labels)
        if test_split is None and RecordImages(builder, train_split, decoder, labels).class_names is not None:
            train_split, test_split = "train[:90%]", "train[90%:]"
            logging.info("There is no test split: the last tenth of the examples is held out.")
    pair = [split and RecordImages(builder, split, decoder, labels) for split in (train_split or "train", test_split)]
    for images in filter(None, pair):
        images.check_first_labels()
    return pair


def _test_split(builder, decoder, labels):
    """The first test split with labels. ImageNet, for one, does not publish the labels of its test split."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            numbers = RecordImages(builder, split, decoder, labels).first_labels()
            if numbers is None or len(numbers) == 0 or numbers.min() >= 0:
                return split
            logging.warning("Skipped %s, %s: its examples have no labels.", builder.info.name, split)
    return None


def _first(images, per_class, source):
    if images is None or per_class is None:
        return images
    if images.class_names is None:
        raise ValueError(
            f"train_per_class and test_per_class need classes. Received: {source}, which has none. Omit them "
            "(--train_per_class=0 --test_per_class=0 if a recipe sets them)."
        )
    if isinstance(images, RecordImages):
        images = images.in_memory()
    if images.labels.ndim == 2:
        raise ValueError(
            "train_per_class and test_per_class need exactly one class per image. "
            f"Received: {source}, whose images have several labels. Omit them."
        )
    return images.take(first_of_each_class(images.labels, per_class))


def _in_memory_if_small(images, memory_limit):
    if images is None or isinstance(images, ArrayImages):
        return images
    return images.in_memory() if 3 * images.image_size**2 * len(images) <= memory_limit else images
