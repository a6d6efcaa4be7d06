"""Any picture to upright RGB of one size."""

import contextlib
import io

import numpy as np
from absl import logging
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from keras_barlow.data.names import printable

# Files are recognized by their first bytes and by no others of PIL's plugins, one of which (EPS) runs a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# What other files begin with, so that an error can say what they are.
_OTHER_FORMATS = (
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"version https://git-lfs", "a pointer of Git LFS"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIC or video"),
)
# Of a camera's picture: anything but 1 is turned or mirrored.
_EXIF_ORIENTATION = ExifTags.Base.Orientation.value
# TIFF tags.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS = 256, 257, 258, 262, 277
_WHITE_IS_ZERO = 0


class Decoder:
    """Turns pictures into upright RGB squares: the short side is resized, the centre cut out.

    JPEG, PNG, WebP, BMP, TIFF and GIF files are read, recognized by their content. Gray, palette, CMYK and RGBA images
    become RGB (the alpha channel is dropped), 16 bits become 8, images with an EXIF orientation are turned, and of
    several frames or pages the first is taken; the first image of each kind is logged. Pixels of unknown range (floats,
    32-bit integers) are refused.

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
            content: Bytes of an image file.
            name: What errors call the file.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: If the bytes are no whole image of a known format, or its pixels have no known range.
        """
        with self._opened(io.BytesIO(content), name) as image:
            # JPEG only: libjpeg leaves out the detail that the resize would average away.
            image.draft("RGB", (2 * self.image_size, 2 * self.image_size))
            return self._fitted(self._upright(image, name), name)

    def decode_whole(self, content, name):
        """The picture in the bytes of a file, upright, with all of its pixels.

        Args:
            content: Bytes of an image file.
            name: What errors call the file.

        Returns:
            uint8 array `(height, width, 3)`.

        Raises:
            ValueError: If the bytes are no whole image of a known format, or its pixels have no known range.
        """
        with self._opened(io.BytesIO(content), name) as image:
            return np.asarray(self._rgb(self._upright(image, name), name))

    def header(self, file, name):
        """What the two ends of a file say, without decoding it.

        Args:
            file: Binary file object of an image file.
            name: What errors call the file.

        Returns:
            The tuple `(height, width, orientation, plain)`: the size in pixels before it is turned upright, the EXIF
            orientation from 1 to 8, and whether it is a whole JPEG of 1 or 3 channels, which any decoder reads.

        Raises:
            ValueError: If the bytes are no picture.
        """
        with self._opened(file, name) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            # PIL gives the size of a TIFF as it is after turning, or before, depending on its version.
            tags = getattr(image, "tag_v2", {})
            width, height = (tags.get(tag, side) for tag, side in zip((_WIDTH, _HEIGHT), image.size, strict=True))
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
            with Image.open(file, formats=_FORMATS) as image:
                if getattr(image, "is_animated", False) and image.format in _FORMATS:
                    self._say("of several frames or pages", "read for their first", name)
                yield image
        except UnidentifiedImageError as error:
            raise unreadable(name, _unknown_format(file)) from error
        # PIL raises SyntaxError for a broken PNG, struct.error and others for broken headers.
        except Exception as error:
            raise unreadable(name, error) from error

    def _upright(self, image, name):
        # Before it is turned: the result has forgotten its format and tags.
        bits = _bits(image)
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            self._say("with an EXIF orientation", "turned upright", name)
            image = ImageOps.exif_transpose(image)
        if bits > 8:
            self._say(f"of mode {image.mode}", "scaled to 8 bits", name)
            # PIL would clip at 255 where a viewer scales.
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype("uint8"))
        return image

    def _fitted(self, image, name):
        image = self._rgb(image, name)
        if image.size != (self.image_size, self.image_size):
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _rgb(self, image, name):
        if image.mode != "RGB":
            self._say(f"of mode {image.mode}", "converted to RGB", name)
            # Dropped as alpha is; PIL warns of some kinds of it.
            image.info.pop("transparency", None)
            image = image.convert("RGB")
        return image

    def _say(self, kind, done, name):
        if kind not in self._said:
            self._said.add(kind)
            logging.info("Images %s are %s (the first is %s).", kind, done, printable(name))


def _bits(image):
    """Bits of a channel as PIL reads it, or an error for pixels that cannot become 8 bits of red, green and blue."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_CHANNELS, 1) > 4:
        raise ValueError(f"it has {tags[_CHANNELS]} channels: put such images into an array, for data.ArrayImages")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floats" if image.mode == "F" else "32-bit or signed integers"
        raise ValueError(f"its pixels are {kind}, whose range is unknown: save it with 8 or 16 unsigned bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return 8
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # PIL inverts 8 bits of this kind and leaves 16 as they are.
        raise ValueError("it has 16 bits and is stored as a negative (WhiteIsZero): save it as BlackIsZero")
    return tags.get(_BITS, (16,))[0]


def _unknown_format(file):
    """The error for content that is none of the formats."""
    file.seek(0)
    start = file.read(32).lstrip(b"\xef\xbb\xbf \r\n\t")
    known = (kind for place, mark, kind in _OTHER_FORMATS if start[place:].startswith(mark))
    kind = next(known, None)
    return UnidentifiedImageError(
        f"images must be JPEG, PNG, WebP, BMP, TIFF or GIF; this begins like {kind or 'none of them, or is damaged'}"
    )


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
        f"Every image file must be readable. Received: {printable(name)} ({type(error).__name__}: {error}). "
        "Delete the file, or leave such files out with skip_corrupt=True (--skip_corrupt)."
    )
