"""Recipes for SwAV, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_swav",
    "SwAV",
    # Prototypes that are frozen for 12 epochs are better: few-label accuracy after 12 epochs is 0.51 with 400 frozen
    # steps and 0.48 with 134. So is the temperature: 0.40 with 0.1.
    epochs=36,
    projector=(256, 64),
    method_options={"num_prototypes": 48, "frozen_steps": 800},
    loss_options={"temperature": 0.2},
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_swav",
    "SwAV",
    projector=(1024, 128),
    method_options={"num_prototypes": 128, "frozen_steps": 78},
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_swav",
    "SwAV",
    learning_rate=0.6,
    projector=(2048, 128),
    method_options={"num_prototypes": 256, "frozen_steps": 390},
    optimizer_options={"weight_decay": 1e-6, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"jitter": (0.8, 0.8, 0.8, 0.2), "blur": (0.5, 0.5), "solarization": (0.0, 0.0)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_swav",
    "SwAV",
    epochs=800,
    batch_size=4096,
    learning_rate=4.8,
    projector=(2048, 128),
    method_options={"num_prototypes": 3000, "frozen_steps": 313},
    optimizer_options={"weight_decay": 1e-6, "vector_learning_rate": None},
    views_policy="multi_crop",
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
