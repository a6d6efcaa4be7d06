"""The base class of all random transforms: draws from the table of random numbers and applies the result."""

import numbers

import keras
from keras import ops

from keras_barlow import engine, randomness
from keras_barlow.augmentations.fusion import to_images, to_planes


def check_probability(probability):
    """Checks that a probability is in [0, 1] and converts it to a float."""
    if not isinstance(probability, numbers.Real) or not 0 <= probability <= 1:
        raise ValueError(f"`probability` must be in [0, 1]. Received: probability={probability}. Use such a number.")
    return float(probability)


def uniform(number, low, high):
    """Maps uniform random numbers in [0, 1) to [low, high)."""
    return low + number * (high - low)


def per_image(values):
    """Reshapes `(batch,)` to `(batch, 1, 1, 1)`."""
    return ops.reshape(values, (-1, 1, 1, 1))


class RandomTransform(keras.layers.Layer):
    """Base class of random, batched, serializable image transforms, which draw new parameters for every image.

    A subclass sets `numbers_per_image` and implements `transformation_from(numbers, image_shape)` and
    `apply(planes, transformation)`, which must leave images unchanged if they are not selected.

    Args:
        probability: Probability of transforming an image, in [0, 1].
        seed: Integer seed of the layer's own generator, or None for a random one. Inside `views.Views` the random
            numbers come from the table of the view instead.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: uint8 or float tensor `(batch, height, width, channels)` on 0..255, or one image of rank 3.
        training: Python boolean. False returns the images unchanged.

    Returns:
        Float32 tensor on 0..255, also under a mixed dtype policy.
    """

    numbers_per_image = 0

    def __init__(self, probability=1.0, seed=None, **kwargs):
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.probability = check_probability(probability)
        self.seed = seed
        self._seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images, training=True):
        images = ops.convert_to_tensor(images)
        if len(images.shape) == 3:
            return ops.squeeze(self.call(images[None], training=training), axis=0)
        if len(images.shape) != 4:
            raise ValueError(
                "Images must have the shape (batch, height, width, channels), or (height, width, channels) for one "
                f"image. Received: images.shape={tuple(images.shape)}. Add or remove axes."
            )
        transformation = self.get_random_transformation(images, training=training)
        return self.transform_images(images, transformation, training=training)

    def get_random_transformation(self, data, training=True, seed=None):
        """Draws the parameters of one transformation per image.

        Args:
            data: Images `(batch, height, width, channels)`.
            training: Python boolean; False draws nothing and returns None.
            seed: Integer, key from `randomness.view_key`, or None to use the layer's own generator.

        Returns:
            A dictionary of tensors with `batch` rows each, or None.
        """
        if not training or self.probability == 0:
            return None
        key = self._seed_generator.next() if seed is None else seed
        key = engine.key_of(0, key) if isinstance(key, int) else engine.as_key(key)
        numbers = randomness.uniform_table(key, ops.shape(data)[0], self.numbers_per_image)
        return self.transformation_from(numbers, data.shape)

    def transform_images(self, images, transformation, training=True):
        """Applies a transformation from `get_random_transformation`.

        Args:
            images: Images `(batch, height, width, channels)` on 0..255.
            transformation: Dictionary from `get_random_transformation`, or None.
            training: Python boolean; False returns the images unchanged.

        Returns:
            Float32 images on 0..255.
        """
        return to_images(self.transform_planes(to_planes(images), transformation, training=training))

    def transform_planes(self, planes, transformation, training=True):
        """Applies a transformation to planes, the layout in which transforms are chained.

        Args:
            planes: uint8 or float tensor `(batch, height, channels, width)` on 0..255.
            transformation: Dictionary from `get_random_transformation`, or None.
            training: Python boolean; False returns the planes unchanged.

        Returns:
            Float32 planes on 0..255, or `planes` itself if nothing changes.
        """
        if not training or transformation is None or self.probability == 0:
            return planes
        return self.apply(planes, transformation)

    def transformation_from(self, numbers, image_shape):
        """Maps uniform random numbers to the parameters of the transformation.

        Args:
            numbers: Float tensor `(batch, numbers_per_image)` in [0, 1). The last column selects the images that are
                transformed.
            image_shape: Shape of the images, `(batch, height, width, channels)`.

        Returns:
            A dictionary of tensors with `batch` rows each, including the booleans `chosen`.
        """
        return {"chosen": numbers[:, -1] < self.probability}

    def apply(self, planes, transformation):
        """Transforms the selected images.

        Args:
            planes: uint8 or float tensor `(batch, height, channels, width)` on 0..255.
            transformation: Dictionary from `transformation_from`.

        Returns:
            Float32 planes `(batch, height, channels, width)` on 0..255.
        """
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "probability": self.probability, "seed": self.seed}
