"""Where the settings of each recipe come from, the accuracy to expect, and what departs from the source."""

from typing import NamedTuple


class Source(NamedTuple):
    """The source of a recipe.

    Attributes:
        settings: Where its settings are published.
        expected: Top-1 accuracy to expect on frozen features, and who reports it.
        checked: How far the recipe was run here.
        departures: What differs from the source.
    """

    settings: str
    expected: str
    checked: str
    departures: tuple = ()


_NOT_RUN = "The settings are compared with the source. No run of full length has been made."
_SOLO_LEARN = "solo-learn, scripts/pretrain/{}.yaml, https://github.com/vturrisi/solo-learn"
_LIGHTLY = "lightly, {}, https://github.com/lightly-ai/lightly"

_BFLOAT16 = "Layers compute in bfloat16, not in float16 with a scaled loss."
_BILINEAR = "Crops are resized bicubically, not bilinearly."
_SYNCHRONIZED = "Batch normalization is synchronized over the devices."
_NO_BIAS = "Linear layers have no bias."
_PER_STEP = "The cosine falls with every step, not with every epoch."
_CIFAR = (
    "The first convolution pads by one pixel, not by two.",
    "Pixels are standardized with the moments of ImageNet, not of CIFAR.",
    "The warm-up begins at 0, not at a small learning rate.",
    _NO_BIAS,
    _BFLOAT16,
)
_IMAGENET = (_BFLOAT16,)


def _digits(accuracy, minutes):
    return Source(
        "This library, for drawn digits.",
        f"{accuracy} with 10 labels per class, the mean of two seeds; 0.15 untrained.",
        f"Two CPU cores, {minutes} minutes.",
    )


def _cifar10_small(expected=None):
    return Source(
        "This library, for 20,000 images of CIFAR-10.",
        expected or "See benchmarks/results/methods.",
        "Two CPU cores, about 10 minutes.",
    )


def _solo_learn(file, expected, *departures, common=_CIFAR):
    expected = f"{expected} linear (online), reported by solo-learn."
    return Source(_SOLO_LEARN.format(file), expected, _NOT_RUN, (*common, *departures))


def _paper(title, link, expected, *departures):
    return Source(f"{title}, {link}", f"{expected} linear, reported by the paper.", _NOT_RUN, (*_IMAGENET, *departures))


