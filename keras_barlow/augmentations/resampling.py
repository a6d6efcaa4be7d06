"""Separable linear filters as one matrix per image and axis."""

from keras import ops


def resample(images, rows, columns):
    """Applies `rows` along the height and `columns` along the width of each image.

    Written as two products of rank 3 on purpose: a matrix product that broadcasts an axis of size 1 corrupts
    memory in TensorFlow 2.21 with oneDNN (tensorflow/tensorflow#117700).

    Args:
        images: Float tensor `(batch, H, W, channels)`.
        rows: Float tensor `(batch, height, H)`.
        columns: Float tensor `(batch, width, W)`.

    Returns:
        Float tensor `(batch, height, width, channels)`.
    """
    _, image_height, image_width, channels = images.shape
    height, width = rows.shape[1], columns.shape[1]
    x = ops.matmul(rows, ops.reshape(images, (-1, image_height, image_width * channels)))
    x = ops.transpose(ops.reshape(x, (-1, height, image_width, channels)), (0, 1, 3, 2))
    x = ops.matmul(ops.reshape(x, (-1, height * channels, image_width)), ops.transpose(columns, (0, 2, 1)))
    return ops.transpose(ops.reshape(x, (-1, height, channels, width)), (0, 1, 3, 2))
