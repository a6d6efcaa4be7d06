"""What sets the twins apart, for the ablations that do: a predictor on one side, a slow copy on the other."""

import keras

from keras_barlow import networks


def checked_predictor(predictor, embedding_shape):
    """The predictor, built.

    Args:
        predictor: Layer from embeddings to embeddings, or None.
        embedding_shape: `(None, D)`.

    Returns:
        `predictor`.

    Raises:
        ValueError: If it changes the width.
    """
    if predictor is None:
        return None
    predictor, shape = networks.built(predictor, embedding_shape, "predictor")
    if shape != tuple(embedding_shape):
        raise ValueError(
            "The predictor must keep the width of the embeddings, which are compared with those of the other view. "
            f"Received: {embedding_shape[-1]} features in and {shape[-1]} out. End it with {embedding_shape[-1]}."
        )
    return predictor


def slow_copies(encoder, projector, moving_average):
    """Copies of both networks that are not trained, or None without a moving average.

    Args:
        encoder: Built `keras.Model`.
        projector: Built layer.
        moving_average: m in [0, 1), or None.

    Returns:
        The pair of copies, or None.

    Raises:
        ValueError: If m is not in [0, 1).
    """
    if moving_average is None:
        return None
    if not 0 <= moving_average < 1:
        raise ValueError(f"`moving_average` must be in [0, 1). Received: moving_average={moving_average}")
    copies = []
    for network, shape in ((encoder, encoder.input_shape), (projector, encoder.output_shape)):
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
        if not copy.built:
            copy.build(shape)
        copy.set_weights(network.get_weights())
        # The layers stay trainable, so that batch normalisation takes the moments of the batch; their weights do not.
        for variable in copy.variables:
            variable.trainable = False
        copies.append(copy)
    return copies


def follow(copies, networks, moving_average):
    """`t <- m t + (1 - m) w` for every trained weight. Moving statistics are the copy's own.

    Args:
        copies: What `slow_copies` returned; nothing happens for None.
        networks: The pair of networks that are trained.
        moving_average: m.
    """
    if copies is None:
        return
    for copy, network in zip(copies, networks, strict=True):
        for slow, weight in zip(copy.weights, network.weights, strict=True):
            if weight.trainable:
                slow.assign(moving_average * slow + (1.0 - moving_average) * weight)
