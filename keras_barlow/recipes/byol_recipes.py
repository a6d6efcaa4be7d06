"""Recipes for BYOL, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_byol",
    "BYOL",
    # In 800 steps, a momentum that rises to 1 lets the targets fall behind: few-label accuracy after 12 epochs is 0.41
    # with a constant 0.9 and 0.34 from 0.9 to 1.
    epochs=36,
    learning_rate=1.5e-3,
    projector=(256, 256),
    optimizer_options={"beta_2": 0.99},
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (256, 256), "momentum": 0.9, "total_steps": None},
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_byol",
    "BYOL",
    projector=(1024, 256),
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (1024, 256), "momentum": 0.97, "total_steps": None},
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_byol",
    "BYOL",
    learning_rate=1.0,
    projector=(4096, 256),
    method_options={"predictor": (4096, 256), "momentum": 0.99},
    optimizer_options={"weight_decay": 1e-5, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"blur": (0.0, 0.0)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_byol",
    "BYOL",
    batch_size=4096,
    learning_rate=0.2 * 4096 / 256,
    projector=(4096, 256),
    method_options={"predictor": (4096, 256), "momentum": 0.996},
    optimizer_options={"weight_decay": 1.5e-6, "vector_learning_rate": None},
    final_fraction=0.0,
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
