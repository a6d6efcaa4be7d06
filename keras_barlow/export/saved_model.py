"""The encoder as a reusable SavedModel, for `hub.load`, `tf.saved_model.load`, Keras and TensorFlow Serving."""

import contextlib
import logging
import pathlib
import shutil
import sys

import keras
import tensorflow as tf

from keras_barlow.encoders import stage_outputs


def save(encoder, path, input_dtype="float32", feature_maps=False, classifier=None, check_range=True):
    """Writes the SavedModel; see `save_encoder`.

    Args:
        encoder: Built `keras.Model` from images on 0..255 to features.
        path: Folder to write.
        input_dtype: `"float32"` for images in [0, 1], `"uint8"` for images on 0..255.
        feature_maps: Whether to add the maps after each stage.
        classifier: `Classifier`, or None.
        check_range: Whether float images that look like 0..255 are reported on stderr, once. The report cannot be
            compiled by XLA.
    """
    shape = (None, *encoder.input_shape[1:])
    images = tf.TensorSpec(shape, input_dtype, name="images")
    # tf.Module has a property named `variables` that is not saved; a bare trackable takes it as an attribute.
    module = tf.train.Checkpoint(encoder=encoder)
    ready = _as_is if input_dtype == "uint8" else _Scaled(check_range)
    if isinstance(ready, _Scaled):
        module.said = ready.said

    @tf.function
    def features(images, training=False):
        return tf.cast(encoder(ready(images), training=training), tf.float32)

    # `training` is a Python boolean in the interface, so there is one trace for each.
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
            *stages, pooled = (tf.cast(one, tf.float32) for one in staged(ready(images), training=False))
            return {"default": pooled, **{f"feature{number}": one for number, one in enumerate(stages, start=1)}}

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
    # Debug information would hold the paths of this machine's source files.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    with without_progress_logs():
        tf.saved_model.save(module, str(path), signatures=signatures, options=options)
    shutil.rmtree(pathlib.Path(path) / "debug", ignore_errors=True)


# What TensorFlow logs while it writes: the names it gives to captured variables, durations, and a path that is renamed.
_PROGRESS = {"signature_serialization", "functional_saver", "builder_impl", "fingerprinting_utils"}


@contextlib.contextmanager
def without_progress_logs():
    """Drops the lines about the progress of `tf.saved_model.save`; warnings and errors stay."""

    def stays(record):
        return record.levelno > logging.INFO or record.module not in _PROGRESS

    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    for logger in loggers:
        logger.addFilter(stays)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(stays)


def _as_is(images):
    return tf.cast(images, tf.float32)


class _Scaled:
    """Images in [0, 1] to 0..255."""

    def __init__(self, check):
        self.check = check
        # Whichever replica says it.
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.said = tf.Variable(False, trainable=False, aggregation=once, name="said")

    def __call__(self, images):
        if self.check:
            highest = tf.reduce_max(images)
            wrong = tf.logical_and(highest > 2.0, tf.logical_not(self.said))
            tf.cond(wrong, lambda: self._say(highest), lambda: tf.constant(False))
        return images * 255.0

    def _say(self, highest):
        tf.print(
            "WARNING: this encoder expects images in [0, 1]. Received: values up to",
            highest,
            "which look like 0 to 255. Divide them by 255. (Said once.)",
            output_stream=sys.stderr,
        )
        self.said.assign(True)
        return tf.constant(True)


def _penalty(variable):
    return tf.function(lambda: variable.regularizer(variable.value), input_signature=[])
