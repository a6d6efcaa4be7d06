"""Feature extraction, resumption, search and duplicates, and their examples."""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import keras_barlow as kb
from keras_barlow import retrieval

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
    """Computed with PIL: short side resized to 80, center crop of 70."""
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
def test_features_match_their_names(suffix, packed, encoder, photos, tmp_path, monkeypatch):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(retrieval.extraction, "_PART", 5)
    source = photos
    if packed:
        source = tmp_path / "photos.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in photos.rglob("*.jpg"):
                archive.write(file, file.relative_to(photos))
    images = kb.data.every_image(source, image_size=kb.data.inference_size(70))
    path = retrieval.extract(encoder, images, tmp_path / f"features{suffix}", batch_size=2, verbose=0)
    found = retrieval.load(path)
    assert found.names.tolist() == sorted(str(file.relative_to(photos)) for file in photos.rglob("*.jpg"))
    assert found.features.shape == (12, 16) and found.features.dtype == np.float32
    expected = expected_features(encoder, photos, found.names)
    assert np.abs(found.features - expected).mean() < 0.02 * np.abs(expected).mean()
    assert sorted(file.name for file in tmp_path.iterdir() if "features" in file.name) == [f"features{suffix}"]


def test_an_interrupted_extraction_resumes_with_the_same_result(encoder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval.extraction, "_PART", 4)
    images = kb.data.every_image(photos, image_size=80)
    whole = retrieval.load(retrieval.extract(encoder, images, tmp_path / "whole.npz", verbose=0))
    predict, calls = encoder.predict_on_batch, []

    def stopped(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(batch)

    monkeypatch.setattr(encoder, "predict_on_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        retrieval.extract(encoder, images, tmp_path / "features.npz", verbose=0)
    assert not (tmp_path / "features.npz").exists()
    keras.utils.set_random_seed(5)
    other = kb.encoders.resnet((1, 1), input_shape=(70, 70, 3), stem="small", width=8)
    with pytest.raises(ValueError, match=r"another encoder, in .*features.npz.parts"):
        retrieval.extract(other, images, tmp_path / "features.npz", verbose=0)
    with pytest.raises(ValueError, match="parts of other images"):
        retrieval.extract(encoder, images.take(np.arange(5)), tmp_path / "features.npz", verbose=0)
    # A part that a killed run has left.
    (tmp_path / "features.npz.parts" / "000000008-0.npy.unfinished").write_bytes(b"half")
    retrieval.extract(encoder, images, tmp_path / "features.npz", verbose=0)
    assert calls == [4, 4, 4, 4] and not (tmp_path / "features.npz.parts").exists()
    np.testing.assert_array_equal(retrieval.load(tmp_path / "features.npz").features, whole.features)


def test_duplicates_match_a_comparison_of_all_pairs():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1500, 6)).astype("float32")
    features = np.concatenate([centers, centers[:40] * 1.001, centers[:10] * 0.999])
    groups = retrieval.duplicates(features, threshold=0.9999)
    assert [len(group) for group in groups[:11]] == [3] * 10 + [2]
    mean = features - features.mean(axis=0)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    pairs = {(one, other) for one, other in np.argwhere(unit @ unit.T >= 0.9999) if one < other}
    assert {(one, other) for group in groups for one in group for other in group if one < other} >= pairs
    assert len(set(np.concatenate(groups))) == sum(map(len, groups)) == len({row for pair in pairs for row in pair})
    assert retrieval.duplicates(centers[:5], 1.0) == []
    with pytest.raises(ValueError, match="`threshold` must be in"):
        retrieval.duplicates(features, 0)


def test_invalid_arguments_are_rejected(encoder, photos, tmp_path):
    images = kb.data.every_image(photos, image_size=80)
    with pytest.raises(ValueError, match=r"end with one of .npz, .parquet. Received: .*features.csv"):
        retrieval.extract(encoder, images, tmp_path / "features.csv")
    found = retrieval.Gallery(np.array(["a"]), np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match=r"must be \(m, 4\).*Received: queries of shape \(2, 3\)"):
        retrieval.search(found, np.zeros((2, 3)))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut")
    for name in ("other.npz", "broken.npz"):
        with pytest.raises(ValueError, match="must hold names and features"):
            retrieval.load(tmp_path / name)


