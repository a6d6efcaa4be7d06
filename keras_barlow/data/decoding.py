"""Any picture to upright RGB of one size."""

import io

import numpy as np
from absl import logging
from PIL import Image, ImageOps

# Orientation of a camera's picture: anything but 1 is turned or mirrored.
_EXIF_ORIENTATION = 0x0112


class Decoder:
    """Turns pictures into upright RGB squares: the short side is resized, the centre cut out.

    Grey, palette and RGBA pictures become RGB (the alpha channel is dropped), and pictures with an EXIF orientation
    are turned; the first of each kind is logged.

    Args:
        image_size: Side of the result, in pixels.

    Example:

    >>> Decoder(4).fit(np.zeros((6, 5, 1), "uint8"), name="grey.png").shape
    (4, 4, 3)
    """

    def __init__(self, image_size):
        self.image_size = image_size
        self._said = set()

    def decode(self, content, name):
        """The picture in the bytes of a file.

        Args:
            content: Bytes of a JPEG, PNG, WebP or BMP file.
            name: What errors call the file.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: If the bytes are no whole picture.
        """
        try:
            with Image.open(io.BytesIO(content)) as image:
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
                # JPEG only: libjpeg leaves out the detail that the resize would average away.
                image.draft("RGB", (2 * self.image_size, 2 * self.image_size))
                if orientation != 1:
                    self._say("with an EXIF orientation", "turned upright", name)
                    image = ImageOps.exif_transpose(image)
                return self._fitted(image, name)
        # PIL raises SyntaxError for a broken PNG, struct.error and others for broken headers.
        except Exception as error:
            raise unreadable(name, error) from error

    def fit(self, array, name):
        """The same for an array.

        Args:
            array: uint8 array `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels.
            name: What errors call the picture.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: For another type or shape.
        """
        array = np.asarray(array)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
            raise ValueError(
                "Images must be uint8 arrays (height, width, channels) with 1, 3 or 4 channels. "
                f"Received: {name} of dtype {array.dtype} and shape {array.shape}."
            )
        if array.shape == (self.image_size, self.image_size, 3):
            return array
        return self._fitted(Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array), name)

    def _fitted(self, image, name):
        if image.mode != "RGB":
            self._say(f"of mode {image.mode}", "converted to RGB", name)
            if image.mode.startswith("I;16"):
                # Sixteen bits: PIL would clip at 255 where a viewer scales.
                image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
            image = image.convert("RGB")
        if image.size != (self.image_size, self.image_size):
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _say(self, kind, done, name):
        if kind not in self._said:
            self._said.add(kind)
            logging.info("Images %s are %s (the first is %s).", kind, done, name)


def unreadable(name, error):
    """The error for a file that is no whole picture.

    Args:
        name: Of the file.
        error: What reading it raised.

    Returns:
        A `ValueError`.
    """
    return ValueError(
        f"Every image file must be readable. Received: {name} ({type(error).__name__}: {error}). "
        "Delete the file, or leave such files out with skip_corrupt=True (--skip_corrupt)."
    )
