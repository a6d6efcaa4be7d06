"""The encoder as a reusable SavedModel, for `hub.load` and `tf.saved_model.load`."""

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