def run(script, *flags):
    return subprocess.run([sys.executable, EXAMPLES / script, *flags], capture_output=True, text=True)


@pytest.mark.full
def test_the_examples(encoder, photos, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    features, picture = f"{tmp_path / 'features.npz'}", tmp_path / "found.png"
    flags = [f"--encoder={tmp_path / 'encoder.keras'}", f"--data_dir={photos}"]
    done = run("extract_features.py", *flags, f"--output={features}")
    assert done.returncode == 0, done.stderr
    assert "12 images, 16 features each" in done.stdout and " per second" in done.stdout
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
def test_invalid_flags_of_the_examples_are_rejected(encoder, photos, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    retrieval.extract(encoder, kb.data.every_image(photos, 80), tmp_path / "features.npz", verbose=0)
    flags = [f"--encoder={tmp_path / 'encoder.keras'}", f"--data_dir={photos}"]
    other = tmp_path / "other.keras"
    kb.encoders.resnet((1, 1), input_shape=(70, 70, 3), stem="small", width=8).save(other)
    output, features = f"--output={tmp_path / 'features.npz'}", f"--features={tmp_path / 'features.npz'}"
    for script, bad, message in (
        ("extract_features.py", [output], "Add --overwrite"),
        ("extract_features.py", [output + ".txt"], "end with one of"),
        ("extract_features.py", ["--encoder=nowhere"], "which is none of them"),
        ("search.py", [features], "Give either"),
        ("search.py", [features, "--query=nowhere.jpg"], "nowhere.jpg"),
        (
            "search.py",
            [features, f"--encoder={other}", f"--query={photos / 'copy.jpg'}"],
            "Queries must be of the encoder",
        ),
        ("search.py", [features + ".gz", "--duplicates"], "features.npz.gz"),
    ):
        done = run(script, *flags, *bad)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def interrupted(encoder, images, path, monkeypatch):
    """Extracts the first of two parts."""
    monkeypatch.setattr(retrieval.extraction, "_PART", 6)
    features = retrieval.extraction._features

    def stopped(encoder, images, batch_size):
        if "winter/10.jpg" in images.names:
            raise KeyboardInterrupt
        return features(encoder, images, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(retrieval.extraction, "_features", stopped)
        with pytest.raises(KeyboardInterrupt):
            retrieval.extract(encoder, images, path, verbose=0)
    assert len(list(path.with_name(f"{path.name}.parts").glob("*.npy"))) == 1


def saved_twice(encoder, tmp_path):
    """Loads SavedModels of two encoders whose first kernels differ by a constant."""
    other = keras.models.clone_model(encoder)
    weights = encoder.get_weights()
    weights[0] = weights[0] + 1e-3
    other.set_weights(weights)
    for name, one in (("one", encoder), ("other", other)):
        kb.export.save_encoder(one, tmp_path / name)
    return [kb.export.load_encoder(tmp_path / name) for name in ("one", "other")]


def test_features_of_two_saved_models_are_not_mixed(encoder, photos, tmp_path, monkeypatch):
    one, other = saved_twice(encoder, tmp_path)
    assert one.get_weights() == other.get_weights() == []
    images = kb.data.every_image(photos, image_size=80)
    interrupted(one, images, tmp_path / "features.npz", monkeypatch)
    with pytest.raises(ValueError, match="or of another encoder"):
        retrieval.extract(other, images, tmp_path / "features.npz", verbose=0)
    found = retrieval.load(retrieval.extract(one, images, tmp_path / "features.npz", verbose=0))
    # Keras layers with the same weights are the same encoder.
    retrieval.check_encoder(found, one)
    retrieval.check_encoder(found, encoder)
    retrieval.check_encoder(found, kb.BarlowTwins(encoder, kb.Projector((4,)), views=None))
    retrieval.check_encoder(found._replace(encoder=None), other)
    with pytest.raises(ValueError, match="Queries must come from the encoder that extracted the features"):
        retrieval.check_encoder(found, other)


def test_encoders_with_equal_weights_and_another_standardization_differ():
    settings = {"input_shape": (16, 16, 3), "stem": "small", "width": 4}
    one, other = kb.encoders.resnet((1,), **settings), kb.encoders.resnet((1,), mean=(0.1, 0.1, 0.1), **settings)
    other.set_weights(one.get_weights())
    first, second = (retrieval.fingerprints.of_encoder(each) for each in (one, other))
    assert first["weights"] == second["weights"]
    assert not retrieval.fingerprints.same_encoder(first, second)
    # Another machine may round differently.
    close = {**first, "features": [1.001 * value for value in first["features"]]}
    assert retrieval.fingerprints.same_encoder(first, close)


@pytest.mark.parametrize("how", ["content", "same size and time", "archive"])
def test_changed_images_are_extracted_again(how, encoder, photos, tmp_path, monkeypatch):
    copy = shutil.copytree(photos, tmp_path / "photos")
    source = copy
    if how == "archive":
        source = shutil.make_archive(tmp_path / "photos", "zip", copy)
    images = kb.data.every_image(source, image_size=80)
    interrupted(encoder, images, tmp_path / "features.npz", monkeypatch)
    changed = copy / images.names[0]
    before = changed.stat()
    Image.new("RGB", (90, 110), "red").save(changed)
    if how == "same size and time":
        # Bytes after the image data are not decoded.
        changed.write_bytes(changed.read_bytes().ljust(before.st_size, b"\0"))
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert changed.stat().st_size == before.st_size and changed.stat().st_mtime_ns == before.st_mtime_ns
    if how == "archive":
        shutil.make_archive(tmp_path / "photos", "zip", copy)
        images = kb.data.every_image(source, image_size=80)
    found = retrieval.load(retrieval.extract(encoder, images, tmp_path / "features.npz", verbose=0))
    expected = retrieval.load(retrieval.extract(encoder, images, tmp_path / "again.npz", verbose=0))
    np.testing.assert_array_equal(found.features, expected.features)
    assert sorted(file.name for file in tmp_path.glob("*npz*")) == ["again.npz", "features.npz"]


@pytest.mark.parametrize("copies", [2, 3, 4, 5, 1500])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_copies_of_one_picture_are_found(copies, noise):
    rng = np.random.default_rng(0)
    rows = np.tile(rng.normal(size=(1, 64)), (copies, 1)) * (1 + noise * rng.normal(size=(copies, 64)))
    for threshold in (0.5, 0.98, 1.0):
        groups = retrieval.duplicates(rows.astype("float32"), threshold)
        assert [group.tolist() for group in groups] == [list(range(copies))]
    # Also among other pictures; rows of zeros are copies of each other.
    others = rng.normal(size=(30, 64))
    groups = retrieval.duplicates(np.concatenate([others, rows, np.zeros((2, 64))]).astype("float32"), 0.9999)
    assert [group.tolist() for group in groups] == [list(range(30, 30 + copies)), [30 + copies, 31 + copies]]


def test_a_chain_of_similar_pictures_is_one_group_and_large_clusters_are_fast(monkeypatch):
    angles = np.deg2rad(np.arange(0, 180, 2.0))
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    order = np.random.default_rng(0).permutation(90)
    rows = np.concatenate([chain[order], -chain])
    for portions in ((1024, 4096), (7, 13)):
        monkeypatch.setattr(retrieval.similarity, "_ROWS", portions[0])
        monkeypatch.setattr(retrieval.similarity, "_COLUMNS", portions[1])
        # The mean of the two half circles is zero, and the step between them is as small as within them.
        assert [len(group) for group in retrieval.duplicates(rows, 0.999)] == [180]
        assert retrieval.duplicates(rows, 0.9999) == []
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6000, 16)).astype("float32")
    rows[::2] = rows[0] + 1e-4 * rng.normal(size=(3000, 16))
    began = time.process_time()
    groups = retrieval.duplicates(rows)
    # 9 million pairs would take 10 seconds in a Python loop.
    assert time.process_time() - began < 5
    assert groups[0].tolist() == list(range(0, 6000, 2))


def test_other_files_are_rejected_by_name(encoder, photos, tmp_path):
    features = np.zeros((2, 3), "float32")
    np.save(tmp_path / "features.npy", features)
    with pytest.raises(ValueError, match=r"features.npy, an array without names. Save both with np.savez"):
        retrieval.load(tmp_path / "features.npy")
    # Apply the remedy.
    np.savez(tmp_path / "features.npz", names=["a", "b"], features=features)
    assert retrieval.load(tmp_path / "features.npz").names.tolist() == ["a", "b"]
    assert retrieval.load(tmp_path / "features.npz").encoder is None
    for name, arrays in (
        ("fewer names", {"names": ["a"], "features": features}),
        ("numbers as names", {"names": [1, 2], "features": features}),
        ("maps", {"names": ["a", "b"], "features": features[:, None]}),
        ("nothing", {"names": np.zeros(0, str), "features": features[:0]}),
        ("objects", {"names": np.array(["a", None]), "features": features}),
    ):
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(ValueError, match="must hold names and features"):
            retrieval.load(tmp_path / "wrong.npz")
            pytest.fail(name)
    for content in (b"", b"text", (tmp_path / "features.npz").read_bytes()[:200]):
        (tmp_path / "wrong.npz").write_bytes(content)
        with pytest.raises(ValueError, match="must hold names and features"):
            retrieval.load(tmp_path / "wrong.npz")


def test_parquet_files_from_other_programs(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = tmp_path / "features.parquet"
    for rows, names in (
        ([[1.0, 2.0], [3.0]], ["a", "b"]),
        ([[1.0, 2.0, 3.0], [4.0]], ["a", "b"]),
        ([[1.0, 2.0], None], ["a", "b"]),
        ([[1.0, None], [2.0, 3.0]], ["a", "b"]),
        ([[1.0], [2.0]], ["a", None]),
        ([[1.0], [2.0]], [1, 2]),
    ):
        pyarrow.parquet.write_table(arrow.table({"names": names, "features": rows}), path)
        with pytest.raises(ValueError, match="must hold names and features"):
            retrieval.load(path)
    pyarrow.parquet.write_table(arrow.table({"names": ["a", "b"], "features": [[1.0, 2.0], [3.0, 4.0]]}), path)
    found = retrieval.load(path)
    assert found.features.tolist() == [[1, 2], [3, 4]] and found.features.dtype == np.float32
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="must hold names and features"):
        retrieval.load(path)


def test_names_of_any_bytes_are_kept_or_rejected(encoder, photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [b"caf\xe9.jpg", "caf\u00e9.jpg".encode(), b"two\nlines.jpg"]
    for name in names:
        shutil.copy(photos / "copy.jpg", os.fsencode(folder) + b"/" + name)
    images = kb.data.every_image(folder, image_size=80)
    found = retrieval.load(retrieval.extract(encoder, images, tmp_path / "features.npz", verbose=0))
    assert {os.fsencode(name) for name in found.names.tolist()} == set(names)
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"must be UTF-8. Received: 'caf\\udce9.jpg'"):
        retrieval.extract(encoder, images, tmp_path / "features.parquet", verbose=0)
    assert not list(tmp_path.glob("*.parts"))


def test_invalid_extractions_are_rejected_immediately(encoder, photos, tmp_path):
    images = kb.data.every_image(photos, image_size=80)
    deep = kb.encoders.resnet((1,), input_shape=(16, 16, 4), mean=[0.5] * 4, deviation=[0.5] * 4, stem="small", width=4)
    maps = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 3)])
    (tmp_path / "folder.npz").mkdir()
    broken = keras.models.clone_model(encoder)
    broken.set_weights([np.full_like(weight, np.nan) for weight in encoder.get_weights()])
    for model, source, name, message in (
        (encoder, kb.data.every_image(photos, image_size=64), "a.npz", "takes images of 70 x 70 x 3. Received: .*64"),
        (encoder, images.take(np.arange(0)), "a.npz", "must contain image files. Received: none"),
        (encoder, kb.data.ArrayImages(np.zeros((2, 80, 80, 3), "uint8")), "a.npz", "Received: ArrayImages"),
        (deep, images, "a.npz", "to features"),
        (maps, images, "a.npz", "End it with GlobalAveragePooling2D"),
        (encoder, images, "folder.npz", "output must be a file"),
        (encoder, images, "a.npy", "must end with one of .npz, .parquet. Received: .*a.npy"),
        (broken, images, "b.npz", r"NaN or infinite values for 12 of 12 images, such as copy.jpg"),
    ):
        with pytest.raises(ValueError, match=message):
            retrieval.extract(model, source, tmp_path / name, verbose=0)
    assert not list(tmp_path.glob("a.*"))
