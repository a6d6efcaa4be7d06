"""Features of files: written, resumed, searched; and the examples that do it."""

import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from keras_barlow import gallery

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photographs of two sizes in folders of two depths, the last a copy of the first in another quality."""
    path = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(11):
        colors = rng.integers(0, 256, (4, 6, 3), dtype="uint8")
        size = (120, 80) if number % 2 else (90, 110)
        image = Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)
        place = path / ("summer/beach" if number < 5 else "winter")
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:02d}.jpg", quality=95)
        if number == 0:
            image.save(path / "copy.jpg", quality=60)
    return path


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    return kb.encoders.resnet((1, 1), input_shape=(70, 70, 3), stem="small", width=8)


def expected_features(encoder, photos, names):
    """By PIL: the short side to 80, the centre of 70."""
    images = []
    for name in names:
        image = Image.open(photos / name)
        scale = 80 / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - 70) // 2 for side in image.size)
        images.append(np.asarray(image.crop((left, top, left + 70, top + 70))))
    return encoder.predict(np.stack(images), verbose=0)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_features_have_their_names(suffix, packed, encoder, photos, tmp_path, monkeypatch):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(gallery.extraction, "_PART", 5)
    source = photos
    if packed:
        source = tmp_path / "photos.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in photos.rglob("*.jpg"):
                archive.write(file, file.relative_to(photos))
    images = kb.data.every_image(source, image_size=kb.data.inference_size(70))
    path = gallery.extract(encoder, images, tmp_path / f"features{suffix}", batch_size=2, verbose=0)
    found = gallery.load(path)
    assert found.names.tolist() == sorted(str(file.relative_to(photos)) for file in photos.rglob("*.jpg"))
    assert found.features.shape == (12, 16) and found.features.dtype == np.float32
    expected = expected_features(encoder, photos, found.names)
    assert np.abs(found.features - expected).mean() < 0.02 * np.abs(expected).mean()
    assert sorted(file.name for file in tmp_path.iterdir() if "features" in file.name) == [f"features{suffix}"]


def test_a_stopped_extraction_goes_on_with_the_same_result(encoder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery.extraction, "_PART", 4)
    images = kb.data.every_image(photos, image_size=80)
    whole = gallery.load(gallery.extract(encoder, images, tmp_path / "whole.npz", verbose=0))
    predict, calls = encoder.predict_on_batch, []

    def stopped(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(batch)

    monkeypatch.setattr(encoder, "predict_on_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        gallery.extract(encoder, images, tmp_path / "features.npz", verbose=0)
    assert not (tmp_path / "features.npz").exists()
    keras.utils.set_random_seed(5)
    other = kb.encoders.resnet((1, 1), input_shape=(70, 70, 3), stem="small", width=8)
    with pytest.raises(ValueError, match=r"another encoder, are in .*features.npz.parts"):
        gallery.extract(other, images, tmp_path / "features.npz", verbose=0)
    with pytest.raises(ValueError, match="Parts of other images"):
        gallery.extract(encoder, images.take(np.arange(5)), tmp_path / "features.npz", verbose=0)
    gallery.extract(encoder, images, tmp_path / "features.npz", verbose=0)
    assert calls == [4, 4, 4, 4]
    np.testing.assert_array_equal(gallery.load(tmp_path / "features.npz").features, whole.features)


def test_duplicates_are_those_of_every_pair():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1500, 6)).astype("float32")
    features = np.concatenate([centres, centres[:40] * 1.001, centres[:10] * 0.999])
    groups = gallery.duplicates(features, threshold=0.9999)
    assert [len(group) for group in groups[:11]] == [3] * 10 + [2]
    mean = features - features.mean(axis=0)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    pairs = {(one, other) for one, other in np.argwhere(unit @ unit.T >= 0.9999) if one < other}
    assert {(one, other) for group in groups for one in group for other in group if one < other} >= pairs
    assert len(set(np.concatenate(groups))) == sum(map(len, groups)) == len({row for pair in pairs for row in pair})
    assert gallery.duplicates(centres[:5], 1.0) == []
    with pytest.raises(ValueError, match="`threshold` must be in"):
        gallery.duplicates(features, 0)


def test_bad_input(encoder, photos, tmp_path):
    images = kb.data.every_image(photos, image_size=80)
    with pytest.raises(ValueError, match=r"end with one of .npz, .parquet. Received: .*features.csv"):
        gallery.extract(encoder, images, tmp_path / "features.csv")
    found = gallery.Gallery(np.array(["a"]), np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match=r"must be \(m, 4\).*Received: queries of shape \(2, 3\)"):
        gallery.search(found, np.zeros((2, 3)))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut")
    for name in ("other.npz", "broken.npz"):
        with pytest.raises(ValueError, match="must hold names and features"):
            gallery.load(tmp_path / name)


def run(script, *flags):
    return subprocess.run([sys.executable, EXAMPLES / script, *flags], capture_output=True, text=True)


def test_the_examples(encoder, photos, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    features, picture = f"{tmp_path / 'features.npz'}", tmp_path / "found.png"
    flags = [f"--encoder={tmp_path / 'encoder.keras'}", f"--data_dir={photos}"]
    done = run("extract_features.py", *flags, f"--output={features}")
    assert done.returncode == 0, done.stderr
    assert "12 images, 16 features each" in done.stdout and " a second" in done.stdout
    search = [f"--features={features}", *flags, f"--output={picture}"]
    done = run("search.py", *search, f"--query={photos / 'copy.jpg'}", "--k=3")
    assert done.returncode == 0, done.stderr
    found = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert found[:2] == ["copy.jpg", "summer/beach/00.jpg"] and len(found) == 3
    assert min(np.asarray(Image.open(picture)).shape[:2]) > 80
    picture.unlink()
    done = run("search.py", *search, "--duplicates", "--threshold=0.995")
    assert done.returncode == 0, done.stderr
    assert "2 of 12 images are in 1 groups" in done.stdout and "summer/beach/00.jpg" in done.stdout
    assert min(np.asarray(Image.open(picture)).shape[:2]) > 80
    done = run("search.py", *search, f"--data_dir={photos / 'winter'}", "--duplicates")
    assert done.returncode == 1 and "12 that are not in" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.full
def test_bad_flags_of_the_examples(encoder, photos, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    gallery.extract(encoder, kb.data.every_image(photos, 80), tmp_path / "features.npz", verbose=0)
    flags = [f"--encoder={tmp_path / 'encoder.keras'}", f"--data_dir={photos}"]
    output, features = f"--output={tmp_path / 'features.npz'}", f"--features={tmp_path / 'features.npz'}"
    for script, bad, message in (
        ("extract_features.py", [output], "Add --overwrite"),
        ("extract_features.py", [output + ".txt"], "end with one of"),
        ("extract_features.py", ["--encoder=nowhere"], "which is none of them"),
        ("search.py", [features], "Give either"),
        ("search.py", [features, "--query=nowhere.jpg"], "nowhere.jpg"),
        ("search.py", [features + ".gz", "--duplicates"], "features.npz.gz"),
    ):
        done = run(script, *flags, *bad)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
