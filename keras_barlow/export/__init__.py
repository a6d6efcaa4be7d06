"""Export of encoders: SavedModel, ONNX and LiteRT files, model cards, and upload to model hubs."""

from keras_barlow.export.classifier import Classifier, knn_head, linear_head
from keras_barlow.export.formats import FORMATS, save_encoder
from keras_barlow.export.publishing import to_huggingface, to_kaggle
from keras_barlow.export.reading import load_encoder

__all__ = [
    "Classifier",
    "FORMATS",
    "knn_head",
    "linear_head",
    "load_encoder",
    "save_encoder",
    "to_huggingface",
    "to_kaggle",
]
