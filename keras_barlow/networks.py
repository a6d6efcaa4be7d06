"""Checks of the networks that users pass: their inputs and outputs, for any kind of Keras model."""

import keras


def check_channels_last():
    """Raises ValueError if Keras is configured for channels-first images, which this package does not support."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images must have their channels last, (batch, height, width, channels). "
            f"Received: keras.config.image_data_format()={keras.config.image_data_format()!r}. "
            'Call keras.config.set_image_data_format("channels_last") before you create the model.'
        )


def checked_encoder(model, argument="encoder"):
    """Returns the model, if it maps one batch of images to one batch of features.

    Args:
        model: Model passed by the user.
        argument: Name of the user's argument, for error messages.

    Returns:
        A functional or sequential `keras.Model`, with `inputs`, `input_shape` and `output_shape`: `model` itself, or
        a functional model that wraps a subclassed one and shares its weights.

    Raises:
        ValueError: If the model is not built, or has other inputs or outputs.
    """
    model = on_images(model, argument)
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2:
        layer = {3: "GlobalAveragePooling1D", 4: "GlobalAveragePooling2D"}.get(len(shape), "Flatten")
        raise ValueError(
            f"`{argument}` must map images to features of shape (batch, features). "
            f"Received: {argument}.output_shape={shape}. End it with {layer}: "
            + _wrapped(_image_shape(model), f"keras.layers.{layer}()(encoder(images))")
        )
    if shape[1] is None:
        raise ValueError(
            f"`{argument}` must have a known number of features. "
            f"Received: {argument}.output_shape={shape} for {argument}.input_shape={(None, *_image_shape(model))}. "
            "Use a keras.Input of known height and width, or end it with GlobalAveragePooling2D."
        )
    return model


def on_images(model, argument="encoder"):
    """Does the same as `checked_encoder`, but accepts one output of any rank."""
    check_channels_last()
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`{argument}` must be a built keras.Model, so that its output shape is known. "
            f"Received: {argument}={model!r}. Call the encoder on one batch of images first, or on a keras.Input: "
            + _wrapped((32, 32, 3), "encoder(images)")
        )
    model = _with_inputs(model, argument)
    inputs = _structure(model, "input")
    if len(model.inputs) != 1 or isinstance(inputs, dict):
        raise ValueError(
            f"`{argument}` must take one batch of images. Received inputs: {_listed(inputs)}. "
            f"Wrap it in a model that takes only the images: {_images_only_call(inputs)}"
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"`{argument}` must take images of shape (batch, height, width, channels), with known channels. "
            f"Received: {argument}.input_shape={shape}. Wrap it in a model that takes such images, for example "
            + _wrapped((28, 28, 1), "encoder(keras.layers.Flatten()(images))")
        )
    if len(model.outputs) != 1 or isinstance(_structure(model, "output"), dict):
        outputs = _structure(model, "output")
        raise ValueError(
            f"`{argument}` must have one output. Received outputs: {_listed(outputs)}. "
            f"Keep one of them: {_wrapped(_image_shape(model), f'encoder(images){_path_of_features(outputs)}')}"
        )
    return model


def built(layer, input_shape, argument):
    """Builds a layer or model, including subclassed models, for inputs of a given shape.

    Args:
        layer: Keras layer or model from `(batch, n)` to `(batch, m)`.
        input_shape: Input shape `(None, n)`.
        argument: Name of the user's argument, for error messages.

    Returns:
        The pair of `layer` and its output shape `(None, m)`.

    Raises:
        ValueError: If `layer` is not a Keras layer, or its output does not have rank 2.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(f"`{argument}` must be a Keras layer or model. Received: {argument}={layer!r}")
    # Call it symbolically, because a subclassed model may have neither `build` nor `compute_output_shape`.
    outputs = layer(keras.Input(input_shape[1:]))
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] is None:
        received = f"outputs of shape {tuple(shape)}" if shape is not None else f"{type(outputs).__name__} as output"
        raise ValueError(
            f"`{argument}` must map vectors (batch, {input_shape[1]}) to one output (batch, D). Received: {received}. "
            "End it with a keras.layers.Dense."
        )
    return layer, tuple(shape)


def checked_predictor(predictor, embedding_shape):
    """Builds the predictor and checks that it keeps the width of the embeddings.

    Args:
        predictor: Layer from embeddings to embeddings, or None.
        embedding_shape: Shape `(None, D)` of the embeddings.

    Returns:
        `predictor`.

    Raises:
        ValueError: If its output is not `(batch, D)`.
    """
    if predictor is None:
        return None
    predictor, shape = built(predictor, embedding_shape, "predictor")
    if shape != tuple(embedding_shape):
        raise ValueError(
            "The predictor must keep the width of the embeddings, because its output is compared with the embeddings "
            f"of the other view. Received: {embedding_shape[-1]} features in and {shape[-1]} out. "
            f"End it with {embedding_shape[-1]} units."
        )
    return predictor


