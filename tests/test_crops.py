"""Two crops of each image, decoded once, against PIL: values, boxes, every kind of file."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_barlow as kb
from keras_barlow.data import crops
from keras_barlow.data.decoding import Decoder
from tests import shared

CROP = kb.augmentations.RandomResizedCrop(24, 24)
WHOLE = kb.augmentations.RandomResizedCrop(24, 24, scale=(1.0, 1.0), ratio=(0.01, 100.0))


def photo(width=90, height=60, seed=0):
    """A smooth image whose corners differ."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype="uint8")
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def written(folder, **files):
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def images_in(folder, **arguments):
    return kb.data.load(folder, image_size=24, memory_limit=0, labels=False, **arguments)[0]


def pairs_of(folder, crop=WHOLE, batch_size=2, seed=0):
    return next(iter(images_in(folder).crop_pairs(batch_size, crop, seed=seed).epoch(0)))[0]


@pytest.mark.parametrize("box", [(0, 0, 60, 90), (3, 5, 20, 31), (10, 0, 30, 7), (5, 2, 50, 80)])
@pytest.mark.parametrize("size", [(24, 28), (64, 48)])
def test_resize_against_pil(box, size):
    top, left, height, width = box
    part = np.asarray(photo())[top : top + height, left : left + width]
    expected = np.asarray(Image.fromarray(part).resize(size[::-1], Image.Resampling.BICUBIC), "float64")
    assert np.abs(crops.resized(part, height, width, *size).numpy() - expected).mean() < 0.5


@pytest.mark.parametrize(
    "kind, mode",
    [
        ("JPEG", "RGB"),
        ("PNG", "RGB"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("JPEG", "L"),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "CMYK"),
        ("PNG", "1"),
    ],
)
def test_every_kind_of_file_against_pil(tmp_path, kind, mode):
    content = encoded(photo().convert(mode), kind)
    folder = written(tmp_path, a__png=content, b__png=content)
    whole = Image.open(io.BytesIO(content)).convert("RGB").resize((24, 24), Image.Resampling.BICUBIC)
    for view in pairs_of(folder):
        assert view.dtype == tf.uint8 and view.shape == (2, 24, 24, 3)
        for crop in view.numpy():
            assert np.abs(crop.astype("float64") - np.asarray(whole)).mean() < 1


@pytest.mark.parametrize("orientation, kind", [*((number, "JPEG") for number in range(1, 9)), (6, "PNG")])
def test_every_exif_orientation_is_upright(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(), kind, exif=exif)
    expected = np.asarray(Decoder(1).decode_whole(content, "x"))
    assert expected.shape == ((60, 90, 3) if orientation < 5 else (90, 60, 3))
    expected = Image.fromarray(expected).resize((24, 24), Image.Resampling.BICUBIC)
    view_a, _ = pairs_of(written(tmp_path, a__jpg=content, b__jpg=content))
    assert np.abs(view_a[0].numpy().astype("float64") - np.asarray(expected)).mean() < 1


def test_large_jpegs_are_downscaled_while_decoding_and_look_the_same(tmp_path, monkeypatch):
    ratios = []
    decode = tf.io.decode_jpeg

    def watched(*args, ratio, **options):
        ratios.append(ratio)
        return decode(*args, ratio=ratio, **options)

    monkeypatch.setattr(tf.io, "decode_jpeg", watched)
    content = encoded(photo(900, 600), quality=95)
    view_a, _ = pairs_of(written(tmp_path, a__jpg=content, b__jpg=content))
    assert ratios == [1, 2, 4, 8]
    whole = Image.open(io.BytesIO(content)).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.abs(view_a[0].numpy().astype("float64") - np.asarray(whole)).mean() < 1
    pair = (WHOLE, WHOLE)
    for side, number in ((47, 0), (95, 0), (96, 1), (191, 1), (192, 2), (384, 3), (5000, 3)):
        boxes = tf.constant([[[0, 0, side, 900.0], [0, 0, 5000.0, 5000.0]]])
        assert crops.reductions(boxes, pair).numpy().tolist() == [number]


def test_a_truncated_file_is_named(tmp_path):
    content = encoded(photo(300, 200))
    folder = written(tmp_path, a__jpg=content, b__jpg=content, c__jpg=content[:-900])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"c\.jpg.*truncated"):
        dataset = images_in_unchecked(folder).crop_pairs(3, CROP).epoch(0)
        next(iter(dataset))


def images_in_unchecked(folder):
    """`load` reads the first files and names the broken one."""
    with pytest.raises(ValueError, match=r"c\.jpg.*--skip_corrupt"):
        images_in(folder)
    images = images_in(folder, skip_corrupt=True)
    images.names = ["a.jpg", "b.jpg", "c.jpg"]
    return images


