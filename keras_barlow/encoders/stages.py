"""The feature maps inside an encoder."""


def stage_outputs(encoder):
    """The feature maps at the end of the stem and of each stage of an encoder of `encoders`.

    Args:
        encoder: Functional `keras.Model`.

    Returns:
        A list of Keras tensors `(batch, height, width, channels)`.

    Raises:
        ValueError: If its layers are not named so.
    """
    named = {}
    for layer in getattr(encoder, "layers", []):
        stage = layer.name.split("_")[0]
        if stage == "stem" or stage.startswith("stage"):
            # The last one of its stage stays.
            named[stage] = layer.output
    if not named:
        raise ValueError(
            "Features of several stages need an encoder of keras_barlow.encoders, whose layers are named by stage. "
            f"Received: {encoder!r}."
        )
    return list(named.values())
