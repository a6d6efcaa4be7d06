"""The two view policies of the paper as data, over `augmentations`."""

import random

import keras
import tensorflow as tf
from keras import ops

from keras_barlow import augmentations, randomness


@keras.saving.register_keras_serializable(package="keras_barlow")
class Views(keras.layers.Layer):
    """Draws two random views of each image, by two lists of layers.

    This library's transforms draw from one table per `(seed, step, view)`, so that a step has the same views
    on any number of devices. Other layers (Keras' own, keras-cv's) are called as they are and draw from
    their own generators.

    Args:
        layers_a: Keras layers from images to images, applied in order, for view A.
        layers_b: The same for view B.
        seed: Integer, or None for a random one.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or one image of rank 3.
        training: Python boolean. False gives the images as they are, resized where the views are cropped.
        step: Integer or scalar integer tensor: which row of draws to take. None takes the next of the
            layer's own generator.

    Returns:
        The pair `(view_a, view_b)`, float32 on 0..255.

    Example:

    In a model: `BarlowTwins(encoder, projector, views=barlow_twins(32))`. In tf.data, where `enumerate` makes
    parallel workers reproducible:

    >>> import numpy as np, tensorflow as tf
    >>> views = barlow_twins(image_size=16, seed=0)
    >>> dataset = tf.data.Dataset.from_tensor_slices(np.zeros((8, 20, 20, 3), "uint8")).batch(4)
    >>> pairs = dataset.enumerate().map(lambda step, images: views(images, step=step))
    >>> [tuple(view.shape) for view in next(iter(pairs))]
    [(4, 16, 16, 3), (4, 16, 16, 3)]
    """

    def __init__(self, layers_a, layers_b, seed=None, **kwargs):
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.layers_a = list(layers_a)
        self.layers_b = list(layers_b)
        self.seed = random.randint(0, 2**31 - 1) if seed is None else int(seed)
        self._seed_generator = keras.random.SeedGenerator(self.seed)
        # A foreign layer may claim that XLA compiles it and be wrong (keras-cv's RandomCropAndResize is).
        self.supports_jit = all(isinstance(layer, augmentations.RandomTransform) for layer in self.transforms)
        self.built = True

    @property
    def transforms(self):
        """The layers of both views."""
        return self.layers_a + self.layers_b

    def call(self, images, training=True, step=None):
        images = ops.cast(images, "float32")
        if len(images.shape) == 3:
            views = self.call(images[None], training=training, step=step)
            return tuple(ops.squeeze(view, axis=0) for view in views)
        if len(images.shape) != 4:
            raise ValueError(
                "Views are drawn from images of the shape (batch, height, width, channels), or "
                f"(height, width, channels) for one. Received: images.shape={tuple(images.shape)}"
            )
        tables = self.draw(ops.shape(images)[0], step) if training else (None, None)
        return self.apply(images, tables, training=training)

    def draw(self, rows, step=None):
        """The random numbers of both views, which `apply` can use in portions.

        Args:
            rows: Number of images on this replica, an integer or a scalar integer tensor.
            step: As for the call.

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
        """The views of images whose random numbers are drawn.

        Args:
            images: uint8 or float tensor `(batch, height, width, channels)` on 0..255.
            tables: What `draw` returned for these images.
            training: Python boolean; False uses no table.

        Returns:
            The pair `(view_a, view_b)`, float32 on 0..255.
        """
        images = ops.cast(images, "float32")
        return tuple(
            self._view(images, layers, table, training)
            for layers, table in zip((self.layers_a, self.layers_b), tables, strict=True)
        )

    def _view(self, images, layers, table, training):
        start = 0
        for layer in layers:
            if not isinstance(layer, augmentations.RandomTransform):
                images = ops.cast(_call_foreign(layer, images, training), "float32")
                continue
            transformation = None
            if training:
                numbers = table[:, start : start + layer.numbers_per_image]
                transformation = layer.transformation_from(numbers, images.shape)
                start += layer.numbers_per_image
            images = layer.transform_images(images, transformation, training=training)
        return images

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


def _call_foreign(layer, images, training):
    # keras-cv branches on tensors in Python. Keras switches AutoGraph off in the training step; a function of its own
    # has it on.
    if tf.executing_eagerly():
        return layer(images, training=training)
    return tf.function(lambda x: layer(x, training=training))(images)


def policy(
    image_size,
    crop_scale=(0.08, 1.0),
    flip=0.5,
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_probability=0.8,
    grayscale=0.2,
    blur=0.0,
    solarization=0.0,
):
    """The paper's chain of transforms for one view.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        crop_scale: `(low, high)`: share of the area that a crop keeps.
        flip: Probability of mirroring.
        jitter: Strengths of brightness, contrast, saturation and hue.
        jitter_probability: Probability of colour jitter.
        grayscale: Probability of turning grey.
        blur: Probability of Gaussian blur, sigma 0.1 to 2.0 pixels.
        solarization: Probability of solarisation at 128.

    Returns:
        A list of layers in the order crop, flip, jitter, grayscale, blur, solarisation, without those that
        would never act.

    Example:

    >>> [layer.__class__.__name__ for layer in policy(32, blur=1.0)]  # doctest: +NORMALIZE_WHITESPACE
    ['RandomResizedCrop', 'RandomFlip', 'RandomColorJitter', 'RandomGrayscale', 'RandomGaussianBlur']
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    layers = [
        augmentations.RandomFlip(flip),
        augmentations.RandomColorJitter(*jitter, probability=jitter_probability),
        augmentations.RandomGrayscale(grayscale),
        augmentations.RandomGaussianBlur((0.1, 2.0), probability=blur),
        augmentations.RandomSolarization(128, probability=solarization),
    ]
    crop = augmentations.RandomResizedCrop(height, width, scale=crop_scale)
    return [crop, *(layer for layer in layers if layer.probability > 0)]


def barlow_twins(image_size, blur=(1.0, 0.1), solarization=(0.0, 0.2), seed=None, **shared):
    """The two asymmetric views of the paper.

    Args:
        image_size: Side of the views in pixels, or `(height, width)`.
        blur: Probability of Gaussian blur in view A and in view B.
        solarization: Probability of solarisation in view A and in view B.
        seed: See `Views`.
        **shared: Further arguments of `policy`, for both views.

    Returns:
        A `Views` layer.

    Example:

    >>> views = barlow_twins(image_size=32, crop_scale=(0.3, 1.0), seed=0)
    >>> len(views.layers_a), len(views.layers_b)
    (5, 6)

    References:
        Zbontar et al.: Barlow Twins, ICML 2021, section 3.1 and appendix A.
    """
    return Views(
        policy(image_size, blur=blur[0], solarization=solarization[0], **shared),
        policy(image_size, blur=blur[1], solarization=solarization[1], **shared),
        seed=seed,
    )
