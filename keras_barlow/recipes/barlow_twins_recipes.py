"""Recipes for Barlow Twins, from a three-minute run on two CPU cores to the paper's run on ImageNet.

`sources` has the source of each, the accuracy to expect, and what departs from the source.
"""

import dataclasses

from keras_barlow.recipes import published
from keras_barlow.recipes.recipe import Recipe

DIGITS = Recipe(
    name="digits",
    image_size=32,
    epochs=25,
    batch_size=64,
    learning_rate=5e-3,
    projector=(256, 256),
    encoder="resnet8",
    encoder_options={"stem": "small", "width": 16},
    loss_options={"redundancy_weight": 0.005},
    # A shorter memory than Adam's 0.999, because the run has only 1,700 steps: 0.58 instead of 0.48 after 8 epochs.
    optimizer_options={"weight_decay": 1e-6, "beta_2": 0.95},
    warmup_epochs=1,
    final_fraction=0.2,
    views_options={
        "crop_scale": (0.5, 1.0),
        "flip": 0.0,
        # Strong, so that the color of a digit is not a shortcut that identifies it in both views.
        "jitter": (0.6, 0.4, 0.9, 0.5),
        "jitter_probability": 1.0,
        "grayscale": 0.3,
        "blur": (0.0, 0.0),
        "solarization": (0.0, 0.0),
    },
    knn_k=5,
)

CIFAR10_SMALL = Recipe(
    name="cifar10_small",
    image_size=32,
    epochs=20,
    batch_size=256,
    learning_rate=1e-3,
    projector=(1024, 1024, 1024),
    encoder_options={
        "stem": "small",
        "width": 16,
        # PyTorch's default for convolutions. Under batch normalization the scale of a kernel only changes its effective
        # learning rate, and this learning rate suits it: k-NN 0.524 after 20 epochs, 0.498 with torchvision's.
        "kernel_variance": (1 / 3, "fan_in", "uniform"),
    },
    loss_options={"redundancy_weight": 0.005},
    # With Adam's default of 0.999 the large gradients of the first epoch matter for most of the 1,560 steps: k-NN 0.519
    # and linear 0.586 instead of 0.533 and 0.609 (seed 0).
    optimizer_options={"weight_decay": 1e-6, "beta_2": 0.99},
    views_options={"blur": (0.0, 0.0)},
    precision="mixed_bfloat16",
)

# solo-learn's recipe for CIFAR-10.
CIFAR10_RESNET18 = Recipe(
    name="cifar10_resnet18",
    image_size=32,
    epochs=1000,
    batch_size=256,
    learning_rate=0.3,
    projector=(2048, 2048, 2048),
    encoder_options={"stem": "small"},
    # The loss times 0.1, which matters for the variables without a trust ratio.
    loss_options={"invariance_weight": 0.1, "redundancy_weight": 0.1 * 0.0051},
    optimizer="lars",
    optimizer_options={"weight_decay": 1e-4, "trust_coefficient": 0.02, "trust_clip": True},
    warmup_epochs=10,
    final_fraction=0.0,
    views_options={"blur": (0.0, 0.0)},
    precision="mixed_bfloat16",
)

CIFAR100_RESNET18 = dataclasses.replace(CIFAR10_RESNET18, name="cifar100_resnet18")

# solo-learn's recipe for ImageNet-100.
IMAGENET100_RESNET18 = dataclasses.replace(
    CIFAR10_RESNET18,
    name="imagenet100_resnet18",
    image_size=224,
    epochs=400,
    encoder_options={"stem": "imagenet"},
    views_options={},
)

# lightly's benchmark on CIFAR-10.
CIFAR10_RESNET18_LIGHTLY = Recipe(
    name="cifar10_resnet18_lightly",
    image_size=32,
    epochs=200,
    batch_size=128,
    learning_rate=0.06,
    projector=(2048, 2048),
    encoder_options={"stem": "small", "kernel_variance": (1 / 3, "fan_in", "uniform")},
    loss_options={"redundancy_weight": 0.005},
    optimizer="sgd",
    optimizer_options={"weight_decay": 5e-4},
    final_fraction=0.0,
    views_options={"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.0, 0.0), "solarization": (0.0, 0.0)},
    precision="mixed_bfloat16",
)

CIFAR10_RESNET18_LIGHTLY_512 = dataclasses.replace(
    CIFAR10_RESNET18_LIGHTLY, name="cifar10_resnet18_lightly_512", batch_size=512, learning_rate=0.06 * 512 / 128
)

# The recipe of "A Note on Connecting Barlow Twins with Negative-Sample-Free Contrastive Learning".
CIFAR10_RESNET50 = Recipe(
    name="cifar10_resnet50",
    image_size=32,
    epochs=1000,
    batch_size=128,
    learning_rate=1e-3,
    projector=(512, 128),
    encoder="resnet50",
    encoder_options={"stem": "small"},
    loss_options={"redundancy_weight": 1 / 128},
    optimizer_options={"weight_decay": 1e-6},
    views_options={"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.0, 0.0), "solarization": (0.0, 0.0)},
)

# The recipe of the Barlow Twins paper. Learning rates are per 256 images, times 2048 / 256.
IMAGENET_RESNET50 = Recipe(
    name="imagenet_resnet50",
    image_size=224,
    epochs=1000,
    batch_size=2048,
    learning_rate=published.learning_rate_for(2048),
    projector=(8192, 8192, 8192),
    encoder="resnet50",
    encoder_options={"stem": "imagenet", "zero_init_residual": True},
    loss_options={"redundancy_weight": 0.0051},
    optimizer="lars",
    # The gradient of the reference implementation is 1 / 16 of the true one, for its 16 devices. For weights, LARS
    # cancels the factor; for biases and batch normalization, the published 0.0048 means 0.0048 / 16 here.
    optimizer_options={"weight_decay": 1e-6, "vector_learning_rate": 0.0048 / 16 * 2048 / 256},
    warmup_epochs=10,
    final_fraction=0.001,
    precision="mixed_bfloat16",
)

# lightly's benchmark on ImageNet, with the vector rate divided by its two devices, as above.
IMAGENET_RESNET50_LIGHTLY = IMAGENET_RESNET50.changed(
    name="imagenet_resnet50_lightly",
    epochs=100,
    batch_size=256,
    learning_rate=0.2,
    encoder_options={"zero_init_residual": False},
    loss_options={"redundancy_weight": 0.005},
    optimizer_options={"weight_decay": 1.5e-6, "vector_learning_rate": 0.0048 / 2},
)

ALL = (
    DIGITS,
    CIFAR10_SMALL,
    CIFAR10_RESNET18,
    IMAGENET_RESNET50,
    CIFAR100_RESNET18,
    IMAGENET100_RESNET18,
    CIFAR10_RESNET18_LIGHTLY,
    CIFAR10_RESNET18_LIGHTLY_512,
    CIFAR10_RESNET50,
    IMAGENET_RESNET50_LIGHTLY,
)
