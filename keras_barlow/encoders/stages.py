"""Feature maps of an encoder by stage."""


def stage_outputs(encoder):
    """Returns the feature maps at the end of the stem and of each stage.

    Args:
        encoder: Functional `keras.Model` of `encoders`.

    Returns:
        A list of symbolic Keras tensors `(batch, height, width, channels)`.

    Raises:
        ValueError: If the layers are not named by stage.
    """
    outputs = {}
    for layer in getattr(encoder, "layers", []):
        stage = layer.name.split("_")[0]
        if stage == "stem" or stage.startswith("stage"):
            # The last layer of a stage replaces the earlier ones.
            outputs[stage] = layer.output
    if not outputs:
        raise ValueError(
            "Features of several stages need an encoder of keras_barlow.encoders, whose layers are named by stage. "
            f"Received: {encoder!r}. Build one with keras_barlow.encoders.resnet."
        )
    return list(outputs.values())
