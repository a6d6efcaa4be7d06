"""View policies: lists of transforms with the settings of the papers."""

import numbers
import operator

from keras_barlow import augmentations
from keras_barlow.views.layer import Views

# Policies that share the arguments `image_size` and `seed`, and those of `policy`.
POLICIES = ("barlow_twins", "cifar", "multi_channel", "multi_crop", "simclr")
TRANSFORMS = ("crop", "flip", "jitter", "grayscale", "blur", "solarization")
# The policy of Barlow Twins (appendix A of the paper). Blur and solarization have one probability for each view.
CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
FLIP = 0.5
# Brightness, contrast, saturation and hue.
JITTER = (0.4, 0.4, 0.2, 0.1)
JITTER_PROBABILITY = 0.8
GRAYSCALE = 0.2
BLUR = (1.0, 0.1)
BLUR_SIGMA = (0.1, 2.0)
SOLARIZATION = (0.0, 0.2)
SOLARIZATION_THRESHOLD = 128
# SimCLR's color distortion at strength 1.
SIMCLR_JITTER = (0.8, 0.8, 0.8, 0.2)


def policy(
    image_size,
    crop_scale=CROP_SCALE,
    flip=FLIP,
    jitter=JITTER,
    jitter_probability=JITTER_PROBABILITY,
    grayscale=GRAYSCALE,
    blur=0.0,
    solarization=0.0,
    without=(),
):
    """The transforms of one view, as in the paper.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        crop_scale: `(low, high)`, range of the fraction of the image's area that a crop keeps.
        flip: Probability of a horizontal flip.
        jitter: Tuple with the strengths of brightness, contrast, saturation and hue.
        jitter_probability: Probability of color jitter.
        grayscale: Probability of conversion to grayscale.
        blur: Probability of Gaussian blur, with sigma from 0.1 to 2.0 pixels.
        solarization: Probability of solarization at the threshold 128.
        without: Name or names of transforms to omit: `"crop"`, `"flip"`, `"jitter"`, `"grayscale"`, `"blur"`,
            `"solarization"`. Without the crop, views have the size of the images.

    Returns:
        A list of layers in the order crop, flip, jitter, grayscale, blur, solarization. Transforms with probability 0
        are omitted.

    Raises:
        ValueError: If `without` contains an unknown name, or a size is not a positive integer.

    Example:

    >>> [layer.__class__.__name__ for layer in policy(32, blur=1.0, without=("jitter",))]
    ['RandomResizedCrop', 'RandomFlip', 'RandomGrayscale', 'RandomGaussianBlur']
    """
    without = _names(without)
    unknown = sorted(set(without) - set(TRANSFORMS))
    if unknown:
        raise ValueError(
            f"`without` takes names of transforms: {', '.join(TRANSFORMS)}. "
            f"Received: {', '.join(map(repr, unknown))}. Use names from this list."
        )
    height, width = _sides(image_size)
    layers = {
        "crop": augmentations.RandomResizedCrop(height, width, scale=crop_scale, ratio=CROP_RATIO),
        "flip": augmentations.RandomFlip(flip),
        "jitter": augmentations.RandomColorJitter(*jitter, probability=jitter_probability),
        "grayscale": augmentations.RandomGrayscale(grayscale),
        "blur": augmentations.RandomGaussianBlur(BLUR_SIGMA, probability=blur),
        "solarization": augmentations.RandomSolarization(SOLARIZATION_THRESHOLD, probability=solarization),
    }
    return [layer for name, layer in layers.items() if layer.probability > 0 and name not in without]


def barlow_twins(image_size, blur=BLUR, solarization=SOLARIZATION, seed=None, **shared):
    """The two asymmetric views of the paper.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        blur: Pair of probabilities of Gaussian blur, for view A and view B.
        solarization: Pair of probabilities of solarization, for view A and view B.
        seed: Integer seed of the random numbers, or None for a random one.
        **shared: Further arguments of `policy`, for both views. For example, `without=("grayscale", "jitter")` is one
            point of the paper's figure 3.

    Returns:
        A `Views` layer.

    Example:

    >>> views = barlow_twins(image_size=32, crop_scale=(0.3, 1.0), seed=0)
    >>> len(views.layers_a), len(views.layers_b)
    (5, 6)

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, section 3.1 and appendix A.
    """
    return Views(
        policy(image_size, blur=blur[0], solarization=solarization[0], **shared),
        policy(image_size, blur=blur[1], solarization=solarization[1], **shared),
        seed=seed,
    )


def cifar(image_size=32, seed=None, **shared):
    """The paper's views without blur, as is usual for images of 32 pixels.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        seed: Integer seed of the random numbers, or None for a random one.
        **shared: Further arguments of `policy`, for both views.

    Returns:
        A `Views` layer.

    Example:

    >>> [len(layers) for layers in (cifar().layers_a, cifar().layers_b)]
    [4, 5]
    """
    return barlow_twins(image_size, seed=seed, **{"blur": (0.0, 0.0), **shared})


