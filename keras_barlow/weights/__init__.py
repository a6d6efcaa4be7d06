"""Conversion of ResNet weights from and to PyTorch."""

from keras_barlow.weights.conversion import Loaded, load_torch, save_torch

__all__ = ["Loaded", "load_torch", "save_torch"]
