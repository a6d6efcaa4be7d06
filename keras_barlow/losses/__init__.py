"""Losses of the embeddings of a whole batch, with exact gradients on any number of replicas."""

from keras_barlow.losses.barlow_twins_loss import BarlowTwinsLoss
from keras_barlow.losses.base import Loss
from keras_barlow.losses.correlation import cross_correlation, standardize
from keras_barlow.losses.costs import batch_form_is_cheaper

__all__ = ["BarlowTwinsLoss", "Loss", "batch_form_is_cheaper", "cross_correlation", "standardize"]
