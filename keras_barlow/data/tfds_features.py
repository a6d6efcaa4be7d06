"""Finds the features of a TFDS dataset that hold the images and the labels."""

import numpy as np
from absl import logging


def _supervised(builder):
    """The dataset's own names for its image and its label."""
    keys = builder.info.supervised_keys
    return keys if isinstance(keys, tuple) and len(keys) == 2 else (None, None)


def image_feature(builder):
    """Finds the feature with the images.

    Args:
        builder: `tfds.core.DatasetBuilder`.

    Returns:
        Name of the feature.

    Raises:
        ValueError: If the examples do not have exactly one image of 8 or 16 bits, and none is named `image`.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    names = list(features.keys()) if hasattr(features, "keys") else []
    # Segmentation masks are images too, but not these.
    images = [
        name
        for name in names
        if isinstance(features[name], tfds.features.Image)
        and not isinstance(features[name], tfds.features.LabeledImage)
    ]
    choice = next((name for name in (_supervised(builder)[0], "image") if name in images), None)
    if choice is None and len(images) == 1:
        choice = images[0]
    if choice is None or features[choice].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"Every example must have one image of 8 or 16 bits. Received: {builder.info.name} with the features "
            f"{', '.join(sorted(names)) or features}, of which {len(images)} are images. Prepare a dataset with one "
            "top-level Image feature, or save its images in a folder."
        )
    if len(images) > 1:
        logging.warning("%s has several image features, %s; using %s.", builder.info.name, images, choice)
    return choice


def label_features(builder):
    """Finds the features with the labels.

    Args:
        builder: `tfds.core.DatasetBuilder`.

    Returns:
        The pair `(label, positive)` of names. With one class per image, `positive` is None. With several, `label` has
        all classes of an image, and `positive` those that are not ignored. Both are None if there are no labels.

    Raises:
        ValueError: If the labels are not classes, or it is ambiguous which feature has them.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    classes = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    supervised = _supervised(builder)[1]
    choice = next((name for name in (supervised, "label") if name in classes), None)
    if choice is not None or len(classes) == 1:
        return choice or classes[0], None
    element = getattr(features["labels"], "feature", None) if "labels" in features else None
    if isinstance(element, tfds.features.ClassLabel):
        # VOC omits objects that are difficult to see from its second list; they are ignored.
        return "labels", "labels_no_difficult" if "labels_no_difficult" in features else "labels"
    candidates = classes or [name for name in ("label", "labels", supervised) if name in features]
    if candidates:
        received = ", ".join(f"{name}: {features[name]}" for name in sorted(candidates))
        raise ValueError(
            "The class of an image must be a ClassLabel, the only one or named label, or a sequence of ClassLabels "
            f"named labels. Received: {builder.info.name} with {received}. "
            "Ignore the classes with labels=False (--nolabels)."
        )
    return None, None
