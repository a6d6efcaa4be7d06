"""Image sources: folders, zip archives, NumPy files, TFDS datasets, and drawn digits that need no network."""

from keras_barlow.data.center_crop import inference_size
from keras_barlow.data.decoding import Decoder
from keras_barlow.data.digits import digits
from keras_barlow.data.images import ArrayImages, Images
from keras_barlow.data.loader import every_image, load
from keras_barlow.data.order import Batches, check_repeatable, continued, fills_epochs, order_of
from keras_barlow.data.scenes import Scenes, scenes

__all__ = [
    "ArrayImages",
    "Batches",
    "Decoder",
    "Images",
    "Scenes",
    "check_repeatable",
    "continued",
    "digits",
    "every_image",
    "fills_epochs",
    "inference_size",
    "load",
    "order_of",
    "scenes",
]
