"""Images in memory."""

import numpy as np

from keras_barlow import image_scale
from keras_barlow.data.collection import Images
from keras_barlow.labels import checked_labels


class ArrayImages(Images):
    """Images in memory.

    Args:
        array: Array `(n, height, width, channels)`, uint8 or float on 0..255; floats are converted to float32.
        labels: Class numbers `(n,)`; multi-label targets `(n, classes)` of 1, 0 and -1; or None.
        class_names: Tuple with a name for each class, or None.

    Raises:
        ValueError: If the shape or dtype of the array is not supported, or the labels or class names do not match it.

    Example:

    >>> images = ArrayImages(np.zeros((3, 4, 4, 3), "uint8"), labels=np.array([0, 1, 1]))
    >>> len(images), images.sample(2)[1].tolist()
    (3, [0, 2])
    """

    def __init__(self, array, labels=None, class_names=None):
        self.array = _checked_array(array)
        image_scale.warn_about_scale(self.array)
        self.labels = None if labels is None else checked_labels(labels, len(self.array), several=True)
        self.class_names = _checked_names(class_names, self.labels)
        self.image_size = min(self.image_shape[:2])
        self.dtype = "uint8" if self.array.dtype == np.uint8 else "float32"

    @property
    def image_shape(self):
        """Height, width and channels."""
        return self.array.shape[1:]

    def __len__(self):
        return len(self.array)

    def take(self, rows):
        """Selects rows.

        Args:
            rows: Integer array `(m,)`.

        Returns:
            `ArrayImages` with the labels and class names of these rows.
        """
        return ArrayImages(self.array[rows], None if self.labels is None else self.labels[rows], self.class_names)

    def read(self, rows):
        """Reads images by row number, as `Images.read`."""
        return self.array[rows].astype(self.dtype, copy=False)

    def _encoded(self):
        raise ValueError(
            "Crop pairs are cut from the original files. Received: images in memory, which are already resized to "
            f"{self.image_size} pixels. Use data.load(..., memory_limit=0), or let the model's views crop."
        )


def _checked_array(array):
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise ValueError(
            "Images in memory must all be of one size. Received: images of several sizes. Resize them first."
        ) from error
    if array.ndim == 3:
        raise ValueError(
            "Images must have the shape (n, height, width, channels). "
            f"Received: images of shape {array.shape}. Add a channel axis to grayscale images: images[..., None] for a "
            "one-channel encoder, np.repeat(images[..., None], 3, axis=-1) for a three-channel encoder."
        )
    if array.ndim != 4 or not array.size:
        raise ValueError(
            "Images must have the shape (n, height, width, channels), with at least one image. "
            f"Received: images of shape {array.shape}."
        )
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            "Images must be uint8 or float on 0..255. "
            f"Received: images of dtype {array.dtype}. Scale and convert them: "
            "(images / 257).astype('float32') for uint16, (images * 255.0).astype('uint8') for bool, "
            "images.astype('uint8') for other integers on 0..255, images.astype('float32') for bfloat16."
        )
    return array


def _checked_names(class_names, labels):
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise ValueError(
            f"`class_names` must be a tuple of names. Received: class_names={class_names!r}. Pass a tuple of strings."
        )
    class_names = tuple(class_names)
    if labels is not None:
        classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
        if len(class_names) < classes or (labels.ndim == 2 and len(class_names) != classes):
            raise ValueError(
                f"Every class must have a name. Received: {len(class_names)} names for {classes} classes, "
                f"class_names={class_names[:5]}. Pass one name per class."
            )
    return class_names
