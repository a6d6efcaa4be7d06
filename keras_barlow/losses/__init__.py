"""Losses of the embeddings of a whole batch, with exact gradients on any number of replicas."""

from keras_barlow.losses.barlow_twins_loss import BarlowTwinsLoss
from keras_barlow.losses.base import Loss
from keras_barlow.losses.byol_loss import BYOLLoss
from keras_barlow.losses.correlation import cross_correlation, standardize
from keras_barlow.losses.cosine import l2_normalized
from keras_barlow.losses.costs import batch_form_is_cheaper
from keras_barlow.losses.mixup_loss import MixedBarlowTwinsLoss
from keras_barlow.losses.moco_loss import MoCoLoss
from keras_barlow.losses.simclr_loss import SimCLRLoss
from keras_barlow.losses.simsiam_loss import SimSiamLoss
from keras_barlow.losses.swav_loss import SwAVLoss
from keras_barlow.losses.vicreg_loss import VICRegLoss

__all__ = [
    "BYOLLoss",
    "BarlowTwinsLoss",
    "Loss",
    "MixedBarlowTwinsLoss",
    "MoCoLoss",
    "SimCLRLoss",
    "SimSiamLoss",
    "SwAVLoss",
    "VICRegLoss",
    "batch_form_is_cheaper",
    "cross_correlation",
    "l2_normalized",
    "standardize",
]
