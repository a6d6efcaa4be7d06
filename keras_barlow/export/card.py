"""The model card: what an encoder was trained on, what it takes, and how it is loaded."""

import hashlib
import json
import numbers
import re
import warnings

import numpy as np

_UNKNOWN_LICENSE = "unknown"
_FIELDS = ("recipe", "data", "metrics", "license")
_STAMP = "<!-- keras_barlow wrote this text; sha256 {digest} -->\n"
_COLORS = {1: "gray", 3: "RGB", 4: "RGBA"}
# Words that YAML reads as a boolean or as nothing.
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}


def model_card(
    encoder,
    input_dtype="float32",
    feature_maps=False,
    classifier=None,
    recipe=None,
    data=None,
    metrics=None,
    license=None,
):
    """The text of `README.md` in an export, with the header that the Hugging Face hub reads.

    Args:
        encoder: `keras.Model` with `input_shape` and `output_shape`.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether the export gives them.
        classifier: `Classifier` in the export, or None.
        recipe: Dictionary of settings, or a string.
        data: What it was trained on, a string.
        metrics: Dictionary from names to numbers, strings, lists of them, or further dictionaries.
        license: License identifier on one line, such as `"apache-2.0"`.

    Returns:
        A string of Markdown. It ends with a comment from which `save_encoder` knows that nobody has changed it.

    Raises:
        ValueError: If a field is of another kind.

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
        "tags: [barlow-twins, self-supervised, feature-extraction]",
        "---",
        "",
        f"# {_line(encoder.name)}: an image encoder trained with Barlow Twins",
        "",
        "| | |",
        "|---|---|",
        f"| images in | {_COLORS.get(channels, f'{channels} channels')}, `(batch, {sides})`, {values} |",
        f"| features out | float32, `(batch, {features})` |",
        f"| parameters | {encoder.count_params():,} |",
        f"| trained on | {'not stated' if data is None else _line(data)} |",
        f"| license | {license} |",
        "",
        "Scale and standardisation are inside: give the images as they are said above.",
        "",
        "```python",
        "import tensorflow as tf",
        "",
        'encoder = tf.saved_model.load("FOLDER")  # or hub.load of tensorflow_hub',
        *_code(height, width, channels, input_dtype, features),
    ]
    if feature_maps:
        lines.append('maps = encoder.feature_maps(images)  # "feature1", "feature2", ... and "default"')
    if classifier is not None:
        lines.append("probabilities = encoder.classify(images)  # of encoder.class_names")
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
    lines += ["", "Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230"]
    return _stamped("\n".join(lines) + "\n")


def checked_fields(fields):
    """The fields that a user passes for the card, under their current names.

    Args:
        fields: Dictionary with any of `recipe`, `data`, `metrics` and `license`; or None. `licence`, the spelling of
            release 0.1, gives a warning and is accepted until release 0.3.

    Returns:
        Dictionary of arguments of `model_card`.

    Raises:
        ValueError: If there is another field, or both spellings.
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
    """The lines that load an image and give its features."""
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
    """Whether the bytes of a README.md are those of a model card as it was written."""
    text, start, _ = content.decode("utf-8", "replace").rpartition(_STAMP.split("{")[0])
    return bool(start) and _stamped(text).encode() == content


def _stamped(text):
    # A name from the file system may hold bytes that are no text.
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


def _line(value):
    """Text for one cell of a table: no line breaks, and no bars that would start another cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _flat(argument, values, prefix=""):
    """The pairs of name and text of a dictionary and of those inside it, `outer / inner`."""
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
        return ", ".join(_value(argument, name, one) for one in value)
    raise ValueError(
        f"`{argument}` may hold numbers, strings, lists of them and dictionaries. "
        f"Received: {argument}[{name!r}]={value!r} of type {type(value).__name__}. Convert it to a string."
    )
