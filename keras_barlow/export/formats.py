"""`save_encoder`: the encoder as a SavedModel, an ONNX or a LiteRT file."""

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
    """Writes the encoder for others: this library is not needed to load it.

    Images go in as float32 RGB in [0, 1], or with `input_dtype="uint8"` as they are in a file; features come out as
    float32 `(batch, features)`. Scale and standardisation are inside. The batch size is free.

    A SavedModel is a folder with the reusable interface of TF Hub: the loaded object is called on images, takes
    `training=` as a Python boolean, and has `variables`, `trainable_variables` and `regularization_losses`, so it can
    be fine-tuned. Its signatures, of which each takes `images` and returns `default`:

    | signature | returns |
    |---|---|
    | `serving_default`, `image_feature_vector` | the features |
    | `image_feature_maps`, with `feature_maps=True` | the features, and `feature1`, `feature2`, ... after each stage |
    | `image_classification`, with a `classifier` | the probabilities of its classes, whose names are in `class_names` |

    The latter two are also methods of the loaded object, `feature_maps(images)` and `classify(images)`.

    The export is written to a hidden folder beside `path` and renamed when it is complete, so that an error leaves no
    half of one, and an earlier export as it was. It replaces an earlier export and nothing else. Source paths of this
    machine are not in it.

    Args:
        model: A `BarlowTwins` model, or an encoder by itself: a built `keras.Model` from images on 0..255.
        path: Folder to write for `"saved_model"`, new, empty or an earlier export; a `.onnx` or `.tflite` file for the
            others. `~` is the home folder.
        format: `"saved_model"`, `"onnx"` (needs onnx and tf2onnx) or `"litert"`; the latter two in float32, features
            only.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether a SavedModel also gives the maps after each stage of an encoder of `encoders`.
        classifier: `linear_head` or `knn_head` to go behind the features in a SavedModel; or None.
        check_range: Whether a SavedModel for images in [0, 1] says so, once and on stderr, when it is given images that
            look like 0..255. XLA cannot compile that: False where the export is to be compiled, as for TPUs.
        card: Dictionary of what the model card, `README.md` in the folder of a SavedModel, is to say: `recipe`, `data`,
            `metrics`, `license`, each optional; see `card.model_card`.

    Returns:
        `path`, a string.

    Raises:
        ValueError: If the model is not built or is no encoder, the format, the input or the file's ending is another,
            the card has fields that it cannot show, the classifier is for other features, or `path` holds other files.
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
        text = model_card(encoder, input_dtype, feature_maps, classifier, **card)
        check_folder(path)
        with whole_folder(path) as folder:
            saved_model.save(encoder, folder, input_dtype, feature_maps, classifier, check_range)
            (folder / "README.md").write_bytes(text.encode())
        return str(path)
    if feature_maps or classifier is not None or card:
        raise ValueError(
            f"Feature maps, a classifier and a model card are for a SavedModel. Received: format={format!r} with them."
        )
    if path.suffix != _SUFFIXES[format]:
        raise ValueError(f"The file must end with {_SUFFIXES[format]} for {format!r}. Received: path={str(path)!r}.")
    _check_installed(format)
    with whole_file(path) as file:
        _convert(encoder, file, format, input_dtype)
    return str(path)


def _convert(encoder, file, format, input_dtype):
    """Writes the ONNX or LiteRT file."""
    _check_float32_weights(encoder, format)
    images = keras.Input(encoder.input_shape[1:], dtype=input_dtype, name="images")
    try:
        with _in_float32(encoder), warnings.catch_warnings():
            # Keras asks NumPy for names that it used to have.
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            whole = keras.Model(images, encoder(_on_255(images)), name="encoder")
            if format == "onnx":
                # Keras exports what has been called.
                whole(images)
                whole.export(str(file), format="onnx", verbose=False)
            else:
                file.write_bytes(_litert(whole))
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"Every layer of the encoder must have a form in {format!r}. Received: model={encoder.name!r}, at which "
            f"the converter stopped: {str(error)[:500]}. Export it as a SavedModel, which has them all."
        ) from error


def _litert(whole):
    """The bytes of a LiteRT file whose signature takes `images` and returns `output_0`.

    What `keras.Model.export(format="litert")` does since Keras 3.12, so that older ones have it too.
    """
    taken = tf.TensorSpec(whole.inputs[0].shape, whole.inputs[0].dtype, name="images")
    archive = keras.export.ExportArchive()
    archive.track(whole)
    archive.add_endpoint("serve", functools.partial(whole.__call__, training=False), input_signature=[taken])
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
    """Computes without mixed precision, which the other formats do not have, in nested models too."""
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
    stored = sorted({variable.dtype for variable in encoder.variables} & set(_HALF))
    if stored:
        raise ValueError(
            f"{format!r} needs weights in float32. Received: model={encoder.name!r} with weights in {stored[0]}. Build "
            "it again under the policy 'float32' or 'mixed_bfloat16', copy the weights with "
            "set_weights([weight.astype('float32') for weight in encoder.get_weights()]) and export the copy."
        )


def _check_installed(format):
    missing = [name for name in ("onnx", "tf2onnx") if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs onnx and tf2onnx. Install them with pip install {' '.join(missing)}.")
