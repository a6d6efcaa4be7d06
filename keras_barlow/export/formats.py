"""`save_encoder`: export of the encoder to a SavedModel, ONNX or LiteRT."""

import contextlib
import functools
import importlib.util
import tempfile
import warnings

import keras
import tensorflow as tf

from keras_barlow import keras_internals, networks
from keras_barlow.export import saved_model
from keras_barlow.export.card import checked_fields, model_card
from keras_barlow.export.classifier import check_classifier
from keras_barlow.export.writing import check_folder, local_path, whole_file, whole_folder

FORMATS = ("saved_model", "onnx", "litert")
_HALF = ("bfloat16", "float16")
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


def save_encoder(
    model,
    path,
    format="saved_model",
    input_dtype="float32",
    feature_maps=False,
    classifier=None,
    check_range=True,
    card=None,
):
    """Exports the encoder in a format that can be loaded without this library.

    Inputs are float32 RGB images in [0, 1], or uint8 images with `input_dtype="uint8"`. Outputs are float32 features
    `(batch, features)`. Rescaling and standardization are built in. The batch size is free.

    A SavedModel is a folder with the reusable interface of TF Hub. The loaded object is called on images, accepts
    `training=` as a Python boolean, and has `variables`, `trainable_variables` and `regularization_losses`, so it can
    be fine-tuned. Each signature takes `images` and returns `default`:

    | signature | outputs |
    |---|---|
    | `serving_default`, `image_feature_vector` | the features |
    | `image_feature_maps`, with `feature_maps=True` | the features, and `feature1`, `feature2`, ... after each stage |
    | `image_classification`, with a `classifier` | probabilities of the classes in `class_names` |

    The latter two are also methods of the loaded object, `feature_maps(images)` and `classify(images)`.

    The export is written to a hidden folder next to `path` and renamed when it is complete. After an error, there is no
    partial export, and an earlier export is intact. Only an earlier export is ever replaced. The export contains no
    source paths of this machine.

    Args:
        model: `BarlowTwins` model, or its encoder: a built `keras.Model` from images on 0..255 to features.
        path: For `"saved_model"`, a folder that is new, empty or holds an earlier export. For the other formats, a
            file that ends with `.onnx` or `.tflite`. `~` is expanded.
        format: `"saved_model"`, `"onnx"` (needs onnx and tf2onnx) or `"litert"`. The latter two are in float32 and
            return only the features.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether a SavedModel also returns the maps after each stage of an encoder of `encoders`.
        classifier: Classifier from `linear_head` or `knn_head` to add to a SavedModel, or None.
        check_range: Whether a SavedModel for images in [0, 1] warns once, on stderr, about images that look like
            0..255. XLA cannot compile this check: use False if the export is to be compiled, as for TPUs.
        card: Dictionary of optional fields for the model card, `README.md` in the folder of a SavedModel: `method`,
            `recipe`, `data`, `metrics` and `license` (see `card.model_card`).

    Returns:
        `path`, a string.

    Raises:
        ValueError: If the model is not a built encoder, the format, dtype or file suffix is unknown, the card has an
            unsupported field, the classifier does not fit the encoder, or `path` holds other files.
        ImportError: If a package that the format needs is not installed.

    Example:

    >>> import tempfile, tensorflow as tf, keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> path = save_encoder(encoder, tempfile.mkdtemp(), feature_maps=True)
    >>> loaded = tf.saved_model.load(path)
    >>> loaded(tf.zeros((2, 16, 16, 3))).shape, sorted(loaded.feature_maps(tf.zeros((2, 16, 16, 3))))
    (TensorShape([2, 8]), ['default', 'feature1', 'feature2'])

    References:
        https://www.tensorflow.org/hub/reusable_saved_models,
        https://www.tensorflow.org/hub/common_signatures/images
    """
    encoder = networks.checked_encoder(getattr(model, "encoder", model), "model")
    if format not in FORMATS or input_dtype not in ("float32", "uint8"):
        raise ValueError(
            f"`format` must be one of {FORMATS}, and `input_dtype` 'float32' or 'uint8'. "
            f"Received: format={format!r}, input_dtype={input_dtype!r}."
        )
    card = checked_fields(card)
    path = local_path(path)
    if format == "saved_model":
        check_classifier(classifier, encoder.output_shape[-1])
        if model is not encoder and type(model).__name__ != "BarlowTwins":
            card = {"method": type(model).__name__, **card}
        text = model_card(encoder, input_dtype, feature_maps, classifier, **card)
        check_folder(path)
        with whole_folder(path) as folder:
            saved_model.save(encoder, folder, input_dtype, feature_maps, classifier, check_range)
            (folder / "README.md").write_bytes(text.encode())
        return str(path)
    if feature_maps or classifier is not None or card:
        raise ValueError(
            f"Feature maps, a classifier and a model card are for a SavedModel. Received: format={format!r} with them. "
            "Use format='saved_model', or drop them."
        )
    if path.suffix != _SUFFIXES[format]:
        raise ValueError(
            f"The file must end with {_SUFFIXES[format]} for {format!r}. Received: path={str(path)!r}. Rename it."
        )
    _check_installed(format)
    with whole_file(path) as file:
        _convert(encoder, file, format, input_dtype)
    return str(path)


