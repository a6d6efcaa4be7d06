"""Recipes for SimCLR, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_simclr",
    "SimCLR",
    projector=(256, 128),
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_simclr",
    "SimCLR",
    projector=(1024, 128),
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_simclr",
    "SimCLR",
    learning_rate=0.4,
    projector=(2048, 256),
    loss_options={"temperature": 0.2},
    optimizer_options={"weight_decay": 1e-4, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"jitter": (0.8, 0.8, 0.8, 0.2), "blur": (0.5, 0.5), "solarization": (0.0, 0.0)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_simclr",
    "SimCLR",
    batch_size=4096,
    learning_rate=0.3 * 4096 / 256,
    projector=(2048, 128),
    loss_options={"temperature": 0.1},
    optimizer_options={"weight_decay": 1e-6, "vector_learning_rate": None},
    final_fraction=0.0,
    views_options={"jitter": (0.8, 0.8, 0.8, 0.2), "blur": (0.5, 0.5), "solarization": (0.0, 0.0)},
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
