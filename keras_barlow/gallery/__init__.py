"""Features of a collection of image files: written to one file in constant memory, searched, and rid of duplicates."""

from keras_barlow.gallery.extraction import extract
from keras_barlow.gallery.fingerprints import check_encoder
from keras_barlow.gallery.similarity import duplicates, search
from keras_barlow.gallery.storage import FORMATS, Gallery, load

__all__ = ["FORMATS", "Gallery", "check_encoder", "duplicates", "extract", "load", "search"]
