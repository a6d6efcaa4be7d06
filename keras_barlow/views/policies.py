"""View policies as data: lists of layers with the numbers of the papers."""

from keras_barlow import augmentations
from keras_barlow.views.layer import Views

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
    """The paper's chain of transforms for one view.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        crop_scale: `(low, high)`: share of the area that a crop keeps.
        flip: Probability of mirroring.
        jitter: Strengths of brightness, contrast, saturation and hue.
        jitter_probability: Probability of colour jitter.
        grayscale: Probability of turning grey.
        blur: Probability of Gaussian blur, sigma 0.1 to 2.0 pixels.
        solarization: Probability of solarisation at 128.
        without: Names of transforms to leave out, of `"crop"`, `"flip"`, `"jitter"`, `"grayscale"`, `"blur"`,
            `"solarization"`. Without the crop the views have the size of the images.

    Returns:
        A list of layers in the order crop, flip, jitter, grayscale, blur, solarisation, without those that
        would never act.

    Raises:
        ValueError: If `without` has a name that is none of these.

    Example:

    >>> [layer.__class__.__name__ for layer in policy(32, blur=1.0, without=("jitter",))]
    ['RandomResizedCrop', 'RandomFlip', 'RandomGrayscale', 'RandomGaussianBlur']
    """
    without = (without,) if isinstance(without, str) else tuple(without)
    unknown = sorted(set(without) - set(TRANSFORMS))
    if unknown:
        raise ValueError(
            f"`without` takes names of transforms: {', '.join(TRANSFORMS)}. Received: {', '.join(map(repr, unknown))}"
        )
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
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
        blur: Probability of Gaussian blur in view A and in view B.
        solarization: Probability of solarisation in view A and in view B.
        seed: See `Views`.
        **shared: Further arguments of `policy`, for both views; `without=("grayscale", "jitter")` is one point of
            the paper's figure 3.

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
    """The paper's views without blur, as they are used for images of 32 pixels.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        seed: See `Views`.
        **shared: Further arguments of `policy`, for both views.

    Returns:
        A `Views` layer.

    Example:

    >>> [len(layers) for layers in (cifar().layers_a, cifar().layers_b)]
    [4, 5]
    """
    return barlow_twins(image_size, blur=(0.0, 0.0), seed=seed, **shared)


def simclr(image_size, strength=1.0, seed=None, **shared):
    """The views of SimCLR, both drawn alike: twice the jitter of Barlow Twins, and blur for one image in two.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        strength: Of the colour jitter; the paper has 1.0 for ImageNet and 0.5, without blur, for CIFAR-10.
        seed: See `Views`.
        **shared: Further arguments of `policy`, for both views.

    Returns:
        A `Views` layer.

    Example:

    >>> simclr(image_size=32, strength=0.5, without="blur").layers_a[2].brightness
    (0.6, 1.4)

    References:
        Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, appendix A.
    """
    jitter = tuple(strength * amount for amount in (0.8, 0.8, 0.8, 0.2))
    settings = {"jitter": jitter, "blur": 0.5, **shared}
    return Views(policy(image_size, **settings), policy(image_size, **settings), seed=seed)


def multi_channel(image_size, blur=(0.5, 0.1), seed=None, **shared):
    """Views of images with any number of channels, such as satellite bands or spectrograms: crop, flip and blur.

    What needs red, green and blue (jitter, grayscale), or a scale that is known to be that of light (solarisation),
    is left out.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        blur: Probability of Gaussian blur in view A and in view B.
        seed: See `Views`.
        **shared: `crop_scale`, `flip` and `without` of `policy`, for both views. A spectrogram reads one way only:
            `flip=0`.

    Returns:
        A `Views` layer.

    Example:

    >>> import numpy as np
    >>> [view.shape[-1] for view in multi_channel(image_size=8, seed=0)(np.zeros((2, 9, 9, 13), "uint8"))]
    [13, 13]
    """
    colour = {"jitter_probability": 0.0, "grayscale": 0.0}
    return barlow_twins(image_size, blur=blur, solarization=(0.0, 0.0), seed=seed, **colour, **shared)
