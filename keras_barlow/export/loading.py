"""An encoder back in Keras, from whatever a run left."""

import pathlib

import keras
import tensorflow as tf


def load_encoder(path):
    """An encoder as a `keras.Model` from images on 0..255 to features.

    Args:
        path: Folder of a run with its `model.keras`, a `.keras` file, or the folder of a SavedModel of `save_encoder`,
            which Keras can use and cannot train.

    Returns:
        A `keras.Model`; of a `BarlowTwins` model its encoder.

    Raises:
        ValueError: If there is nothing of the kind.

    Example:

    >>> import tempfile, keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> load_encoder(kb.export.save_encoder(encoder, tempfile.mkdtemp())).output_shape
    (None, 8)
    """
    path = pathlib.Path(path)
    if (path / "model.keras").is_file():
        path = path / "model.keras"
    if path.suffix == ".keras" and path.is_file():
        model = keras.models.load_model(path)
        return getattr(model, "encoder", model)
    if not (path / "saved_model.pb").is_file():
        raise ValueError(
            "An encoder is a run's folder with its model.keras, a .keras file, or the folder of a SavedModel. "
            f"Received: {path}, which is none of them."
        )
    missing = [name for name in ("variables.index", "variables.data-00000-of-00001") if not _holds(path, name)]
    if missing:
        raise ValueError(
            f"A SavedModel must be whole. Received: {path} without variables/{missing[0]}. Copy the folder again, with "
            "its folder variables/."
        )
    layer = _Loaded(tf.saved_model.load(str(path)), name="saved_encoder")
    images = keras.Input(layer.image_shape, name="images")
    return keras.Model(images, layer(images), name="encoder")


def _holds(path, name):
    return (path / "variables" / name).is_file()


class _Loaded(keras.layers.Layer):
    """A SavedModel of `save_encoder` on images of 0..255, in inference mode."""

    def __init__(self, module, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self._module = module
        function = module.__call__.concrete_functions[0]
        taken = function.structured_input_signature[0][0]
        self.image_shape = tuple(taken.shape[1:])
        self._on_255 = taken.dtype == tf.uint8
        self._features = function.output_shapes[-1]
        self.built = True

    @property
    def frozen_weights(self):
        """Arrays that Keras does not count among the weights of this layer, in the order of the encoder's."""
        return [variable.numpy() for variable in getattr(self._module, "variables", ())]

    def call(self, images):
        if self._on_255:
            return self._module(tf.cast(images, tf.uint8), training=False)
        return self._module(tf.cast(images, tf.float32) / 255.0, training=False)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._features)
