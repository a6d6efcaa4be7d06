"""Recipes for VICReg, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_vicreg",
    "VICReg",
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_vicreg",
    "VICReg",
    projector=(1024, 1024, 1024),
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_vicreg",
    "VICReg",
    learning_rate=0.3,
    projector=(2048, 2048, 2048),
    optimizer_options={"weight_decay": 1e-4, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"crop_scale": (0.2, 1.0), "blur": (0.0, 0.0), "solarization": (0.1, 0.1)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_vicreg",
    "VICReg",
    learning_rate=0.2 * 2048 / 256,
    projector=(8192, 8192, 8192),
    optimizer_options={"weight_decay": 1e-6, "vector_learning_rate": None},
    views_options={"blur": (0.5, 0.5), "solarization": (0.1, 0.1)},
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
