"""Methods of self-supervised pre-training, one paper per module."""

from keras_barlow.methods.barlow_twins import BarlowTwins
from keras_barlow.methods.byol import BYOL
from keras_barlow.methods.moco import MoCo
from keras_barlow.methods.simclr import SimCLR
from keras_barlow.methods.simsiam import SimSiam
from keras_barlow.methods.swav import SwAV
from keras_barlow.methods.vicreg import VICReg

__all__ = ["BarlowTwins", "VICReg", "SimCLR", "BYOL", "SimSiam", "MoCo", "SwAV"]