def required_predictor(predictor, embedding_shape):
    """Does the same as `checked_predictor`, for a method that needs one."""
    if predictor is None:
        raise ValueError(
            "The method needs a predictor, a layer from embeddings to embeddings of the same width. Received: "
            f"predictor=None. Pass predictor=Projector((hidden, {embedding_shape[-1]}))."
        )
    return checked_predictor(predictor, embedding_shape)


def copied(network, input_shape):
    """Copies a network.

    Args:
        network: Built Keras layer or model that can be serialized.
        input_shape: Input shape, with None for the batch dimension.

    Returns:
        A built layer or model of the same class, with its own variables and equal weights.
    """
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    if not copy.built:
        copy.build(input_shape)
    copy.set_weights(network.get_weights())
    return copy


class GivesFeatures:
    """Mixin for a `keras.Model` whose `call` returns the features of its `encoder`."""

    def build(self, input_shape):
        """Does nothing, since all layers are built. Keras records the shape for `export` and saved models."""

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.encoder.output_shape[-1])

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Exports what `predict` computes, for images on 0..255. `export.save_encoder` exports for [0, 1]."""
        if input_signature is None:
            input_signature = [keras.InputSpec(dtype="float32", shape=(None, *self.encoder.input_shape[1:]))]
        super().export(filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs)


def _with_inputs(model, argument):
    """Returns a functional model: the model itself, or a wrapper around it with the shape it was built for."""
    inputs = getattr(model, "inputs", None)
    if inputs and not isinstance(model, keras.Sequential):
        if not isinstance(model.input, (list, tuple)) or len(inputs) > 1:
            return model
        # Keras warns when a model with a list of one input is called on a tensor.
        if type(model).__module__.startswith("keras."):
            # Keras 3.10 turns the input of every loaded model into a list. Rebuild the model from the same layers,
            # because a wrapper would place its weights elsewhere than the saved file.
            return keras.Model(inputs[0], model.output, name=model.name)
        images = keras.Input(inputs[0].shape[1:], name="images")
        return keras.Model(images, model([images]), name=model.name)
    # A Sequential model that was built by a call is tied to the size of that batch.
    if inputs and inputs[0].shape[0] is None:
        return model
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(isinstance(side, (int, type(None))) for side in shape):
        raise ValueError(
            f"`{argument}` must take one batch of images. Received: {argument}={model!r}, built for inputs of shape "
            f"{shape}. Wrap it in a model that takes only the images: {_images_only_call(shape)}"
        )
    images = keras.Input(shape[1:], name="images")
    return keras.Model(images, model(images), name=model.name)


def _structure(model, side):
    """Returns the inputs or outputs as a tensor, list or dictionary, which Keras keeps only for functional models."""
    tensors = getattr(model, f"{side}s")
    return tensors[0] if isinstance(model, keras.Sequential) else getattr(model, side)


def _image_shape(model):
    return tuple(model.inputs[0].shape[1:])


def _wrapped(shape, call):
    return f"images = keras.Input({shape}); encoder = keras.Model(images, {call})"


def _listed(structure):
    """Formats a structure, as in `'name' (None, 8), 'other' (None, 4)`."""
    pairs = structure.items() if isinstance(structure, dict) else enumerate(_as_list(structure))
    return ", ".join(f"{name!r} {_shapes(value)}" for name, value in pairs)


def _shapes(value):
    if isinstance(value, (dict, list, tuple)):
        return f"[{_listed(value)}]"
    return str(tuple(value.shape))


def _images_only_call(structure):
    """Returns example code that calls a model with several inputs; `other` stands for everything but the images."""
    pairs = list(structure.items() if isinstance(structure, dict) else enumerate(_as_list(structure)))
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in pairs}
    images = next((name for name, shape in shapes.items() if len(shape) == 4), pairs[0][0])
    words = {name: "images" if name == images else "other" for name in shapes}
    if isinstance(structure, dict):
        call = "{" + ", ".join(f"{name!r}: {word}" for name, word in words.items()) + "}"
    else:
        call = f"[{', '.join(words.values())}]"
    return _wrapped(shapes[images][1:], f"encoder({call})")


def _path_of_features(structure):
    """Returns the index, such as `["a"][0]`, of the first output of rank 2, or else of the first output."""
    paths = list(_paths(structure))
    return min(paths, key=lambda pair: len(pair[1].shape) != 2)[0]


def _paths(structure, path=""):
    if isinstance(structure, dict):
        for name, value in structure.items():
            yield from _paths(value, f"{path}[{name!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, value in enumerate(structure):
            yield from _paths(value, f"{path}[{index}]")
    else:
        yield path, structure


def _as_list(structure):
    return list(structure) if isinstance(structure, (list, tuple)) else [structure]
