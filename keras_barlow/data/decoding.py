"""Any picture to upright RGB of one size."""

import contextlib
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
        """The picture in the bytes of a file, as a square.

        Args:
            content: Bytes of a JPEG, PNG, WebP or BMP file.
            name: What errors call the file.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: If the bytes are no whole picture.
        """
        with self._opened(io.BytesIO(content), name) as image:
            # JPEG only: libjpeg leaves out the detail that the resize would average away.
            image.draft("RGB", (2 * self.image_size, 2 * self.image_size))
            return self._fitted(self._upright(image, name), name)

    def decode_whole(self, content, name):
        """The picture in the bytes of a file, upright, with all of its pixels.

        Args:
            content: Bytes of a JPEG, PNG, WebP or BMP file.
            name: What errors call the file.

        Returns:
            uint8 array `(height, width, 3)`.

        Raises:
            ValueError: If the bytes are no whole picture.
        """
        with self._opened(io.BytesIO(content), name) as image:
            return np.asarray(self._rgb(self._upright(image, name), name))

    def header(self, file, name):
        """What the two ends of a file say, without decoding it.

        Args:
            file: Binary file object of a JPEG, PNG, WebP or BMP file.
            name: What errors call the file.

        Returns:
            The tuple `(height, width, orientation, plain)`: the size in pixels before it is turned upright, the EXIF
            orientation from 1 to 8, and whether it is a whole JPEG of 1 or 3 channels, which any decoder reads.

        Raises:
            ValueError: If the bytes are no picture.
        """
        with self._opened(file, name) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            width, height = image.size
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and _has_end(file)
            return height, width, orientation if orientation in range(1, 9) else 1, plain

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

    @contextlib.contextmanager
    def _opened(self, file, name):
        try:
            with Image.open(file) as image:
                yield image
        # PIL raises SyntaxError for a broken PNG, struct.error and others for broken headers.
        except Exception as error:
            raise unreadable(name, error) from error

    def _upright(self, image, name):
        if image.getexif().get(_EXIF_ORIENTATION, 1) == 1:
            return image
        self._say("with an EXIF orientation", "turned upright", name)
        return ImageOps.exif_transpose(image)

    def _fitted(self, image, name):
        image = self._rgb(image, name)
        if image.size != (self.image_size, self.image_size):
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _rgb(self, image, name):
        if image.mode != "RGB":
            self._say(f"of mode {image.mode}", "converted to RGB", name)
            if image.mode.startswith("I;16"):
                # Sixteen bits: PIL would clip at 255 where a viewer scales.
                image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
            image = image.convert("RGB")
        return image

    def _say(self, kind, done, name):
        if kind not in self._said:
            self._said.add(kind)
            logging.info("Images %s are %s (the first is %s).", kind, done, name)


def _has_end(file):
    """Whether a JPEG ends as it should. Of one that was cut off, PIL says so where others give grey pixels."""
    file.seek(0, io.SEEK_END)
    file.seek(max(0, file.tell() - 64))
    return file.read().rstrip(b"\0").endswith(b"\xff\xd9")


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
