"""Central crops for evaluation: the size at which to load images, and the crop itself."""


def inference_size(size):
    """The side to which an image is resized before its center of `size` pixels is cropped.

    Args:
        size: Side of the encoder's input, in pixels.

    Returns:
        256 for 224, the usual protocol on ImageNet, and in proportion for other sizes; `size` itself up to 64 pixels.

    Example:

    >>> inference_size(224), inference_size(32)
    (256, 32)
    """
    return round(size * 8 / 7) if size > 64 else size


def center_cropped(batches, image_shape, crop):
    """Crops the center of every image of a dataset.

    Args:
        batches: `tf.data.Dataset` of tensors `(batch, height, width, channels)`.
        image_shape: Tuple `(height, width, channels)`.
        crop: Side of the crop, in pixels; None keeps the whole image.

    Returns:
        A `tf.data.Dataset` of tensors `(batch, crop, crop, channels)`.

    Raises:
        ValueError: If the crop is larger than the images.
    """
    height, width, _ = image_shape
    if crop is None or crop == height == width:
        return batches
    if not 1 <= crop <= min(height, width):
        raise ValueError(
            f"The crop must be from 1 to {min(height, width)} pixels, as the images are {height} x {width}. "
            f"Received: crop={crop}. Load them larger, with data.load(..., image_size={crop})."
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    return batches.map(lambda images: images[:, top : top + crop, left : left + crop])
