"""The layer that draws random views of each image."""

import random

import keras
from keras import ops

from keras_barlow import augmentations, distribution, engine, image_scale, networks, randomness
from keras_barlow.augmentations.fusion import to_images, to_planes
from keras_barlow.views.foreign import call_foreign, check_repeatable


@keras.saving.register_keras_serializable(package="keras_barlow")
class Views(keras.layers.Layer):
    """Draws two or more random views of each image, each with its own list of layers.

    This library's transforms draw from one table per `(seed, step, view)`, so a step has the same views on any number
    of devices. Other layers (from Keras, keras-cv) draw from their own generators.

    Args:
        layers_a: List of Keras layers that map images to images, applied in order, for view A.
        layers_b: List of Keras layers that map images to images, applied in order, for view B.
        seed: Integer seed of the random numbers, or None for a random one.
        further: Sequence of further lists of layers, one per additional view, such as small crops.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or one image of rank 3. If there
            are exactly two views, also a pair of such tensors, crops cut on the host, for view A and view B.
        training: Python boolean. False returns the images without augmentation, resized if the views are cropped.
        step: Number of the training step, an integer or a scalar integer tensor, which determines the random numbers.
            None takes the next step of the layer's own generator.

    Returns:
        A tuple with one view per list of layers, float32 on 0..255.

    Raises:
        ValueError: If `further` does not hold lists of layers, or the images have another shape.

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

    def __init__(self, layers_a, layers_b, seed=None, further=(), **kwargs):
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        networks.check_channels_last()
        self.layers_a = list(layers_a)
        self.layers_b = list(layers_b)
        self.further = _checked_lists(further)
        self.seed = random.randint(0, 2**31 - 1) if seed is None else randomness.checked_seed(seed)
        self._seed_generator = keras.random.SeedGenerator(self.seed)
        # Foreign layers may claim XLA support and not have it, as keras-cv's RandomCropAndResize does.
        self.supports_jit = all(isinstance(layer, augmentations.RandomTransform) for layer in self.transforms)
        self.built = True

    @property
    def count(self):
        """Number of views."""
        return 2 + len(self.further)

    @property
    def takes_crops(self):
        """Whether the layer accepts pairs of crops, because it has two views and none of its layers crops."""
        crops = any(isinstance(layer, augmentations.RandomResizedCrop) for layer in self.transforms)
        return self.count == 2 and not crops

    @property
    def transforms(self):
        """The layers of all views."""
        return [layer for layers in self._layer_lists for layer in layers]

    @property
    def _layer_lists(self):
        return [self.layers_a, self.layers_b, *self.further]

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
        parts = [ops.convert_to_tensor(part) for part in (images if isinstance(images, (tuple, list)) else [images])]
        if len(parts) > 2 or {len(part.shape) for part in parts} not in ({3}, {4}):
            raise ValueError(
                "Images must have the shape (batch, height, width, channels), or (height, width, channels) for one "
                "image, or be a pair of such crops. Received: images.shape="
                + ", ".join(str(tuple(part.shape)) for part in parts)
                + ". Add or remove axes."
            )
        if len(parts[0].shape) == 3:
            views = self.call([part[None] for part in parts], training=training, step=step)
            return tuple(ops.squeeze(view, axis=0) for view in views)
        tables = self.draw(ops.shape(parts[0])[0], step) if training else (None,) * self.count
        return self.apply(parts if len(parts) == 2 else parts[0], tables, training=training)

    def draw(self, rows, step=None):
        """Draws the random numbers of all views. `apply` accepts any rows of them, such as those of a micro-batch.

        Args:
            rows: Number of images on this replica, an integer or a scalar integer tensor.
            step: Number of the training step, an integer or a scalar integer tensor; None takes the next step of the
                layer's own generator.

        Returns:
            A tuple of float32 tables `(rows, numbers)` in [0, 1), one per view.
        """
        if step is None:
            step = ops.cast(self._seed_generator.next()[1], engine.COUNT_DTYPE)
        # The position of this replica's rows is a collective, which all views share.
        start, total = distribution.own_rows(rows)
        return tuple(
            randomness.uniform_rows(
                randomness.view_key(self.seed, step, index), start, rows, total, _numbers_per_image(layers)
            )
            for index, layers in enumerate(self._layer_lists)
        )

    def apply(self, images, tables, training=True):
        """Computes the views of images from random numbers.

        Args:
            images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or a pair of crops.
            tables: Tuple of tables from `draw`, with one row per image.
            training: Python boolean; False ignores the tables.

        Returns:
            A tuple of views, float32 on 0..255.

        Raises:
            ValueError: If there is a pair of crops, but not exactly two views.
        """
        if isinstance(images, (tuple, list)):
            self._check_pair()
            planes = [to_planes(crop) for crop in images]
        else:
            # The images are converted to planes once for all views.
            planes = [to_planes(images)] * self.count
        return tuple(
            self._view(part, layers, table, training)
            for part, layers, table in zip(planes, self._layer_lists, tables, strict=True)
        )

    def _check_pair(self):
        if self.count != 2:
            raise ValueError(
                "A pair of crops becomes view A and view B, so there must be exactly two views. "
                f"Received: a pair of crops for {self.count} views. Pass one batch of images, from which all views are "
                'cropped, or use two views without the crop, such as views.barlow_twins(image_size, without="crop").'
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
        for layers in self._layer_lists:
            shape = tuple(input_shape)
            for layer in layers:
                shape = tuple(layer.compute_output_shape(shape))
            shapes.append(shape)
        return tuple(shapes)

    def get_config(self):
        config = {
            **super().get_config(),
            "layers_a": _serialized(self.layers_a),
            "layers_b": _serialized(self.layers_b),
            "seed": self.seed,
        }
        # Two views have the config of earlier versions, so that their checkpoints still match.
        return {**config, "further": [_serialized(layers) for layers in self.further]} if self.further else config

    @classmethod
    def from_config(cls, config):
        config = {**config, **{name: _deserialized(config[name]) for name in ("layers_a", "layers_b")}}
        if "further" in config:
            config["further"] = [_deserialized(layers) for layers in config["further"]]
        return cls(**config)


def _checked_lists(further):
    """Returns further views as lists of layers."""
    lists = further if isinstance(further, (tuple, list)) else [further]
    for layers in lists:
        if not isinstance(layers, (tuple, list)) or not all(isinstance(one, keras.layers.Layer) for one in layers):
            raise ValueError(
                "`further` must be a sequence of lists of Keras layers, one list per view. "
                f"Received: further={further!r}. Put the layers of each view into a separate list."
            )
    return [list(layers) for layers in lists]


def _serialized(layers):
    return [keras.saving.serialize_keras_object(layer) for layer in layers]


def _deserialized(configs):
    return [keras.saving.deserialize_keras_object(config) for config in configs]


def _numbers_per_image(layers):
    return sum(layer.numbers_per_image for layer in layers if isinstance(layer, augmentations.RandomTransform))
