"""Decodes any supported image to upright RGB."""

import contextlib
import io

import numpy as np
from absl import logging
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from keras_barlow.data.names import printable

# The formats that PIL may try, by their first bytes. Its other plugins are disabled: one of them (EPS) runs a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Offset, signature and name of unsupported formats, for the error message.
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
    (0, b"version https://git-lfs", "a Git LFS pointer"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIC or video"),
)
# Any value but 1 means that the stored image is rotated or mirrored.
_EXIF_ORIENTATION = ExifTags.Base.Orientation.value
# TIFF tags.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS = 256, 257, 258, 262, 277
_WHITE_IS_ZERO = 0


class Decoder:
    """Decodes images to upright RGB squares: resizes the shorter side and crops the center.

    Reads JPEG, PNG, WebP, BMP, TIFF and GIF, recognized by content. Converts grayscale, palette, CMYK and RGBA images
    to RGB (dropping the alpha channel) and 16 bits to 8, applies the EXIF orientation, and takes the first of several
    frames or pages. The first image of each kind of conversion is logged. Pixels of unknown range (floats, 32-bit
    integers) are rejected.

    Args:
        image_size: Side of the result, in pixels.

    Example:

    >>> Decoder(4).fit(np.zeros((6, 5, 1), "uint8"), name="gray.png").shape
    (4, 4, 3)
    """

    def __init__(self, image_size):
        self.image_size = image_size
        self._logged = set()

    def decode(self, content, name):
        """Decodes a file to a square.

        Args:
            content: Contents of an image file, as bytes.
            name: Name of the file, for error messages.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: If the file is damaged, its format is not supported, or the range of its pixels is unknown.
        """
        with self._opened(io.BytesIO(content), name) as image:
            # For JPEG only: libjpeg skips detail that the resize would discard.
            image.draft("RGB", (2 * self.image_size, 2 * self.image_size))
            return self._fitted(self._upright(image, name), name)

    def decode_whole(self, content, name):
        """Decodes a file at its full size.

        Args:
            content: Contents of an image file, as bytes.
            name: Name of the file, for error messages.

        Returns:
            uint8 array `(height, width, 3)`.

        Raises:
            ValueError: If the file is damaged, its format is not supported, or the range of its pixels is unknown.
        """
        with self._opened(io.BytesIO(content), name) as image:
            return np.asarray(self._rgb(self._upright(image, name), name))

    def header(self, file, name):
        """Reads the size and orientation of an image without decoding it.

        Args:
            file: Binary file object of an image file.
            name: Name of the file, for error messages.

        Returns:
            The tuple `(height, width, orientation, plain)`: the stored size in pixels, before the orientation is
            applied; the EXIF orientation from 1 to 8; and whether the file is a complete JPEG of 1 or 3 channels,
            which any decoder can read.

        Raises:
            ValueError: If the file is not a supported image.
        """
        with self._opened(file, name) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            # PIL reports the size of a TIFF before or after the rotation, depending on its version.
            tags = getattr(image, "tag_v2", {})
            width, height = (tags.get(tag, side) for tag, side in zip((_WIDTH, _HEIGHT), image.size, strict=True))
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and _has_end(file)
            return height, width, orientation if orientation in range(1, 9) else 1, plain

    def fit(self, array, name):
        """Converts an array to an RGB square.

        Args:
            array: uint8 array `(height, width)` or `(height, width, channels)` with 1, 3 or 4 channels.
            name: Name of the image, for error messages.

        Returns:
            uint8 array `(image_size, image_size, 3)`.

        Raises:
            ValueError: If the dtype or the shape of the array is not supported.
        """
        array = np.asarray(array)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
            raise ValueError(
                "Images must be uint8 arrays (height, width, channels) with 1, 3 or 4 channels. "
                f"Received: {name} of dtype {array.dtype} and shape {array.shape}. Convert it first."
            )
        if array.shape == (self.image_size, self.image_size, 3):
            return array
        return self._fitted(Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array), name)

    @contextlib.contextmanager
    def _opened(self, file, name):
        try:
            with Image.open(file, formats=_FORMATS) as image:
                if getattr(image, "is_animated", False) and image.format in _FORMATS:
                    self._log_once("with several frames or pages", "reduced to the first", name)
                yield image
        except UnidentifiedImageError as error:
            raise unreadable(name, _unknown_format(file)) from error
        # PIL raises SyntaxError for a broken PNG, struct.error and others for broken headers.
        except Exception as error:
            raise unreadable(name, error) from error

    def _upright(self, image, name):
        # Before the rotation, whose result has no format and no tags.
        bits = _bits(image)
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            self._log_once("with an EXIF orientation", "rotated upright", name)
            image = ImageOps.exif_transpose(image)
        if bits > 8:
            self._log_once(f"of mode {image.mode}", "scaled to 8 bits", name)
            # PIL would clip at 255 instead of scaling.
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype("uint8"))
        return image

    def _fitted(self, image, name):
        image = self._rgb(image, name)
        if image.size != (self.image_size, self.image_size):
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def _rgb(self, image, name):
        if image.mode != "RGB":
            self._log_once(f"of mode {image.mode}", "converted to RGB", name)
            # Transparency is dropped like an alpha channel; PIL warns about some kinds.
            image.info.pop("transparency", None)
            image = image.convert("RGB")
        return image

    def _log_once(self, kind, change, name):
        if kind not in self._logged:
            self._logged.add(kind)
            logging.info("Images %s are %s (first: %s).", kind, change, printable(name))


def _bits(image):
    """Bits per channel as PIL reads it; raises ValueError for pixels that cannot be converted to 8-bit RGB."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_CHANNELS, 1) > 4:
        raise ValueError(f"it has {tags[_CHANNELS]} channels: load such images into an array and use data.ArrayImages")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floats" if image.mode == "F" else "32-bit or signed integers"
        raise ValueError(f"its pixels are {kind} of unknown range: save it with 8 or 16 unsigned bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return 8
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # PIL inverts such images of 8 bits, but not of 16.
        raise ValueError("it has 16 bits and is stored as a negative (WhiteIsZero): save it as BlackIsZero")
    return tags.get(_BITS, (16,))[0]


def _unknown_format(file):
    """The error for a file of an unsupported format."""
    file.seek(0)
    start = file.read(32).lstrip(b"\xef\xbb\xbf \r\n\t")
    matches = (kind for offset, signature, kind in _OTHER_FORMATS if start[offset:].startswith(signature))
    kind = next(matches, None)
    problem = f"this file looks like {kind}" if kind else "this file is none of them, or damaged"
    return UnidentifiedImageError(f"images must be JPEG, PNG, WebP, BMP, TIFF or GIF; {problem}")


def _has_end(file):
    """Whether a JPEG has its end marker. Truncated files go to PIL, which raises; other decoders fill in gray."""
    file.seek(0, io.SEEK_END)
    file.seek(max(0, file.tell() - 64))
    return file.read().rstrip(b"\0").endswith(b"\xff\xd9")


def unreadable(name, error):
    """Makes the error for a file that cannot be read as an image.

    Args:
        name: Name of the file.
        error: Exception that was raised while reading it.

    Returns:
        A `ValueError`.
    """
    return ValueError(
        f"Every image file must be readable. Received: {printable(name)} ({type(error).__name__}: {error}). "
        "Delete the file, or skip unreadable files with skip_corrupt=True (--skip_corrupt)."
    )