def simclr(image_size, strength=1.0, seed=None, **shared):
    """The two symmetric views of SimCLR, with twice the jitter of Barlow Twins and blur with probability 0.5.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        strength: Strength of the color jitter. The paper uses 1.0 for ImageNet, and 0.5 without blur for CIFAR-10.
        seed: Integer seed of the random numbers, or None for a random one.
        **shared: Further arguments of `policy`, for both views.

    Returns:
        A `Views` layer.

    Example:

    >>> simclr(image_size=32, strength=0.5, without="blur").layers_a[2].brightness
    (0.6, 1.4)

    References:
        Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, appendix A.
    """
    jitter = tuple(strength * amount for amount in SIMCLR_JITTER)
    settings = {"jitter": jitter, "blur": 0.5, **shared}
    return Views(policy(image_size, **settings), policy(image_size, **settings), seed=seed)


def multi_crop(
    image_size,
    small_sizes=(96,) * 6,
    crop_scale=(0.14, 1.0),
    small_scale=(0.05, 0.14),
    blur=0.5,
    solarization=0.0,
    jitter=SIMCLR_JITTER,
    seed=None,
    **shared,
):
    """The views of SwAV: two large crops, and small crops that add comparisons at little cost.

    The encoder must take images of any size: build it with `input_shape=(None, None, 3)`.

    Args:
        image_size: Side of the two large views in pixels, or `(height, width)`.
        small_sizes: Side of each small view in pixels, or `(height, width)`, one entry per view. `()` leaves two views.
        crop_scale: `(low, high)`, range of the fraction of the image's area that a large crop keeps.
        small_scale: `(low, high)`, range of the fraction of the image's area that a small crop keeps.
        blur: Probability of Gaussian blur.
        solarization: Probability of solarization.
        jitter: Tuple with the strengths of brightness, contrast, saturation and hue.
        seed: Integer seed of the random numbers, or None for a random one.
        **shared: Further arguments of `policy`, for all views.

    Returns:
        A `Views` layer. The large views come first.

    Raises:
        ValueError: If a size is not a positive integer or a pair of them, or small views leave out the crop.

    Example:

    >>> multi_crop(image_size=224, small_sizes=(96,) * 6).count
    8

    References:
        Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
        https://arxiv.org/abs/2006.09882
    """
    if not isinstance(small_sizes, (tuple, list)):
        raise ValueError(
            "`small_sizes` must be a tuple or list of sizes, one per small view. "
            f"Received: small_sizes={small_sizes!r}. Use small_sizes=(96,) * 6 for six views of 96 pixels."
        )
    if small_sizes and "crop" in _names(shared.get("without", ())):
        raise ValueError(
            "Small views need the crop: without it, all views have the size of the images. "
            f"Received: without={shared['without']!r} with {len(small_sizes)} small views. Keep the crop, or use "
            "small_sizes=()."
        )
    settings = {"blur": blur, "solarization": solarization, "jitter": jitter, **shared}
    large_a, large_b = (policy(image_size, crop_scale, **settings) for _ in range(2))
    small = [policy(size, small_scale, **settings) for size in small_sizes]
    return Views(large_a, large_b, seed=seed, further=small)


def multi_channel(image_size, blur=(0.5, 0.1), seed=None, **shared):
    """Views of images with any number of channels, such as satellite bands or spectrograms: crop, flip and blur.

    Omits the transforms that need RGB (jitter, grayscale) or a scale of light intensities (solarization).

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        blur: Pair of probabilities of Gaussian blur, for view A and view B.
        seed: Integer seed of the random numbers, or None for a random one.
        **shared: Arguments `crop_scale`, `flip` and `without` of `policy`, for both views. Use `flip=0` for
            spectrograms, whose time axis must not be reversed.

    Returns:
        A `Views` layer.

    Example:

    >>> import numpy as np
    >>> [view.shape[-1] for view in multi_channel(image_size=8, seed=0)(np.zeros((2, 9, 9, 13), "uint8"))]
    [13, 13]
    """
    without_color = {"jitter_probability": 0.0, "grayscale": 0.0, "solarization": (0.0, 0.0)}
    return barlow_twins(image_size, blur=blur, seed=seed, **{**without_color, **shared})


def _names(without):
    return (without,) if isinstance(without, str) else tuple(without)


def _sides(size):
    """Height and width of views in pixels."""
    try:
        height, width = map(operator.index, (size, size) if isinstance(size, numbers.Integral) else size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            "The size of a view must be a positive integer, or a pair (height, width) of them. "
            f"Received: {size!r}. Use a number of pixels, such as 224."
        )
    return height, width