_SOURCES = {
    "digits": _digits(0.80, 3),
    "cifar10_small": _cifar10_small("k-NN 0.53, linear 0.61."),
    "cifar10_resnet18": _solo_learn("cifar/barlow", "92.10"),
    "cifar100_resnet18": _solo_learn("cifar/barlow", "70.90"),
    "imagenet100_resnet18": _solo_learn("imagenet-100/barlow", "80.38", common=_CIFAR[2:]),
    "cifar10_resnet18_lightly": Source(
        _LIGHTLY.format("docs/source/getting_started/benchmarks/cifar10_benchmark.py"),
        "84.2 k-NN (k = 200, temperature 0.1), reported by lightly.",
        _NOT_RUN,
        (_BILINEAR, _PER_STEP, _NO_BIAS, _BFLOAT16),
    ),
    "cifar10_resnet18_lightly_512": Source(
        _LIGHTLY.format("docs/source/getting_started/benchmarks/cifar10_benchmark.py"),
        "81.9 k-NN (k = 200, temperature 0.1), and 85.9 with epochs=800, reported by lightly.",
        _NOT_RUN,
        (_BILINEAR, _PER_STEP, _NO_BIAS, _BFLOAT16),
    ),
    "cifar10_resnet50": Source(
        "Barlow-Twins-HSIC, main.py with --corr_zero, https://github.com/yaohungt/Barlow-Twins-HSIC. For "
        '--corr_neg_one, use changed(loss_options={"off_diagonal_target": -1.0}).',
        "At epoch 50: 72.4 k-NN, 78.5 linear.",
        _NOT_RUN,
        (
            _BILINEAR,
            "Embeddings are not divided by their lengths before they are standardized over the batch.",
            "The standard deviation has N, not N - 1, in the denominator.",
            "The weight decay of Adam is decoupled.",
            "Pixels are standardized with the moments of ImageNet, not of CIFAR.",
            _NO_BIAS,
        ),
    ),
    "imagenet_resnet50": Source(
        "Barlow Twins, main.py, https://github.com/facebookresearch/barlowtwins",
        "73.2 linear, reported by the paper.",
        _NOT_RUN,
        (
            "The vector rate is 0.0048 / 16, because gradients of the reference code are 1 / 16 of the true ones.",
            _BFLOAT16,
        ),
    ),
    "imagenet_resnet50_lightly": Source(
        _LIGHTLY.format("benchmarks/imagenet/resnet50/barlowtwins.py"),
        "62.9 linear, 45.6 k-NN, reported by lightly.",
        _NOT_RUN,
        (
            "The vector rate is 0.0048 / 2, because gradients of the reference code are 1 / 2 of the true ones.",
            _BILINEAR,
            _BFLOAT16,
        ),
    ),
    "digits_vicreg": _digits(0.83, 3),
    "digits_simclr": _digits(0.78, 3),
    "digits_byol": _digits(0.64, 5),
    "digits_simsiam": _digits(0.65, 5),
    "digits_moco": _digits(0.67, 4),
    "digits_swav": _digits(0.73, 4),
    "cifar10_small_vicreg": _cifar10_small(),
    "cifar10_small_simclr": _cifar10_small(),
    "cifar10_small_byol": _cifar10_small(),
    "cifar10_small_simsiam": _cifar10_small(),
    "cifar10_small_moco": _cifar10_small(),
    "cifar10_small_swav": _cifar10_small(),
    "cifar10_resnet18_vicreg": _solo_learn("cifar/vicreg", "92.07"),
    "cifar10_resnet18_simclr": _solo_learn("cifar/simclr", "90.74"),
    "cifar10_resnet18_byol": _solo_learn("cifar/byol", "92.58"),
    "cifar10_resnet18_simsiam": _solo_learn("cifar/simsiam", "90.51"),
    "cifar10_resnet18_moco": _solo_learn(
        "cifar/mocov2plus",
        "92.94",
        "The loss is that of MoCo v2: only view A has a gradient. MoCo v2+ adds the loss with the views swapped.",
        "The momentum stays 0.99, and does not rise to 0.999.",
    ),
    "cifar10_resnet18_swav": _solo_learn(
        "cifar/swav",
        "89.17",
        "256 prototypes, as many as a batch can fill, not 3,000 filled from a queue of embeddings.",
    ),
    "imagenet_resnet50_vicreg": _paper("VICReg", "https://arxiv.org/abs/2105.04906", 73.2),
    "imagenet_resnet50_simclr": _paper("SimCLR", "https://arxiv.org/abs/2002.05709", 69.3, _NO_BIAS),
    "imagenet_resnet50_byol": _paper("BYOL", "https://arxiv.org/abs/2006.07733", 74.3, _NO_BIAS),
    "imagenet_resnet50_simsiam": _paper("SimSiam", "https://arxiv.org/abs/2011.10566", 68.1),
    "imagenet_resnet50_moco": _paper("MoCo v2", "https://arxiv.org/abs/2003.04297", 71.1, _SYNCHRONIZED),
    "imagenet_resnet50_swav": _paper("SwAV", "https://arxiv.org/abs/2006.09882", 75.3, _NO_BIAS),
}


def source(name):
    """Returns the source of a recipe.

    Args:
        name: One of `recipes.names()`.

    Returns:
        A `Source`.

    Raises:
        KeyError: If there is no such recipe.

    Example:

    >>> source("cifar10_resnet18").expected
    '92.10 linear (online), reported by solo-learn.'
    """
    return _SOURCES[name]
