"""Export to a reusable SavedModel, for TF Hub, `tf.saved_model.load`, Keras and TensorFlow Serving."""

import contextlib
import logging
import pathlib
import shutil
import sys

import keras
import tensorflow as tf

from keras_barlow.encoders import stage_outputs


def save(encoder, path, input_dtype="float32", feature_maps=False, classifier=None, check_range=True):
    """Writes an encoder as a SavedModel (see `save_encoder`).

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        path: Folder to write.
        input_dtype: `"float32"` for images in [0, 1], `"uint8"` for images on 0..255.
        feature_maps: Whether to add a signature for the feature maps after each stage.
        classifier: `Classifier`, or None.
        check_range: Whether the SavedModel warns once, on stderr, about float images that look like 0..255. XLA cannot
            compile this check.
    """
    shape = (None, *encoder.input_shape[1:])
    images = tf.TensorSpec(shape, input_dtype, name="images")
    # The property `variables` of a tf.Module is not saved, but an attribute of a plain trackable is.
    module = tf.train.Checkpoint(encoder=encoder)
    rescale = _cast if input_dtype == "uint8" else _Rescale(check_range)
    if isinstance(rescale, _Rescale):
        module.warned = rescale.warned

    @tf.function
    def features(images, training=False):
        return tf.cast(encoder(rescale(images), training=training), tf.float32)

    # `training` is a Python boolean, so each value needs its own trace.
    for training in (False, True):
        features.get_concrete_function(images, training=training)

    @tf.function(input_signature=[images])
    def vector(images):
        return {"default": features(images)}

    module.__call__ = features
    signatures = {"serving_default": vector, "image_feature_vector": vector}
    if feature_maps:
        staged = keras.Model(encoder.input, [*stage_outputs(encoder), encoder.output])

        @tf.function(input_signature=[images])
        def maps(images):
            *stages, pooled = (tf.cast(output, tf.float32) for output in staged(rescale(images), training=False))
            return {"default": pooled, **{f"feature{number}": stage for number, stage in enumerate(stages, start=1)}}

        module.feature_maps = maps
        signatures["image_feature_maps"] = maps
    if classifier is not None:

        @tf.function(input_signature=[images])
        def classify(images):
            return {"default": classifier(features(images))}

        module.classifier = classifier
        module.classify = classify
        module.class_names = tf.Variable(list(classifier.class_names), trainable=False, name="class_names")
        signatures["image_classification"] = classify
    module.variables = [variable.value for variable in encoder.variables]
    module.trainable_variables = [variable.value for variable in encoder.trainable_variables]
    module.regularization_losses = [
        _penalty(variable) for variable in encoder.trainable_variables if variable.regularizer is not None
    ]
    # Debug information would contain source paths of this machine.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    with without_progress_logs():
        tf.saved_model.save(module, str(path), signatures=signatures, options=options)
    shutil.rmtree(pathlib.Path(path) / "debug", ignore_errors=True)


# TensorFlow modules that log progress: names of captured variables, durations, and the temporary path.
_PROGRESS = {"signature_serialization", "functional_saver", "builder_impl", "fingerprinting_utils"}


@contextlib.contextmanager
def without_progress_logs():
    """Suppresses progress messages of `tf.saved_model.save`, but not warnings and errors."""

    def is_kept(record):
        return record.levelno > logging.INFO or record.module not in _PROGRESS

    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    for logger in loggers:
        logger.addFilter(is_kept)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_kept)


def _cast(images):
    return tf.cast(images, tf.float32)


class _Rescale:
    """Rescales images from [0, 1] to 0..255."""

    def __init__(self, check):
        self.check = check
        # Any replica may set it.
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.warned = tf.Variable(False, trainable=False, aggregation=first, name="warned")

    def __call__(self, images):
        if self.check:
            highest = tf.reduce_max(images)
            warns = tf.logical_and(highest > 2.0, tf.logical_not(self.warned))
            tf.cond(warns, lambda: self._warn(highest), lambda: tf.constant(False))
        return images * 255.0

    def _warn(self, highest):
        tf.print(
            "WARNING: this encoder expects images in [0, 1]. Received: values up to",
            highest,
            "which look like 0 to 255. Divide them by 255. (Shown once.)",
            output_stream=sys.stderr,
        )
        self.warned.assign(True)
        return tf.constant(True)


def _penalty(variable):
    return tf.function(lambda: variable.regularizer(variable.value), input_signature=[])
