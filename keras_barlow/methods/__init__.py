"""Methods of self-supervised pre-training, one paper per module."""

from keras_barlow.methods.barlow_twins import BarlowTwins

__all__ = ["BarlowTwins"]
