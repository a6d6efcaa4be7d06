"""Recipes for MoCo, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_moco",
    "MoCo",
    # An epoch takes two thirds of the time of Barlow Twins, and only view A has a gradient: 0.54 after 25 epochs.
    epochs=45,
    projector=(256, 128),
    method_options={"momentum": 0.99, "queue_size": 1024},
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_moco",
    "MoCo",
    projector=(1024, 128),
    method_options={"momentum": 0.99, "queue_size": 4096},
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_moco",
    "MoCo",
    learning_rate=0.3,
    projector=(2048, 256),
    method_options={"momentum": 0.99, "queue_size": 32768},
    optimizer="sgd",
    optimizer_options={"weight_decay": 1e-4},
    views_options={"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.5, 0.5), "solarization": (0.0, 0.0)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_moco",
    "MoCo",
    epochs=800,
    batch_size=256,
    learning_rate=0.03,
    projector=(2048, 128),
    projector_options={"use_bias": True, "use_batch_norm": False},
    method_options={"momentum": 0.999, "queue_size": 65536},
    optimizer="sgd",
    optimizer_options={"weight_decay": 1e-4},
    warmup_epochs=0,
    final_fraction=0.0,
    views_options={
        "crop_scale": (0.2, 1.0),
        "jitter": (0.4, 0.4, 0.4, 0.1),
        "blur": (0.5, 0.5),
        "solarization": (0.0, 0.0),
    },
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
