"""The model card: training data, input format and usage of an exported encoder."""

import hashlib
import json
import numbers
import re
import warnings

import numpy as np

_UNKNOWN_LICENSE = "unknown"
_FIELDS = ("method", "recipe", "data", "metrics", "license")
_DEFAULT_METHOD = "Barlow Twins"
_REFERENCE = "Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230"
_STAMP = "<!-- keras_barlow wrote this text; sha256 {digest} -->\n"
_COLORS = {1: "grayscale", 3: "RGB", 4: "RGBA"}
# Words that YAML reads as a boolean or as null.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}


def model_card(
    encoder,
    input_dtype="float32",
    feature_maps=False,
    classifier=None,
    method=_DEFAULT_METHOD,
    recipe=None,
    data=None,
    metrics=None,
    license=None,
):
    """Returns the text of `README.md` for an export, with the metadata header of the Hugging Face hub.

    Args:
        encoder: `keras.Model` with `input_shape` and `output_shape`.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether the export has a `feature_maps` function.
        classifier: `Classifier` in the export, or None.
        method: Name of the method that trained the encoder, on one line.
        recipe: Training settings, as a dictionary or a string.
        data: Description of the training data, as a string.
        metrics: Dictionary from names to numbers, strings, lists of them, or nested dictionaries.
        license: License identifier on one line, such as `"apache-2.0"`.

    Returns:
        A string of Markdown. Its last line is a checksum, by which `save_encoder` recognizes an unmodified card.

    Raises:
        ValueError: If a field has an unsupported type.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> "float32, in [0, 1]" in model_card(encoder, data="160 photographs")
    True
    """
    height, width, channels = encoder.input_shape[1:]
    values = "float32, in [0, 1]" if input_dtype == "float32" else "uint8, 0 to 255"
    features = encoder.output_shape[-1]
    license, license_field = _checked_license(license)
    sides = f"{height or 'any height'}, {width or 'any width'}, {channels}"
    lines = [
        "---",
        f"license: {license_field}",
        "library_name: tf-keras",
        "pipeline_tag: image-feature-extraction",
        f"tags: [{_tag(method)}, self-supervised, feature-extraction]",
        "---",
        "",
        f"# {_line(encoder.name)}: an image encoder trained with {_line(method)}",
        "",
        "| | |",
        "|---|---|",
        f"| input | {_COLORS.get(channels, f'{channels} channels')}, `(batch, {sides})`, {values} |",
        f"| output | float32, `(batch, {features})` |",
        f"| parameters | {encoder.count_params():,} |",
        f"| trained on | {'not stated' if data is None else _line(data)} |",
        f"| license | {license} |",
        "",
        "Rescaling and standardization are built in.",
        "",
        "```python",
        "import tensorflow as tf",
        "",
        'encoder = tf.saved_model.load("FOLDER")  # or tensorflow_hub.load',
        *_code(height, width, channels, input_dtype, features),
    ]
    if feature_maps:
        lines.append('maps = encoder.feature_maps(images)  # "feature1", "feature2", ... and "default"')
    if classifier is not None:
        lines.append("probabilities = encoder.classify(images)  # one for each of encoder.class_names")
    lines.append("```")
    if classifier is not None:
        shown = ", ".join(map(_line, classifier.class_names[:20]))
        lines += ["", f"Classes: {shown}{', ...' if len(classifier.class_names) > 20 else ''}."]
    if metrics:
        lines += ["", "## Metrics", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in _flat("metrics", metrics)]
    if recipe:
        lines += ["", "## Recipe", ""]
        lines += (
            [recipe] if isinstance(recipe, str) else [f"- {name}: {value}" for name, value in _flat("recipe", recipe)]
        )
    if method == _DEFAULT_METHOD:
        lines += ["", _REFERENCE]
    return _stamped("\n".join(lines) + "\n")


