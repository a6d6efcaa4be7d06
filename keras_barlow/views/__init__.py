"""Random views of images: the layer that draws them, and the policies of the papers."""

from keras_barlow.views.foreign import drawn
from keras_barlow.views.keras_cv import keras_cv_barlow_twins
from keras_barlow.views.layer import Views
from keras_barlow.views.policies import barlow_twins, cifar, multi_channel, multi_crop, policy, simclr

__all__ = [
    "Views",
    "barlow_twins",
    "cifar",
    "drawn",
    "keras_cv_barlow_twins",
    "multi_channel",
    "multi_crop",
    "policy",
    "simclr",
]
