"""Layers of encoders and projectors."""

from keras_barlow.layers.normalization import BatchNormalization, synchronize_batch_norm
from keras_barlow.layers.projector import Projector
from keras_barlow.layers.standardize import Standardize

__all__ = ["BatchNormalization", "Projector", "Standardize", "synchronize_batch_norm"]
