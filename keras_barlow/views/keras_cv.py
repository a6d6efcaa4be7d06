"""The closest approximation of the paper's policy with keras-cv's own layers."""

from keras_barlow.views import policies
from keras_barlow.views.layer import Views

# keras-cv multiplies saturation by f / (1 - f), so 0.5 is the identity (0.2 would remove most of the color), and shifts
# hue by half of its factor.
_BRIGHTNESS, _CONTRAST = policies.JITTER[:2]
_SATURATION = tuple(factor / (1 + factor) for factor in (1 - policies.JITTER[2], 1 + policies.JITTER[2]))
_HUE = 2 * policies.JITTER[3]


def keras_cv_barlow_twins(image_size):
    """The two views of the paper, drawn by keras-cv.

    For comparison, and for pipelines that already use keras-cv. It differs from the paper, and from `barlow_twins`:

    | transform | keras-cv | the paper |
    |---|---|---|
    | crop | bilinear, without antialiasing; fractional boxes | bicubic, with antialiasing; boxes of whole pixels |
    | brightness | adds up to 0.4 of the scale | multiplies by 0.6 to 1.4 |
    | contrast | around the mean of each channel | around the mean luma |
    | saturation | in HSV | relative to luma |
    | order of the jitter | brightness, contrast, saturation, hue | random for each image |
    | blur | 13 taps for every sigma | as many taps as sigma needs |
    | random numbers | from its own generators, which differ between devices | from one table for all devices |

    It cannot be compiled with XLA, which lacks an operation of keras-cv's crop (`supports_jit=False`), and is slower
    (`benchmarks/views.py`).

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.

    Returns:
        A `Views` layer.

    Raises:
        ImportError: If keras-cv is not installed.

    Example:

    >>> import numpy as np
    >>> views = keras_cv_barlow_twins(image_size=16)
    >>> [view.shape for view in views(np.zeros((2, 20, 20, 3), "uint8"))]
    [TensorShape([2, 16, 16, 3]), TensorShape([2, 16, 16, 3])]
    """
    from keras_cv import layers as cv

    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)

    threshold = (policies.SOLARIZATION_THRESHOLD, policies.SOLARIZATION_THRESHOLD)

    def layers(blur, solarization):
        jitter = cv.RandomColorJitter((0, 255), _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE)
        return [
            cv.RandomCropAndResize(size, crop_area_factor=policies.CROP_SCALE, aspect_ratio_factor=policies.CROP_RATIO),
            cv.RandomFlip("horizontal"),
            cv.RandomApply(jitter, rate=policies.JITTER_PROBABILITY),
            cv.RandomApply(cv.Grayscale(output_channels=3), rate=policies.GRAYSCALE),
            cv.RandomApply(cv.RandomGaussianBlur(kernel_size=13, factor=policies.BLUR_SIGMA), rate=blur),
            cv.RandomApply(cv.Solarization((0, 255), threshold_factor=threshold), rate=solarization),
        ]

    return Views(*map(layers, policies.BLUR, policies.SOLARIZATION))
