"""Two random crops of each image, cut on the host from one decoding."""

import functools
import os

import numpy as np
import tensorflow as tf

from keras_barlow import randomness
from keras_barlow.augmentations import RandomResizedCrop

# libjpeg leaves out detail in these steps, and then decodes up to 5 times as fast.
_REDUCTIONS = (1, 2, 4, 8)
# What is left must still have this many pixels for each pixel of the crop, along each axis: the bicubic resize that
# follows takes the rest, as it would have taken all.
_SPARE = 2.0


def crop_pairs(described, describe, load, batch_size, decoder, crops, seed):
    """Batches of pairs of crops.

    JPEGs are decoded by TensorFlow in parallel, others by PIL; both crops come from one decoding, which leaves out
    detail that both crops would average away. The boxes are those of `RandomResizedCrop`, drawn from the image as it
    is, and the resize is bicubic with antialiasing.

    Args:
        described: `tf.data.Dataset` of `(step, start, descriptions)`, see `order.Batches`.
        describe: Function of one description, as NumPy, that gives a binary file object, its name, and the bytes that
            `load` takes.
        load: Function of a string tensor, which gives the bytes of the file.
        batch_size: Images per batch, over all replicas: the boxes come from the table of the whole batch.
        decoder: `Decoder`.
        crops: Pair of `RandomResizedCrop` layers.
        seed: Integer: of the boxes.

    Returns:
        A `tf.data.Dataset` of `((crop_a, crop_b),)`, uint8 tensors `(rows, height, width, 3)`.
    """
    count = described.element_spec[2].shape[0]

    def headers(rows):
        columns = []
        for row in rows:
            file, name, key = describe(row)
            with file:
                # As bytes: tensors hold names that are no UTF-8, but not as text.
                columns.append((key, os.fsencode(name), *decoder.header(file, name)))
        keys, names, *numbers = zip(*columns, strict=True)
        return np.array(keys, object), np.array(names, object), *map(np.array, numbers)

    def read_headers(step, start, rows):
        types = (tf.string, tf.string, tf.int64, tf.int64, tf.int64, tf.bool)
        values = tf.numpy_function(headers, [rows], types, stateful=False)
        return step, start, *(tf.ensure_shape(value, (count,)) for value in values)

    def draw(step, start, file, name, height, width, orientation, plain):
        # From 5 on the picture lies on its side.
        turned = orientation >= 5
        size = tf.stack([tf.where(turned, width, height), tf.where(turned, height, width)], axis=1)
        boxes = []
        for view, crop in enumerate(crops):
            # The steps from 0 on, and -1, are those of the transforms in the model.
            key = randomness.view_key(seed, -2 - step, view)
            numbers = randomness.uniform_rows(key, start, count, batch_size, crop.numbers_per_image)
            box = crop.transformation_from(numbers, (count, size[:, 0], size[:, 1], 3))
            boxes.append(tf.stack([box[side] for side in ("top", "left", "height", "width")], axis=1))
        boxes = tf.stack(boxes, axis=1)
        reduction = tf.where(plain, reductions(boxes, crops), 0)
        return file, name, orientation, plain, reduction, _windows(boxes, tf.cast(size, tf.int32), reduction)

    def cut(file, name, orientation, plain, reduction, windows):
        image = _decoded(load(file), name, orientation, plain, reduction, decoder)
        return tuple(_cut(image, windows[view], crop) for view, crop in enumerate(crops))

    # AutoGraph would rewrite what it finds, the decoder too, and run it ten times as slow.
    plainly = tf.autograph.experimental.do_not_convert
    # More pictures under way than cores: one large picture must not keep those behind it waiting.
    ahead = 4 * os.cpu_count()
    return (
        described.map(plainly(read_headers))
        .map(plainly(draw))
        .prefetch(1)
        .unbatch()
        .map(plainly(cut), num_parallel_calls=ahead, deterministic=True)
        .batch(count, drop_remainder=True)
        .map(lambda a, b: ((a, b),))
        .prefetch(2)
    )


def reductions(boxes, crops):
    """Which reduction of each picture is the largest that leaves both crops more detail than they need.

    Args:
        boxes: Float tensor `(batch, 2, 4)`: top, left, height and width of both boxes, in pixels.
        crops: Pair of `RandomResizedCrop` layers.

    Returns:
        int32 tensor `(batch,)`: 0 for all pixels, 1, 2 and 3 for a half, a quarter and an eighth along each axis.
    """
    needed = tf.constant([[crop.height, crop.width] for crop in crops], tf.float32)
    spare = tf.reduce_min(boxes[:, :, 2:] / needed, axis=(1, 2)) / _SPARE
    return tf.reduce_sum(tf.cast(spare[:, None] >= tf.constant(_REDUCTIONS[1:], tf.float32), tf.int32), axis=1)