def test_one_pixel(tmp_path):
    content = encoded(Image.new("RGB", (1, 1), (200, 40, 90)), "PNG")
    for view in pairs_of(written(tmp_path, a__png=content, b__png=content), CROP):
        np.testing.assert_array_equal(view, np.broadcast_to([200, 40, 90], (2, 24, 24, 3)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_100_megapixels(tmp_path):
    content = encoded(Image.new("RGB", (10_000, 10_000), (200, 40, 90)), quality=80)
    for view in pairs_of(written(tmp_path, a__jpg=content, b__jpg=content), CROP):
        assert np.abs(view.numpy().astype(int) - [200, 40, 90]).max() <= 3


def test_200_megapixels_are_rejected_by_name(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    photo().save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"huge\.png.*DecompressionBombError"):
        images_in(tmp_path)


@pytest.fixture
def many(tmp_path):
    """Nine images, each identified by its color."""
    for number in range(9):
        Image.new("RGB", (40 + number, 50), (25 * number, 0, 255 - 25 * number)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_the_order_changes_every_epoch_and_is_determined_by_the_seed(many):
    def epochs(seed, count=2):
        batches = images_in(many).crop_pairs(4, CROP, seed=seed)
        assert len(batches) == len(batches.epoch(0)) == 2
        return [
            [np.concatenate(pair).tobytes() for (pair,) in batches.epoch(epoch).as_numpy_iterator()]
            for epoch in range(count)
        ]

    first = epochs(0)
    assert first == epochs(0) and first != epochs(1) and first[0] != first[1]


def test_an_archive_and_a_folder_give_the_same_crops(many, tmp_path_factory):
    archive = tmp_path_factory.mktemp("archive") / "many.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in many.iterdir():
            opened.write(path, path.name)
    first, second = (next(iter(images_in(path).crop_pairs(4, CROP).epoch(0)))[0] for path in (many, archive))
    np.testing.assert_array_equal(first, second)


def test_both_crops_are_of_one_image_and_each_image_is_used_once(many):
    dataset = images_in(many).crop_pairs(4, CROP).epoch(0)
    seen = []
    for ((view_a, view_b),) in dataset.as_numpy_iterator():
        np.testing.assert_array_equal(view_a[:, 0, 0], view_b[:, 0, 0])
        seen += view_a[:, 0, 0, 0].tolist()
    assert len(set(seen)) == 8


def test_boxes_are_drawn_from_the_original_image(tmp_path):
    """In an image whose red is the column and whose green is the row, a crop shows where it was cut."""
    rows, columns = np.mgrid[0:100, 0:200]
    picture = Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype("uint8"))
    for number in range(64):
        picture.save(tmp_path / f"{number}.png")
    view_a, view_b = (view.numpy().astype("float64") for view in pairs_of(tmp_path, CROP, batch_size=64))
    widths, heights = (np.ptp(view_a.mean(axis=axis)[..., channel], axis=1) for axis, channel in ((1, 0), (2, 1)))
    area = widths * heights / 20_000
    assert area.min() > 0.05 and area.max() > 0.5 and abs(np.median(area) - 0.29) < 0.06
    ratio = widths / heights
    assert 0.65 < ratio.min() < 0.85 and 1.2 < ratio.max() < 1.5
    assert view_a[..., 0].max() > 185 and view_a[..., 1].min() < 8
    assert abs(np.corrcoef(view_a.mean(axis=(1, 2))[:, 0], view_b.mean(axis=(1, 2))[:, 0])[0, 1]) < 0.4


def test_images_in_memory_and_other_layers_are_rejected(many):
    with pytest.raises(ValueError, match=r"images in memory.*memory_limit=0"):
        kb.data.load(many, image_size=24, labels=False)[0].crop_pairs(4, CROP)
    with pytest.raises(ValueError, match="must be a RandomResizedCrop"):
        images_in(many).crop_pairs(4, kb.augmentations.RandomFlip())
    with pytest.raises(ValueError, match="must not be larger"):
        images_in(many).crop_pairs(10, CROP)


@pytest.mark.parametrize("accumulation_steps", shared.few([1, 2], 1))
def test_two_steps_on_crops_with_the_other_transforms_in_the_model(many, accumulation_steps):
    encoder = kb.encoders.resnet((1,), input_shape=(24, 24, 3), stem="small", width=4)
    policy = kb.views.barlow_twins(24, without="crop")
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), policy, accumulation_steps=accumulation_steps)
    model.compile("sgd")
    history = model.fit(images_in(many).crop_pairs(4, CROP), epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_views_that_crop_reject_pairs():
    encoder = kb.encoders.resnet((1,), input_shape=(24, 24, 3), stem="small", width=4)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)), kb.views.barlow_twins(24))
    model.compile("sgd")
    crop = np.zeros((4, 24, 24, 3), "uint8")
    with pytest.raises(ValueError, match='without="crop"'):
        model.fit(tf.data.Dataset.from_tensors(((crop, crop),)), verbose=0)
