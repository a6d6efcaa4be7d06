"""Loading of encoders into Keras, from a run, a `.keras` file or a SavedModel."""

import os
import pathlib

import keras
import tensorflow as tf

from keras_barlow import image_scale, networks

_FORMS = "a folder with model.keras, a .keras file, or the folder of a SavedModel"


def load_encoder(path):
    """Loads an encoder as a `keras.Model` from images on 0..255 to features.

    A SavedModel runs the TensorFlow operations that it contains, and some of them read and write files. Load only
    SavedModels from people you trust.

    Args:
        path: Folder of a run with its `model.keras`, a `.keras` file, or the folder of a SavedModel. An encoder from a
            SavedModel cannot be trained. SavedModels from other sources, such as TF Hub, must be callable on one batch
            of images, uint8 or float32 in [0, 1], and return features of rank 2. `~` is expanded.

    Returns:
        A `keras.Model`. For a saved `BarlowTwins` model, it is the encoder of that model.

    Raises:
        ValueError: If there is no such file, it cannot be read, or it is not an encoder.

    Example:

    >>> import tempfile, keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> load_encoder(kb.export.save_encoder(encoder, tempfile.mkdtemp())).output_shape
    (None, 8)
    """
    path = pathlib.Path(os.path.expanduser(os.fsdecode(path)))
    if (path / "model.keras").is_file():
        path = path / "model.keras"
    if path.suffix == ".keras" and path.is_file():
        return _from_keras(path)
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"`path` must be {_FORMS}. Received: {path}, which is none of them. Check the path.")
    missing = [name for name in ("variables.index", "variables.data-00000-of-00001") if not _holds(path, name)]
    if missing:
        raise ValueError(
            f"A SavedModel must be complete. Received: {path} without variables/{missing[0]}. Copy the folder again, "
            "including its folder variables/."
        )
    try:
        module = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"A SavedModel must be readable. Received: {path}, which failed with {_first_line(error)}. Copy it again."
        ) from error
    layer = _Loaded(module, path, name="saved_encoder")
    images = keras.Input(layer.image_shape, name="images")
    return image_scale.with_scale_check_in_predict(keras.Model(images, layer(images), name="encoder"))


def _from_keras(path):
    try:
        model = keras.models.load_model(path)
    except Exception as error:
        raise ValueError(
            f"`path` must be {_FORMS}. Received: {path}, which Keras cannot load: {_first_line(error)}. Copy the file "
            "again, or first import the module that registers its custom layers."
        ) from error
    return image_scale.with_scale_check_in_predict(
        networks.checked_encoder(getattr(model, "encoder", model), str(path))
    )


def _first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _holds(path, name):
    files = path / "variables"
    # Other programs may split the values into more files.
    return (files / name).is_file() or (".data-" in name and any(files.glob("variables.data-*-of-*")))


class _Loaded(keras.layers.Layer):
    """Applies a SavedModel to images on 0..255, in inference mode."""

    def __init__(self, module, path, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self._module = module
        images, self._features = _signature(module, path)
        self.image_shape = tuple(images.shape[1:])
        self._on_255 = images.dtype == tf.uint8
        self.built = True

    @property
    def frozen_weights(self):
        """Weights of the SavedModel as arrays, in the order of the encoder. Keras does not list them as weights."""
        return [variable.numpy() for variable in getattr(self._module, "variables", ())]

    def call(self, images):
        image_scale.warn_about_scale(images)
        return _features_of(self._module, images, self._on_255)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._features)


def _features_of(module, images, on_255):
    if on_255:
        return module(tf.cast(images, tf.uint8), training=False)
    return module(tf.cast(images, tf.float32) / 255.0, training=False)


def _accepts_images(spec):
    is_batch = spec.shape.rank == 4 and spec.shape[0] is None and spec.shape[3] is not None
    return is_batch and spec.dtype in (tf.uint8, tf.float32)


def _signature(module, path):
    """Returns the input of the SavedModel, as a `tf.TensorSpec`, and its number of features."""
    functions = module.__call__.concrete_functions if callable(module) else ()
    description = "no function that accepts images"
    for function in functions:
        positional, named = function.structured_input_signature
        specs = [spec for spec in tf.nest.flatten((positional, named)) if isinstance(spec, tf.TensorSpec)]
        description = f"a function of {', '.join(f'{spec.dtype.name} {spec.shape}' for spec in specs) or 'no tensors'}"
        if len(specs) == 1 and _accepts_images(specs[0]):
            break
    else:
        names = ", ".join(sorted(getattr(module, "signatures", ()))) or "none"
        raise ValueError(
            "The SavedModel of an encoder must be callable on one batch of images, (batch, height, width, channels) in "
            f"uint8 or float32, of any batch size. Received: {path}, with {description}; its signatures: {names}. "
            "Load it with tf.saved_model.load, or write it with export.save_encoder."
        )
    images = specs[0]
    try:
        traced = tf.function(lambda batch: _features_of(module, batch, images.dtype == tf.uint8))
        outputs = traced.get_concrete_function(tf.TensorSpec((None, *images.shape[1:]), tf.float32)).structured_outputs
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ValueError(
            "The SavedModel of an encoder must accept training=False. "
            f"Received: {path}, which failed with {_first_line(error)}. Write it with export.save_encoder."
        ) from error
    if not isinstance(outputs, tf.TensorSpec | tf.Tensor) or outputs.shape.rank != 2 or outputs.shape[1] is None:
        raise ValueError(
            "The SavedModel of an encoder must return features of shape (batch, features). "
            f"Received: {path}, which returns {outputs}. Write it with export.save_encoder."
        )
    return images, outputs.shape[1]