def _windows(boxes, size, reduction):
    """The boxes in whole pixels of the reduced pictures, int32 `(batch, 2, 4)`."""
    ratio = tf.gather(tf.constant(_REDUCTIONS), reduction)[:, None]
    have = -(-size // ratio)
    scale = (tf.cast(have, tf.float32) / tf.cast(size, tf.float32))[:, None]
    have = have[:, None]
    start = tf.minimum(tf.cast(tf.round(boxes[:, :, :2] * scale), tf.int32), have - 1)
    length = tf.clip_by_value(tf.cast(tf.round(boxes[:, :, 2:] * scale), tf.int32), 1, have - start)
    return tf.concat([start, length], axis=2)


def _decoded(content, name, orientation, plain, reduction, decoder):
    """The upright picture, `(height, width, 3)`, reduced if it is a plain JPEG."""

    def by_tensorflow():
        image = tf.switch_case(
            reduction,
            [functools.partial(tf.io.decode_jpeg, content, channels=3, ratio=ratio) for ratio in _REDUCTIONS],
        )
        return tf.cond(orientation == 1, lambda: image, lambda: _upright(image, orientation))

    def by_pil():
        whole = tf.numpy_function(
            lambda content, name: decoder.decode_whole(content, os.fsdecode(name)),
            [content, name],
            tf.uint8,
            stateful=False,
        )
        return tf.ensure_shape(whole, (None, None, 3))

    return tf.cond(plain, by_tensorflow, by_pil)


def _upright(image, orientation):
    """Undoes an EXIF orientation from 1 to 8."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    # Where the first row and the first column of the file belong.
    from_below = tf.reduce_any(orientation == [3, 4, 7, 8])
    from_right = tf.reduce_any(orientation == [2, 3, 6, 7])
    turned = tf.cond(from_below, lambda: tf.reverse(turned, [0]), lambda: turned)
    return tf.cond(from_right, lambda: tf.reverse(turned, [1]), lambda: turned)


def _cut(image, window, crop):
    """One crop, uint8 `(height, width, 3)`."""
    top, left, height, width = tf.unstack(window)
    # As a matrix: the slice is then a copy of whole pieces of rows.
    rows = tf.reshape(image, (tf.shape(image)[0], -1))
    box = rows[top : top + height, 3 * left : 3 * (left + width)]
    return resized(tf.reshape(box, (height, width, 3)), height, width, crop.height, crop.width)


def resized(image, height, width, to_height, to_width):
    """Resizes one image, bicubic with antialiasing, as PIL does.

    TensorFlow's kernel is fast along rows and slow along columns. So it is given rows only: the image as a column of
    rows, then, transposed as a matrix, as a column of columns. 0.6 ms in place of 2.6 for a crop of 224 pixels.

    Args:
        image: uint8 tensor `(height, width, 3)`.
        height: Scalar integer tensor.
        width: Scalar integer tensor.
        to_height: Pixels of the result, an integer.
        to_width: The same.

    Returns:
        uint8 tensor `(to_height, to_width, 3)`.
    """
    # Its route for uint8 is slower than the cast.
    rows = _resized_rows(tf.reshape(tf.cast(image, tf.float32), (1, height, 1, 3 * width)), height, to_height)
    columns = tf.reshape(tf.transpose(tf.reshape(rows, (to_height, 3 * width))), (1, width, 1, 3 * to_height))
    columns = _resized_rows(columns, width, to_width)
    pixels = tf.reshape(tf.transpose(tf.reshape(columns, (3 * to_width, to_height))), (to_height, to_width, 3))
    return tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8)


def _resized_rows(column, size, target):
    # What tf.image.resize calls, without its questions about shapes.
    return tf.raw_ops.ScaleAndTranslate(
        images=column,
        size=[target, 1],
        scale=tf.stack([target / tf.cast(size, tf.float32), 1.0]),
        translation=[0.0, 0.0],
        kernel_type="keyscubic",
        antialias=True,
    )


def checked_crops(crop):
    """The pair of crop layers, of one for both views or two."""
    pair = tuple(crop) if isinstance(crop, (tuple, list)) else (crop, crop)
    if len(pair) != 2 or not all(isinstance(layer, RandomResizedCrop) for layer in pair):
        raise ValueError(
            "The crop must be a RandomResizedCrop(height, width), or a pair of them for the two views. "
            f"Received: {crop!r}."
        )
    return pair
