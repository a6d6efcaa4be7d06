"""One random, batched, serializable Keras layer per transform, for images on 0..255."""

from keras_barlow.augmentations.blur import RandomGaussianBlur
from keras_barlow.augmentations.color import RandomColorJitter, RandomGrayscale, RandomSolarization
from keras_barlow.augmentations.geometry import RandomFlip, RandomResizedCrop
from keras_barlow.augmentations.transform import RandomTransform

__all__ = [
    "RandomColorJitter",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomResizedCrop",
    "RandomSolarization",
    "RandomTransform",
]
