"""The paper's policy out of keras-cv's own layers, as near as they come to it."""

from keras_barlow.views.layer import Views

# keras-cv multiplies saturation by f / (1 - f), so that 0.5 changes nothing (0.2 would leave next to no colour), and
# turns hue by half of its factor.
_SATURATION = (0.8 / 1.8, 1.2 / 2.2)
_HUE = 0.2


def keras_cv_barlow_twins(image_size):
    """The two views of the paper, drawn by keras-cv.

    For comparison, and for those who have keras-cv in their pipeline already. Where it departs from the paper, and from
    `barlow_twins`:

    | transform | keras-cv | the paper |
    |---|---|---|
    | crop | bilinear, without antialiasing; boxes of any fraction of a pixel | bicubic, antialiased, whole pixels |
    | brightness | adds up to 0.4 of the scale | multiplies by 0.6 to 1.4 |
    | contrast | around the mean of each channel | around the mean luma |
    | saturation | in HSV | towards luma |
    | order of the jitter | brightness, contrast, saturation, hue | random for each image |
    | blur | an odd number of taps that does not follow sigma: 13 | as wide as sigma asks |
    | draws | from its own generators: every replica and every device its own | one table, the same on any |

    It does not compile with XLA (`supports_jit=False`: its crop needs an operation that XLA has not), and is slower
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

    def policy(blur, solarization):
        return [
            cv.RandomCropAndResize(size, crop_area_factor=(0.08, 1.0), aspect_ratio_factor=(3 / 4, 4 / 3)),
            cv.RandomFlip("horizontal"),
            cv.RandomApply(cv.RandomColorJitter((0, 255), 0.4, 0.4, _SATURATION, _HUE), rate=0.8),
            cv.RandomApply(cv.Grayscale(output_channels=3), rate=0.2),
            cv.RandomApply(cv.RandomGaussianBlur(kernel_size=13, factor=(0.1, 2.0)), rate=blur),
            cv.RandomApply(cv.Solarization((0, 255), threshold_factor=(128, 128)), rate=solarization),
        ]

    return Views(policy(blur=1.0, solarization=0.0), policy(blur=0.1, solarization=0.2))
