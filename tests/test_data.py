import numpy as np
import pytest
from PIL import Image

from keras_barlow import data


def test_digits_are_split_before_they_are_drawn():
    (train, train_labels), (test, test_labels) = data.digits()
    assert train.shape == (4311, 32, 32, 3) and test.shape == (1080, 32, 32, 3)
    assert train.dtype == test.dtype == "uint8" and train_labels.shape == (4311,)
    assert set(train_labels) == set(test_labels) == set(range(10))
    again = data.digits()
    np.testing.assert_array_equal(again[1][0], test)
    assert (data.digits(seed=1)[0][0] != train).any()


def test_digits_have_the_stated_sizes_colours_and_places():
    (train, _), _ = data.digits()
    ink = train.max(axis=3) > 25
    rows, columns = ink.any(axis=2), ink.any(axis=1)
    heights = rows.shape[1] - rows[:, ::-1].argmax(1) - rows.argmax(1)
    assert np.quantile(heights, 0.01) >= 8 and np.quantile(heights, 0.99) <= 20
    # Somewhere in the whole canvas, and nowhere always.
    assert rows.any(0).all() and columns.any(0).all() and ink.mean(0).max() < 0.6
    brightest = train.reshape(len(train), -1, 3).max(axis=1)
    assert brightest.min() > 40 and brightest.max() == 255


def test_copies_of_a_digit_differ():
    (train, labels), _ = data.digits()
    assert labels[0] == labels[1] == labels[2]
    assert (train[0] != train[1]).any()


def test_batches_take_every_image_once_in_a_new_order_each_epoch():
    images = np.arange(10, dtype="uint8").reshape(10, 1, 1, 1)
    dataset = data.batches(images, batch_size=5, seed=0)
    epochs = [np.concatenate(list(dataset.as_numpy_iterator())).ravel() for _ in range(2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    assert (epochs[0] != epochs[1]).any()


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (20, 10), (100 * number, 50, 0)).save(tmp_path / split / name / "1.png")
    Image.new("L", (5, 5), 9).save(tmp_path / "train" / "dog" / "2.PNG")
    return tmp_path


def test_image_folder(folder):
    (train, train_labels), (test, test_labels) = data.image_folder(folder, 8)
    assert train.shape == (3, 8, 8, 3) and test.shape == (2, 8, 8, 3) and train.dtype == "uint8"
    assert train_labels.tolist() == [0, 1, 1] and test_labels.tolist() == [0, 1]
    np.testing.assert_array_equal(train[1, 4, 4], (100, 50, 0))
    np.testing.assert_array_equal(train[2, 4, 4], (9, 9, 9))


def test_image_folder_turns_images_upright(folder):
    image = Image.new("RGB", (4, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(folder / "train" / "cat" / "1.png", exif=exif)
    (train, _), _ = data.image_folder(folder, 4)
    np.testing.assert_array_equal(train[0, 3, 3], 255)


def test_image_folder_refuses(folder, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        data.image_folder(tmp_path / "nowhere", 8)
    (folder / "train" / "dog" / "2.PNG").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"readable image.*2\.PNG"):
        data.image_folder(folder, 8)
    (folder / "test" / "dog" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"same classes.*'dog'.*test=\['cat'\]"):
        data.image_folder(folder, 8)
    (folder / "test" / "cat" / "1.png").unlink()
    with pytest.raises(ValueError, match="no image there"):
        data.image_folder(folder, 8)
