"""The model card: what an encoder was trained on, what it takes, and how it is loaded."""

_LICENCE = "unknown"


def model_card(
    encoder,
    input_dtype="float32",
    feature_maps=False,
    classifier=None,
    recipe=None,
    data=None,
    metrics=None,
    licence=None,
):
    """The text of `README.md` in an export, with the header that the Hugging Face hub reads.

    Args:
        encoder: `keras.Model`.
        input_dtype: `"float32"` or `"uint8"`.
        feature_maps: Whether the export gives them.
        classifier: `Classifier` in the export, or None.
        recipe: Dictionary of settings, or a string.
        data: What it was trained on, a string.
        metrics: Dictionary from names to numbers.
        licence: Identifier of a licence, `"apache-2.0"`.

    Returns:
        A string of Markdown.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet((1,), input_shape=(16, 16, 3), stem="small", width=8)
    >>> "float32, in [0, 1]" in model_card(encoder, data="160 photographs")
    True
    """
    height, width, channels = encoder.input_shape[1:]
    values = "float32, in [0, 1]" if input_dtype == "float32" else "uint8, 0 to 255"
    features = encoder.output_shape[-1]
    scaled = " / 255" if input_dtype == "float32" else ""
    lines = [
        "---",
        f"license: {licence or _LICENCE}",
        "library_name: tf-keras",
        "pipeline_tag: image-feature-extraction",
        "tags: [barlow-twins, self-supervised, feature-extraction]",
        "---",
        "",
        f"# {encoder.name}: an image encoder trained with Barlow Twins",
        "",
        "| | |",
        "|---|---|",
        f"| images in | RGB, `(batch, {height}, {width}, {channels})`, {values} |",
        f"| features out | float32, `(batch, {features})` |",
        f"| parameters | {encoder.count_params():,} |",
        f"| trained on | {data or 'not stated'} |",
        f"| licence | {licence or 'not stated'} |",
        "",
        "Scale and standardisation are inside: give the images as they are said above.",
        "",
        "```python",
        "import tensorflow as tf",
        "",
        'encoder = tf.saved_model.load("FOLDER")  # or hub.load of tensorflow_hub',
        f'image = tf.image.resize(tf.io.decode_image(tf.io.read_file("photo.jpg")), ({height}, {width}))',
        f'features = encoder(tf.cast(image, "{input_dtype}")[None]{scaled})  # (1, {features})',
    ]
    if feature_maps:
        lines.append('maps = encoder.feature_maps(images)  # "feature1", "feature2", ... and "default"')
    if classifier is not None:
        lines.append("probabilities = encoder.classify(images)  # of encoder.class_names")
    lines.append("```")
    if classifier is not None:
        shown = ", ".join(classifier.class_names[:20]) + (", ..." if len(classifier.class_names) > 20 else "")
        lines += ["", f"Classes: {shown}."]
    if metrics:
        lines += ["", "## Metrics", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    if recipe:
        lines += ["", "## Recipe", ""]
        lines += [recipe] if isinstance(recipe, str) else [f"- {name}: {value}" for name, value in recipe.items()]
    lines += ["", "Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230"]
    return "\n".join(lines) + "\n"