def _convert(encoder, file, format, input_dtype):
    """Writes an ONNX or LiteRT file."""
    _check_float32_weights(encoder, format)
    images = keras.Input(encoder.input_shape[1:], dtype=input_dtype, name="images")
    try:
        with _in_float32(encoder), warnings.catch_warnings():
            # Keras uses names that NumPy has removed.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            whole = keras.Model(images, encoder(_on_255(images)), name="encoder")
            if format == "onnx":
                # Keras exports only models that have been called.
                whole(images)
                whole.export(str(file), format="onnx", verbose=False)
            else:
                file.write_bytes(_litert(whole))
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"Every layer of the encoder must be convertible to {format!r}. Received: model={encoder.name!r}; the "
            f"converter stopped: {str(error)[:500]}. Export a SavedModel, which supports all layers."
        ) from error


def _litert(whole):
    """Returns the bytes of a LiteRT file whose signature takes `images` and returns `output_0`.

    Does the same as `keras.Model.export(format="litert")` of Keras 3.12, for older versions too.
    """
    images = tf.TensorSpec(whole.inputs[0].shape, whole.inputs[0].dtype, name="images")
    archive = keras.export.ExportArchive()
    archive.track(whole)
    archive.add_endpoint("serve", functools.partial(whole.__call__, training=False), input_signature=[images])
    with saved_model.without_progress_logs(), tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.experimental_enable_resource_variables = True
        return converter.convert()


def _on_255(images):
    return keras.ops.cast(images, "float32") * (1.0 if images.dtype == "uint8" else 255.0)


@contextlib.contextmanager
def _in_float32(encoder):
    """Disables mixed precision, which the other formats lack, in the encoder and all nested models.

    The layers are changed in place and restored, because layers of the user may not be serializable for a copy.
    """
    layers = [layer for layer in keras_internals.flat_layers(encoder) if layer.compute_dtype in _HALF]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def _check_float32_weights(encoder, format):
    dtypes = sorted({variable.dtype for variable in encoder.variables} & set(_HALF))
    if dtypes:
        raise ValueError(
            f"{format!r} needs weights in float32. Received: model={encoder.name!r} with weights in {dtypes[0]}. "
            "Rebuild it under the policy 'float32' or 'mixed_bfloat16', copy the weights with "
            "set_weights([weight.astype('float32') for weight in encoder.get_weights()]) and export the copy."
        )


def _check_installed(format):
    missing = [name for name in ("onnx", "tf2onnx") if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs onnx and tf2onnx. Install them with pip install {' '.join(missing)}.")
