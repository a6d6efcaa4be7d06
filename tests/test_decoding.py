"""Which files are decoded, by content, and to which values, at every entry point."""

import io
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageSequence

import keras_barlow as kb
from keras_barlow.data.decoding import Decoder

CROP = kb.augmentations.RandomResizedCrop(8, 8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gray(value, dtype, **options):
    """A TIFF of one value with the bits of the dtype."""
    return encoded(Image.fromarray(np.full((9, 9), value, dtype)), "TIFF", **options)


def frames(kind, **options):
    first, *others = (Image.new("RGB", (9, 9), color) for color in ((204, 51, 102), (0, 0, 0), (1, 250, 1)))
    return encoded(first, kind, save_all=True, append_images=others, **options)


def tiff(width, height, bits, photometric, pixels, *more):
    """An uncompressed little-endian TIFF of one strip, with tags that PIL does not write."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (277, 3, 1)]
    tags += [(278, 3, height), (279, 4, len(pixels)), *more]
    tags = sorted([*tags, (273, 4, 8 + 2 + 12 * (len(tags) + 1) + 4)])
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + pixels


RGBA = Image.new("RGBA", (9, 9), (204, 51, 102, 10))
PALETTE = Image.new("RGB", (9, 9), (204, 51, 102)).convert("P")
COLOR, GRAY = (204, 51, 102), (77, 77, 77)
DECODED = {
    "JPEG": (encoded(Image.new("RGB", (9, 9), COLOR), "JPEG", quality=95), COLOR),
    "progressive JPEG": (encoded(Image.new("RGB", (9, 9), COLOR), "JPEG", quality=95, progressive=True), COLOR),
    "JPEG of CMYK": (encoded(Image.new("RGB", (9, 9), COLOR).convert("CMYK"), "JPEG", quality=95), COLOR),
    "MPO of a camera": (frames("MPO", quality=95), COLOR),
    "PNG": (encoded(Image.new("RGB", (9, 9), COLOR), "PNG"), COLOR),
    "PNG of 1 bit": (encoded(Image.new("1", (9, 9), 1), "PNG"), (255, 255, 255)),
    "PNG of 16 bits": (encoded(Image.fromarray(np.full((9, 9), 77 * 257, "uint16")), "PNG"), GRAY),
    "PNG of LA": (encoded(Image.new("LA", (9, 9), (77, 3)), "PNG"), GRAY),
    "PNG of RGBA": (encoded(RGBA, "PNG"), COLOR),
    "PNG of a palette": (encoded(PALETTE, "PNG"), COLOR),
    "PNG with a transparent color": (encoded(PALETTE, "PNG", transparency=0), COLOR),
    "PNG with transparent colors": (encoded(PALETTE, "PNG", transparency=bytes([0, 9, 255])), COLOR),
    "animated PNG": (frames("PNG"), COLOR),
    "WebP": (encoded(Image.new("RGB", (9, 9), COLOR), "WEBP", lossless=True), COLOR),
    "animated WebP": (frames("WEBP", lossless=True), COLOR),
    "BMP": (encoded(Image.new("RGB", (9, 9), COLOR), "BMP"), COLOR),
    "GIF": (encoded(PALETTE, "GIF"), COLOR),
    "animated GIF": (frames("GIF"), COLOR),
    "transparent GIF": (encoded(PALETTE, "GIF", transparency=255), COLOR),
    "TIFF": (encoded(Image.new("RGB", (9, 9), COLOR), "TIFF"), COLOR),
    "TIFF of several pages": (frames("TIFF"), COLOR),
    "TIFF with LZW": (encoded(Image.new("RGB", (9, 9), COLOR), "TIFF", compression="tiff_lzw"), COLOR),
    "TIFF of RGBA": (encoded(RGBA, "TIFF"), COLOR),
    "TIFF of CMYK": (encoded(Image.new("RGB", (9, 9), COLOR).convert("CMYK"), "TIFF"), COLOR),
    "TIFF of 1 bit": (encoded(Image.new("1", (9, 9), 1), "TIFF"), (255, 255, 255)),
    "TIFF of 16 bits": (gray(77 * 257, "uint16"), GRAY),
    "TIFF of 16 bits, big-endian": (gray(77 * 257, ">u2"), GRAY),
    "TIFF of 12 bits": (tiff(2, 2, 12, 1, bytes([0x4D, 0x74, 0xD7] * 2)), GRAY),
    "TIFF of a negative": (tiff(2, 2, 8, 0, bytes([255 - 77] * 4)), GRAY),
}

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
REFUSED = {
    "EPS": (EPS, "like PostScript"),
    "EPS behind a DOS header": (b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS, "PostScript"),
    "PDF": (b"%PDF-1.4\n1 0 obj\n", "like PDF"),
    "PSD": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(400), "like Photoshop"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "like SVG"),
    "SVG behind a header": (b'<?xml version="1.0"?>\n<svg/>', "like XML"),
    "ICO": (encoded(Image.new("RGB", (16, 16), COLOR), "ICO"), "like an icon"),
    "ICNS": (encoded(Image.new("RGB", (16, 16), COLOR), "ICNS"), "none of them"),
    "PPM": (encoded(Image.new("RGB", (9, 9), COLOR), "PPM"), "none of them"),
    "TGA": (encoded(Image.new("RGB", (9, 9), COLOR), "TGA"), "none of them"),
    "JPEG 2000": (encoded(Image.new("RGB", (9, 9), COLOR), "JPEG2000"), "like JPEG 2000"),
    "HTML": (b"<!DOCTYPE html><title>404</title>", "like HTML"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    "nothing": (b"", "none of them"),
    "TIFF of floats": (gray(0.5, "float32"), "pixels are floats.*8 or 16 unsigned bits"),
    "TIFF of int32": (gray(70_000, "int32"), "32-bit or signed integers"),
    "TIFF of int16": (tiff(2, 2, 16, 1, bytes(8), (339, 3, 2)), "32-bit or signed integers"),
    "16-bit negative": (tiff(2, 2, 16, 0, bytes(8)), "WhiteIsZero"),
    "bomb": (encoded(Image.new("1", (20_000, 10_000)), "PNG"), "DecompressionBombError"),
}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype="uint8"))
CUT = {
    "JPEG": encoded(NOISE, "JPEG"),
    "PNG": encoded(NOISE, "PNG"),
    "WEBP": encoded(NOISE, "WEBP"),
    "BMP": encoded(NOISE, "BMP"),
    "GIF": encoded(NOISE.convert("P"), "GIF"),
    "TIFF": encoded(NOISE, "TIFF"),
    "TIFF with LZW": encoded(NOISE, "TIFF", compression="tiff_lzw"),
}


def by_decode(folder):
    return [Decoder(8).decode(file.read_bytes(), file.name) for file in sorted(folder.iterdir())]


def by_decode_whole(folder):
    return [Decoder(8).decode_whole(file.read_bytes(), file.name) for file in sorted(folder.iterdir())]


def by_folder(folder):
    images = kb.data.load(folder, 8, memory_limit=0)[0]
    return images.read(range(len(images)))


def by_memory(folder):
    return kb.data.load(folder, 8)[0].array


def by_every_image(folder):
    images = kb.data.every_image(folder, 8)
    return images.read(range(len(images)))


def by_archive(folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return by_folder(folder.with_suffix(".zip"))


def by_crop_pairs(folder):
    images = kb.data.every_image(folder, 8)
    ((crops, _),) = next(iter(images.crop_pairs(len(images), CROP).epoch(0)))
    # In another order, identified by their color.
    return crops.numpy()


ENTRANCES = [by_decode, by_decode_whole, by_folder, by_memory, by_every_image, by_archive, by_crop_pairs]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_documented_format_is_read_by_its_content(tmp_path, entrance):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for kind, (content, _) in DECODED.items():
        (folder / f"{kind}.jpg").write_bytes(content)
    images = entrance(folder)
    kinds = sorted(DECODED, key=lambda kind: f"{kind}.jpg")
    expected = [DECODED[kind][1] for kind in kinds]
    if entrance is by_crop_pairs:
        images, expected = (sorted(rows, key=lambda row: tuple(np.ravel(row)[:3])) for rows in (images, expected))
    assert len(images) == len(DECODED)
    for kind, image, color in zip(kinds, images, expected, strict=True):
        assert image.dtype == np.uint8 and image.ndim == 3, kind
        assert np.abs(image.astype(int) - color).max() <= 4, (kind, image[4, 4])


@pytest.mark.parametrize(
    "entrance, kind",
    [(by_decode, kind) for kind in REFUSED]
    + [(way, kind) for way in (by_folder, by_archive, by_crop_pairs) for kind in ("EPS", "TIFF of floats", "nothing")],
)
def test_other_files_are_rejected_by_name_and_start_no_program(tmp_path, entrance, kind, monkeypatch):
    def no_program(*args, **_):
        raise AssertionError(f"{args} was started")

    monkeypatch.setattr(subprocess, "Popen", no_program)
    monkeypatch.setattr(subprocess, "check_call", no_program)
    content, message = REFUSED[kind]
    refused(entrance, tmp_path, content, rf"must be readable.*holiday\.jpg.*{message}")


@pytest.mark.parametrize("entrance", [by_decode, by_folder])
@pytest.mark.parametrize("kind", CUT)
def test_truncated_files_are_rejected_by_name(tmp_path, entrance, kind):
    for share in (0.01, 0.3, 0.6, 0.9):
        content = CUT[kind][: int(share * len(CUT[kind]))]
        refused(entrance, tmp_path, content, r"must be readable.*holiday\.jpg")


def refused(entrance, tmp_path, content, message):
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    for name in ("holiday.jpg", "other.jpg"):
        (folder / name).write_bytes(content if name == "holiday.jpg" else DECODED["PNG"][0])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        entrance(folder)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_crops_of_rotated_tiff_files_are_upright(tmp_path, orientation):
    picture = Image.fromarray(np.arange(60 * 90 * 3, dtype="uint32").reshape(60, 90, 3).astype("uint8"))
    content = encoded(picture, "TIFF", tiffinfo={274: orientation})
    whole = Image.fromarray(Decoder(8).decode_whole(content, "x"))
    assert whole.size == ((90, 60) if orientation < 5 else (60, 90))
    height, width, seen, plain = Decoder(8).header(io.BytesIO(content), "x")
    assert ((width, height) if seen < 5 else (height, width)) == whole.size and not plain


def test_files_of_several_pages_are_logged(caplog):
    decoder = Decoder(8)
    with caplog.at_level("INFO", "absl"):
        for kind in ("animated GIF", "animated WebP", "animated PNG", "TIFF of several pages"):
            decoder.decode(DECODED[kind][0], kind)
    assert len([record for record in caplog.records if "several frames or pages" in record.getMessage()]) == 1
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(DECODED["animated GIF"][0]))))) == 3


@pytest.mark.parametrize("entrance", [by_folder, by_archive, by_crop_pairs])
def test_a_file_that_would_fill_the_memory_is_rejected(tmp_path, monkeypatch, entrance):
    monkeypatch.setattr("keras_barlow.data.files._LARGEST_FILE", 1000)
    refused(entrance, tmp_path, CUT["BMP"], r"holiday.*\.jpg.*GiB")
