"""Published accuracies of the methods, to set beside one's own.

Sources:

- ImageNet: linear evaluation of ResNet-50, from the papers of the methods. Barlow Twins
  https://arxiv.org/abs/2103.03230, VICReg https://arxiv.org/abs/2105.04906, SimCLR https://arxiv.org/abs/2002.05709,
  BYOL https://arxiv.org/abs/2006.07733, SimSiam https://arxiv.org/abs/2011.10566, MoCo v2
  https://arxiv.org/abs/2003.04297, SwAV https://arxiv.org/abs/2006.09882.
- Learning rates by batch size: Barlow Twins, https://arxiv.org/abs/2103.03230.
- CIFAR-10, k-NN: lightly's benchmark, ResNet-18, k = 200, temperature 0.1, batch 128, 200 epochs.
  https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html
- CIFAR-10, linear: solo-learn's benchmark, ResNet-18, 1000 epochs, a linear classifier trained online. For MoCo, it is
  that of MoCo v2+. https://github.com/vturrisi/solo-learn
"""

import math
from typing import NamedTuple

import numpy as np


class Figures(NamedTuple):
    """Published accuracies of a method, top-1 in percent. None if the source does not report one.

    Attributes:
        imagenet_linear: Linear evaluation on ImageNet with two views of each image.
        imagenet_epochs: Epochs of that run.
        cifar10_knn: k-NN on CIFAR-10 after 200 epochs.
        cifar10_linear: Online linear evaluation on CIFAR-10 after 1000 epochs.
    """

    imagenet_linear: float | None = None
    imagenet_epochs: int | None = None
    cifar10_knn: float | None = None
    cifar10_linear: float | None = None


_FIGURES = {
    "BarlowTwins": Figures(73.2, 1000, 84.2, 92.10),
    "VICReg": Figures(73.2, 1000, None, 92.07),
    "SimCLR": Figures(69.3, 1000, 84.7, 90.74),
    "BYOL": Figures(74.3, 1000, 86.9, 92.58),
    "SimSiam": Figures(71.3, 800, 81.9, 90.51),
    "MoCo": Figures(71.1, 800, 83.8, 92.94),
    # 75.3 on ImageNet with six more crops of 96 pixels.
    "SwAV": Figures(71.8, 800, 81.2, 89.17),
}


def figures(method):
    """Returns the published accuracies of a method.

    Args:
        method: Name of a class in `methods`, such as `"BarlowTwins"`.

    Returns:
        `Figures`. All are None for a method that is not in the sources.

    Example:

    >>> figures("BarlowTwins").imagenet_linear
    73.2
    """
    return _FIGURES.get(method, Figures())


# Barlow Twins on ImageNet by batch size, 300 epochs: learning rate per 256 images, and linear accuracy.
_BATCH_SIZES = {
    128: (0.7, 69.7),
    256: (0.4, 70.7),
    512: (0.3, 71.4),
    1024: (0.25, 71.7),
    2048: (0.2, 71.4),
    4096: (0.2, 70.7),
}


def learning_rate_for(batch_size):
    """Returns the published learning rate of Barlow Twins with LARS for a batch size.

    Small batches need more than a rate proportional to the batch size: per 256 images, 0.7 for batches of 128 and 0.2
    for 2048. Between the published sizes, the rate per 256 images is interpolated over the logarithm of the size.

    Args:
        batch_size: Images per step over all replicas, from 128 to 4096.

    Returns:
        The peak learning rate of variables of rank 2 or more.

    Raises:
        ValueError: If the batch size is outside the published ones.

    Example:

    >>> round(learning_rate_for(2048), 3), round(learning_rate_for(256), 3)
    (1.6, 0.4)
    """
    sizes = sorted(_BATCH_SIZES)
    if not sizes[0] <= batch_size <= sizes[-1]:
        raise ValueError(
            f"The published batch sizes are {sizes[0]} to {sizes[-1]}. Received: batch_size={batch_size}. "
            "Choose one of these, or search for a learning rate."
        )
    rates = [_BATCH_SIZES[size][0] for size in sizes]
    return float(np.interp(math.log2(batch_size), np.log2(sizes), rates)) * batch_size / 256
