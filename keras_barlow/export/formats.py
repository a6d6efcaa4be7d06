"""`save_encoder`: the encoder as a SavedModel, an ONNX or a LiteRT file."""

import importlib.util
import os
import pathlib
import warnings

import keras

from keras_barlow.export import saved_model
from keras_barlow.export.card import model_card

FORMATS = ("saved_model", "onnx", "litert")
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

    Args:
        model: A `BarlowTwins` model, or an encoder by itself: a built `keras.Model` from images on 0..255.
        path: Folder to write for `"saved_model"`; a `.onnx` or `.tflite` file for the others.
        format: `"saved_model"`, `"onnx"` (needs onnx and tf2onnx) or `"litert"`; the latter two by Keras' own
            exporters, in float32, features only.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether a SavedModel also gives the maps after each stage of an encoder of `encoders`.
        classifier: `linear_head` or `knn_head` to go behind the features in a SavedModel; or None.
        check_range: Whether a SavedModel for images in [0, 1] says so, once and on stderr, when it is given images that
            look like 0..255. XLA cannot compile that: False where the export is to be compiled, as for TPUs.
        card: Dictionary of what the model card, `README.md` in the folder, is to say: `recipe`, `data`, `metrics`,
            `licence`, each optional; see `model_card`.

    Returns:
        `path`.

    Raises:
        ValueError: If the model is not built, or the format, the input or the file's ending is another.
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
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, keras.Model) or not encoder.built:
        raise ValueError(
            f"`model` must be a BarlowTwins model or a built keras.Model. Received: model={model!r}. "
            "Call the encoder on one batch of images first."
        )
    if format not in FORMATS or input_dtype not in ("float32", "uint8"):
        raise ValueError(
            f"`format` must be one of {FORMATS}, and `input_dtype` 'float32' or 'uint8'. "
            f"Received: format={format!r}, input_dtype={input_dtype!r}."
        )
    unknown = sorted(set(card or {}) - {"recipe", "data", "metrics", "licence"})
    if unknown:
        raise ValueError(f"`card` may hold recipe, data, metrics and licence. Received: {unknown[0]!r}.")
    path = str(path)
    if format == "saved_model":
        saved_model.save(encoder, path, input_dtype, feature_maps, classifier, check_range)
        text = model_card(encoder, input_dtype, feature_maps, classifier, **(card or {}))
        (pathlib.Path(path) / "README.md").write_text(text)
        return path
    if feature_maps or classifier is not None:
        raise ValueError(f"Feature maps and a classifier are for a SavedModel. Received: format={format!r} with them.")
    if pathlib.Path(path).suffix != _SUFFIXES[format]:
        raise ValueError(f"The file must end with {_SUFFIXES[format]} for {format!r}. Received: path={path!r}.")
    _check_installed(format)
    images = keras.Input(encoder.input_shape[1:], dtype=input_dtype, name="images")
    whole = keras.Model(images, _in_float32(encoder)(_on_255(images)), name="encoder")
    # Keras exports what has been called.
    whole(keras.ops.zeros((1, *encoder.input_shape[1:]), input_dtype))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with warnings.catch_warnings():
        # Keras asks NumPy for names that it used to have.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        whole.export(path, format=format, verbose=False)
    return path


def _on_255(images):
    return keras.ops.cast(images, "float32") * (1.0 if images.dtype == "uint8" else 255.0)


def _in_float32(encoder):
    """The same encoder without mixed precision, which the other formats do not have."""
    if encoder.dtype_policy.name == "float32" and all(layer.dtype_policy.name == "float32" for layer in encoder.layers):
        return encoder

    def float32(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(encoder, clone_function=float32)
    copy.set_weights(encoder.get_weights())
    return copy


def _check_installed(format):
    missing = [name for name in ("onnx", "tf2onnx") if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs onnx and tf2onnx. Install them with pip install {' '.join(missing)}.")
