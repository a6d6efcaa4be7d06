"""Recipes for VICReg. Each opens with its command, hardware, duration and expected accuracy on frozen features.

The recipes for CIFAR-10 with ResNet-18 follow solo-learn, those for ImageNet the paper.
"""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=vicreg
# Two CPU cores, about 3 minutes. 10 labels per class: 0.83.
DIGITS = base.DIGITS.with_method(
    "digits_vicreg",
    "VICReg",
)

# python examples/pretrain.py --method=vicreg --recipe=cifar10_small --data_dir=cifar10.zip
# Two CPU cores, about 10 minutes for 20,000 images.
CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_vicreg",
    "VICReg",
    projector=(1024, 1024, 1024),
)

# python examples/pretrain.py --method=vicreg --recipe=cifar10_resnet18 --dataset=cifar10 --download
# One GPU; not yet run to the end, so the hours are not known. Expected:
# 92.07 linear (online), as reported by solo-learn.
CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_vicreg",
    "VICReg",
    learning_rate=0.3,
    projector=(2048, 2048, 2048),
    optimizer_options={"weight_decay": 1e-4, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"crop_scale": (0.2, 1.0), "blur": (0.0, 0.0), "solarization": (0.1, 0.1)},
)

# python examples/pretrain.py --method=vicreg --recipe=imagenet_resnet50 --data_dir=imagenet
# Several GPUs; not yet run, so the hours are not known. Expected: 73.2 linear, the figure of the paper.
IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_vicreg",
    "VICReg",
    learning_rate=0.2 * 2048 / 256,
    projector=(8192, 8192, 8192),
    optimizer_options={"weight_decay": 1e-6, "vector_learning_rate": None},
    views_options={"blur": (0.5, 0.5), "solarization": (0.1, 0.1)},
)