def checked_fields(fields):
    """Returns the user's fields for the card under their current names.

    Args:
        fields: Dictionary with any of `method`, `recipe`, `data`, `metrics` and `license`; or None. The spelling
            `licence` of release 0.1 is accepted until release 0.3, with a warning.

    Returns:
        Dictionary of arguments of `model_card`.

    Raises:
        ValueError: If there is an unknown field, or both spellings are used.
    """
    fields = dict(fields or {})
    if "licence" in fields and "license" not in fields:
        warnings.warn(
            "The card field `licence` is now `license`. The old spelling will be removed in 0.3.",
            DeprecationWarning,
            stacklevel=3,
        )
        fields["license"] = fields.pop("licence")
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise ValueError(
            f"`card` may hold {', '.join(_FIELDS[:-1])} and {_FIELDS[-1]}. Received: {unknown[0]!r}. Remove it."
        )
    return fields


def _code(height, width, channels, input_dtype, features):
    """Returns lines of code that load an image and compute its features."""
    scaled = " / 255" if input_dtype == "float32" else ""
    if channels not in _COLORS:
        sides = f"{height or 64}, {width or 64}, {channels}"
        return [
            f'images = tf.zeros((1, {sides}), "{input_dtype}")  # your images',
            f"features = encoder(images)  # (1, {features})",
        ]
    image = f'tf.io.decode_image(tf.io.read_file("photo.jpg"), channels={channels})'
    if height and width:
        image = f"tf.image.resize({image}, ({height}, {width}))"
    return [
        f"image = {image}",
        f'images = tf.cast(image, "{input_dtype}")[None]{scaled}',
        f"features = encoder(images)  # (1, {features})",
    ]


def is_unchanged_card(content):
    """Returns whether the bytes of a README.md are those of an unmodified model card."""
    text, start, _ = content.decode("utf-8", "replace").rpartition(_STAMP.split("{")[0])
    return bool(start) and _stamped(text).encode() == content


def _stamped(text):
    # File names may contain bytes that are not valid UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text + _STAMP.format(digest=hashlib.sha256(text.encode()).hexdigest())


def _checked_license(license):
    """The license as text for the table, and as a YAML value."""
    if license is None:
        return "not stated", _UNKNOWN_LICENSE
    if not isinstance(license, str) or not license.strip() or not license.isprintable():
        raise ValueError(
            "`license` must be a license identifier on one line, such as 'apache-2.0'. "
            f"Received: license={license!r}. Put the text of a license into a separate file."
        )
    plain = re.fullmatch(r"[a-z][a-z0-9.+-]*", license) and license not in _YAML_WORDS
    # A JSON string is also a YAML string.
    return _line(license), license if plain else json.dumps(license, ensure_ascii=False)


def _tag(method):
    """The name of a method as a tag, such as "barlow-twins"."""
    if not isinstance(method, str) or not method.strip() or not method.isprintable():
        raise ValueError(f"`method` must be the name of a method. Received: method={method!r}. Pass one line of text.")
    return re.sub("[^a-z0-9]+", "-", method.lower()).strip("-") or "unknown"


def _line(value):
    """Formats a value for one cell of a table, without line breaks or unescaped bars."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _flat(argument, values, prefix=""):
    """Yields pairs of a name and a text for all values of a nested dictionary; nested names are `outer / inner`."""
    if not isinstance(values, dict):
        raise ValueError(
            f"`{argument}` must be a dictionary from names to values. Received: {argument}={values!r}. "
            "Pass {'name': value}."
        )
    for name, value in values.items():
        name = prefix + _line(name)
        if isinstance(value, dict) and value:
            yield from _flat(argument, value, f"{name} / ")
        else:
            yield name, _value(argument, name, value)


def _value(argument, name, value):
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None or value == {}:
        return "none"
    if isinstance(value, (str, bool)):
        return _line(value)
    if isinstance(value, numbers.Integral):
        return str(value)
    if isinstance(value, numbers.Real):
        return f"{float(value):.4g}"
    if isinstance(value, (list, tuple, set)):
        return ", ".join(_value(argument, name, item) for item in value)
    raise ValueError(
        f"`{argument}` may hold numbers, strings, lists of them and dictionaries. "
        f"Received: {argument}[{name!r}]={value!r} of type {type(value).__name__}. Convert it to a string."
    )
