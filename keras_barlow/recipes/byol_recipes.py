"""Recipes for BYOL. Each opens with its command, hardware, duration and expected accuracy on frozen features.

The recipes for CIFAR-10 with ResNet-18 follow solo-learn, those for ImageNet the paper.
"""

from keras_barlow.recipes import barlow_twins_recipes as base

# python examples/pretrain.py --method=byol
# Two CPU cores, about 6 minutes. 10 labels per class: 0.48.
DIGITS = base.DIGITS.with_method(
    "digits_byol",
    "BYOL",
    # Slower than with negatives: 0.33 after 25 epochs at 5e-3.
    epochs=36,
    learning_rate=2.5e-3,
    projector=(256, 256),
    method_options={"predictor": (256, 256), "momentum": 0.95},
)

# python examples/pretrain.py --method=byol --recipe=cifar10_small --data_dir=cifar10.zip
# Two CPU cores, about 10 minutes for 20,000 images.
CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_byol",
    "BYOL",
    projector=(1024, 256),
    method_options={"predictor": (1024, 256), "momentum": 0.99},
)

# python examples/pretrain.py --method=byol --recipe=cifar10_resnet18 --dataset=cifar10 --download
# One GPU; not yet run to the end, so the hours are not known. Expected:
# 92.58 linear (online), as reported by solo-learn.
CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_byol",
    "BYOL",
    learning_rate=1.0,
    projector=(4096, 256),
    method_options={"predictor": (4096, 256), "momentum": 0.99},
    optimizer_options={"weight_decay": 1e-5, "trust_coefficient": 0.02, "trust_clip": True},
    views_options={"blur": (0.0, 0.0)},
)

# python examples/pretrain.py --method=byol --recipe=imagenet_resnet50 --data_dir=imagenet
# Several GPUs; not yet run, so the hours are not known. Expected: 74.3 linear, the figure of the paper.
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
