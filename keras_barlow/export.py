"""The encoder as a reusable SavedModel, for `hub.load` and `tf.saved_model.load`, and back into Keras."""

import pathlib

import keras
import tensorflow as tf


def save_encoder(model, path):
    """Writes the encoder as a SavedModel with the reusable interface of TF Hub.

    The loaded object maps float32 RGB images in [0, 1], `(batch, height, width, channels)` with a free batch
    size, to float32 features `(batch, features)`. It takes `training=` as a Python boolean, and has
    `variables`, `trainable_variables` and `regularization_losses`, so it can be fine-tuned. Everything else,
    the scale and the standardisation included, is inside; this library is not needed to load it.

    Args:
        model: A `BarlowTwins` model, or an encoder by itself: a built `keras.Model` from images on 0..255.
        path: Folder to write.

    Returns:
        `path`.

    Example:

    >>> import tempfile, keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> path = save_encoder(encoder, tempfile.mkdtemp())
    >>> tf.saved_model.load(path)(tf.zeros((2, 16, 16, 3))).shape
    TensorShape([2, 8])

    References:
        https://www.tensorflow.org/hub/reusable_saved_models
    """
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, keras.Model) or not encoder.built:
        raise ValueError(
            f"`model` must be a BarlowTwins model or a built keras.Model. Received: model={model!r}. "
            "Call the encoder on one batch of images first."
        )
    path = str(path)
    tf.saved_model.save(_reusable(encoder), path)
    return path


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
    >>> load_encoder(save_encoder(encoder, tempfile.mkdtemp())).output_shape
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
    layer = _Loaded(tf.saved_model.load(str(path)), name="saved_encoder")
    images = keras.Input(layer.image_shape, name="images")
    return keras.Model(images, layer(images), name="encoder")


class _Loaded(keras.layers.Layer):
    """A SavedModel of `save_encoder` on images of 0..255, in inference mode."""

    def __init__(self, module, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self._module = module
        function = module.__call__.concrete_functions[0]
        self.image_shape = tuple(function.structured_input_signature[0][0].shape[1:])
        self._features = function.output_shapes[-1]
        self.built = True

    def call(self, images):
        return self._module(tf.cast(images, tf.float32) / 255.0, training=False)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._features)


def _reusable(encoder):
    """A trackable object with the attributes that the reusable interface names."""
    images = tf.TensorSpec((None, *encoder.input_shape[1:]), tf.float32, name="images")

    @tf.function
    def features(images, training=False):
        return tf.cast(encoder(images * 255.0, training=training), tf.float32)

    # `training` is a Python boolean in the interface, so there is one trace for each.
    for training in (False, True):
        features.get_concrete_function(images, training=training)
    # tf.Module has a property named `variables` that is not saved; a bare trackable takes it as an attribute.
    module = tf.train.Checkpoint(encoder=encoder)
    module.__call__ = features
    module.variables = [variable.value for variable in encoder.variables]
    module.trainable_variables = [variable.value for variable in encoder.trainable_variables]
    module.regularization_losses = [
        _penalty(variable) for variable in encoder.trainable_variables if variable.regularizer is not None
    ]
    return module


def _penalty(variable):
    return tf.function(lambda: variable.regularizer(variable.value), input_signature=[])
