"""Features of a collection of image files: extraction in constant memory, search, and duplicates."""

from keras_barlow.retrieval.extraction import extract
from keras_barlow.retrieval.fingerprints import check_encoder
from keras_barlow.retrieval.similarity import duplicates, search
from keras_barlow.retrieval.storage import FORMATS, Gallery, load

__all__ = ["FORMATS", "Gallery", "check_encoder", "duplicates", "extract", "load", "search"]
