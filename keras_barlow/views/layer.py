"""The layer that draws two random views of each image."""

import random

import keras
from keras import ops

from keras_barlow import augmentations, image_scale, networks, randomness
from keras_barlow.augmentations.fusion import to_images, to_planes
from keras_barlow.views.foreign import call_foreign, check_repeatable


@keras.saving.register_keras_serializable(package="keras_barlow")
class Views(keras.layers.Layer):
    """Draws two random views of each image with two lists of layers.

    This library's transforms draw from one table per `(seed, step, view)`, so a step has the same views on any number
    of devices. Other layers (from Keras, keras-cv) draw from their own generators.

    Args:
        layers_a: List of Keras layers that map images to images, applied in order, for view A.
        layers_b: List of Keras layers that map images to images, applied in order, for view B.
        seed: Integer seed of the random numbers, or None for a random one.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or one image of rank 3. Or a pair
            of such tensors, crops cut on the host, of which the first becomes view A and the second view B.
        training: Python boolean. False returns the images without augmentation, resized if the views are cropped.
        step: Number of the training step, an integer or a scalar integer tensor, which determines the random numbers.
            None takes the next step of the layer's own generator.

    Returns:
        The pair `(view_a, view_b)`, float32 on 0..255.

    Example:

    In a model: `BarlowTwins(encoder, projector, views=kb.views.barlow_twins(32))`. In tf.data, with the step from
    `enumerate`, so that parallel workers are reproducible:

    >>> import numpy as np, tensorflow as tf, keras_barlow as kb
    >>> views = kb.views.barlow_twins(image_size=16, seed=0)
    >>> dataset = tf.data.Dataset.from_tensor_slices(np.zeros((8, 20, 20, 3), "uint8")).batch(4)
    >>> pairs = dataset.enumerate().map(lambda step, images: views(images, step=step))
    >>> [tuple(view.shape) for view in next(iter(pairs))]
    [(4, 16, 16, 3), (4, 16, 16, 3)]
    """

    def __init__(self, layers_a, layers_b, seed=None, **kwargs):
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        networks.check_channels_last()
        self.layers_a = list(layers_a)
        self.layers_b = list(layers_b)
        self.seed = random.randint(0, 2**31 - 1) if seed is None else randomness.checked_seed(seed)
        self._seed_generator = keras.random.SeedGenerator(self.seed)
        # Foreign layers may claim XLA support and not have it, as keras-cv's RandomCropAndResize does.
        self.supports_jit = all(isinstance(layer, augmentations.RandomTransform) for layer in self.transforms)
        self.built = True

    @property
    def takes_crops(self):
        """Whether the layer accepts pairs of crops, because none of its layers crops."""
        return not any(isinstance(layer, augmentations.RandomResizedCrop) for layer in self.transforms)

    @property
    def transforms(self):
        """The layers of both views."""
        return self.layers_a + self.layers_b

    def check_repeatable(self, image_shape):
        """Checks that layers from other libraries can draw the same views twice, as micro-batches require.

        Args:
            image_shape: Shape `(height, width, channels)` of the trial images; each may be None if it is unknown.

        Raises:
            ValueError: If a layer does not repeat its random numbers.
        """
        foreign = [layer for layer in self.transforms if not isinstance(layer, augmentations.RandomTransform)]
        check_repeatable(foreign, image_shape)

    def call(self, images, training=True, step=None):
        image_scale.warn_about_scale(image_scale.first_images(images))
        pair = [ops.convert_to_tensor(part) for part in (images if isinstance(images, (tuple, list)) else [images])]
        if len(pair) > 2 or {len(part.shape) for part in pair} not in ({3}, {4}):
            raise ValueError(
                "Images must have the shape (batch, height, width, channels), or (height, width, channels) for one "
                "image, or be a pair of such crops. Received: images.shape="
                + ", ".join(str(tuple(part.shape)) for part in pair)
                + ". Add or remove axes."
            )
        if len(pair[0].shape) == 3:
            views = self.call([part[None] for part in pair], training=training, step=step)
            return tuple(ops.squeeze(view, axis=0) for view in views)
        tables = self.draw(ops.shape(pair[0])[0], step) if training else (None, None)
        return self.apply(pair if len(pair) == 2 else pair[0], tables, training=training)

    def draw(self, rows, step=None):
        """Draws the random numbers of both views. `apply` accepts any rows of them, such as those of a micro-batch.

        Args:
            rows: Number of images on this replica, an integer or a scalar integer tensor.
            step: Number of the training step, an integer or a scalar integer tensor; None takes the next step of the
                layer's own generator.

        Returns:
            A pair of float32 tables `(rows, numbers)` in [0, 1).
        """
        if step is None:
            step = ops.cast(self._seed_generator.next()[1], "int64")
        return tuple(
            randomness.uniform_table(randomness.view_key(self.seed, step, index), rows, _numbers_per_image(layers))
            for index, layers in enumerate((self.layers_a, self.layers_b))
        )

    def apply(self, images, tables, training=True):
        """Computes the views of images from random numbers.

        Args:
            images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or a pair of crops.
            tables: Pair of tables from `draw`, with one row per image.
            training: Python boolean; False ignores the tables.

        Returns:
            The pair `(view_a, view_b)`, float32 on 0..255.
        """
        pair = images if isinstance(images, (tuple, list)) else (images, images)
        # A single image tensor is converted to planes once for both views.
        planes = [to_planes(pair[0])] * 2 if pair[0] is pair[1] else [to_planes(part) for part in pair]
        return tuple(
            self._view(part, layers, table, training)
            for part, layers, table in zip(planes, (self.layers_a, self.layers_b), tables, strict=True)
        )

    def _view(self, planes, layers, table, training):
        start = 0
        for layer in layers:
            if not isinstance(layer, augmentations.RandomTransform):
                images = ops.cast(call_foreign(layer, to_images(planes), training), "float32")
                planes = to_planes(images)
                continue
            transformation = None
            if training:
                numbers = table[:, start : start + layer.numbers_per_image]
                batch, height, channels, width = planes.shape
                transformation = layer.transformation_from(numbers, (batch, height, width, channels))
                start += layer.numbers_per_image
            planes = layer.transform_planes(planes, transformation, training=training)
        return to_images(planes)

    def compute_output_shape(self, input_shape):
        shapes = []
        for layers in (self.layers_a, self.layers_b):
            shape = tuple(input_shape)
            for layer in layers:
                shape = tuple(layer.compute_output_shape(shape))
            shapes.append(shape)
        return tuple(shapes)

    def get_config(self):
        return {
            **super().get_config(),
            "layers_a": [keras.saving.serialize_keras_object(layer) for layer in self.layers_a],
            "layers_b": [keras.saving.serialize_keras_object(layer) for layer in self.layers_b],
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("layers_a", "layers_b"):
            config[name] = [keras.saving.deserialize_keras_object(layer) for layer in config[name]]
        return cls(**config)


def _numbers_per_image(layers):
    return sum(layer.numbers_per_image for layer in layers if isinstance(layer, augmentations.RandomTransform))
