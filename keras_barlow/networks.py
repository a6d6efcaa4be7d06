"""The networks that users bring: what they take and give, found out for any Keras model, and the rules for encoders."""

import keras


def check_channels_last():
    """Raises ValueError if Keras is set to channels-first images, which nothing here takes."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Images must have their channels last, (batch, height, width, channels). "
            f"Received: keras.config.image_data_format()={keras.config.image_data_format()!r}. "
            'Call keras.config.set_image_data_format("channels_last") before you create the model.'
        )


def checked_encoder(model, argument="encoder"):
    """The model, if it maps one batch of images to one batch of features.

    Args:
        model: What the user passed.
        argument: The name under which it was passed, for the errors.

    Returns:
        A functional or sequential `keras.Model`, which has `inputs`, `input_shape` and `output_shape`: the model
        itself, or a functional model around a subclassed one, which shares its weights.

    Raises:
        ValueError: If it is not built, or has other inputs or outputs.
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
            "Give it a keras.Input of known height and width, or end it with GlobalAveragePooling2D."
        )
    return model


def on_images(model, argument="encoder"):
    """The model, if it maps one batch of images to one tensor of any rank; see `checked_encoder`."""
    check_channels_last()
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`{argument}` must be a built keras.Model, so that its output shape is known. "
            f"Received: {argument}={model!r}. Call the encoder on one batch of images first, or on a keras.Input: "
            + _wrapped((32, 32, 3), "encoder(images)")
        )
    model = _with_inputs(model, argument)
    taken = _structure(model, "input")
    if len(model.inputs) != 1 or isinstance(taken, dict):
        raise ValueError(
            f"`{argument}` must take one batch of images. Received inputs: {_listed(taken)}. "
            f"Wrap it in a model that takes the images alone: {_on_images_alone(taken)}"
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"`{argument}` must take images of shape (batch, height, width, channels), with known channels. "
            f"Received: {argument}.input_shape={shape}. Wrap it in a model that takes such images, for example "
            + _wrapped((28, 28, 1), "encoder(keras.layers.Flatten()(images))")
        )
    if len(model.outputs) != 1 or isinstance(_structure(model, "output"), dict):
        given = _structure(model, "output")
        raise ValueError(
            f"`{argument}` must have one output. Received outputs: {_listed(given)}. "
            f"Keep one of them: {_wrapped(_image_shape(model), f'encoder(images){_path_of_features(given)}')}"
        )
    return model


def built(layer, input_shape, argument):
    """Builds a layer, a subclassed model too, on inputs of a shape.

    Args:
        layer: Keras layer or model from `(batch, n)` to `(batch, m)`.
        input_shape: `(None, n)`.
        argument: The name under which it was passed, for the errors.

    Returns:
        The pair of `layer` and its output shape `(None, m)`.

    Raises:
        ValueError: If it is no layer, or its output has another rank.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(f"`{argument}` must be a Keras layer or model. Received: {argument}={layer!r}")
    # A symbolic call, because a subclassed model may have neither `build` nor `compute_output_shape`.
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
    predictor, shape = built(predictor, embedding_shape, "predictor")
    if shape != tuple(embedding_shape):
        raise ValueError(
            "The predictor must keep the width of the embeddings, which are compared with those of the other view. "
            f"Received: {embedding_shape[-1]} features in and {shape[-1]} out. End it with {embedding_shape[-1]}."
        )
    return predictor


def copied(network, input_shape):
    """A copy of a network with weights of its own.

    Args:
        network: Built Keras layer or model that can be serialized.
        input_shape: Shape of its inputs, with None for the batch.

    Returns:
        A layer or model of the same class, built, with equal weights.
    """
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    if not copy.built:
        copy.build(input_shape)
    copy.set_weights(network.get_weights())
    return copy


class GivesFeatures:
    """What a `keras.Model` needs beside `call` where it gives the features of its `encoder`."""

    def build(self, input_shape):
        """Leaves nothing to build. Keras remembers the shape, for `export` and saved models."""

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.encoder.output_shape[-1])

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        """Keras' own export of what `predict` computes, for images on 0..255; `export.save_encoder` takes [0, 1]."""
        if input_signature is None:
            input_signature = [keras.InputSpec(dtype="float32", shape=(None, *self.encoder.input_shape[1:]))]
        super().export(filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs)


def _with_inputs(model, argument):
    """The model, if it is functional; otherwise a functional model around it, of the shape on which it was built."""
    inputs = getattr(model, "inputs", None)
    if inputs and not isinstance(model, keras.Sequential):
        if not isinstance(model.input, (list, tuple)) or len(inputs) > 1:
            return model
        # Keras warns at every call of such a model on one tensor.
        if type(model).__module__.startswith("keras."):
            # The same layers without the list, which Keras 3.10 makes of the one input of every model that it loads:
            # a model around it would have its weights in other places than the file.
            return keras.Model(inputs[0], model.output, name=model.name)
        images = keras.Input(inputs[0].shape[1:], name="images")
        return keras.Model(images, model([images]), name=model.name)
    # A Sequential that was built by a call is bound to the size of that batch.
    if inputs and inputs[0].shape[0] is None:
        return model
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(isinstance(side, (int, type(None))) for side in shape):
        raise ValueError(
            f"`{argument}` must take one batch of images. Received: {argument}={model!r}, built on inputs of shape "
            f"{shape}. Wrap it in a model that takes the images alone: {_on_images_alone(shape)}"
        )
    images = keras.Input(shape[1:], name="images")
    return keras.Model(images, model(images), name=model.name)


def _structure(model, side):
    """Tensor, list or dictionary of the inputs or outputs. Keras keeps it for functional models only."""
    tensors = getattr(model, f"{side}s")
    return tensors[0] if isinstance(model, keras.Sequential) else getattr(model, side)


def _image_shape(model):
    return tuple(model.inputs[0].shape[1:])


def _wrapped(shape, call):
    return f"images = keras.Input({shape}); encoder = keras.Model(images, {call})"


def _listed(structure):
    """`'name' (None, 8), 'other' (None, 4)`."""
    pairs = structure.items() if isinstance(structure, dict) else enumerate(_as_list(structure))
    return ", ".join(f"{name!r} {_shapes(value)}" for name, value in pairs)


def _shapes(value):
    if isinstance(value, (dict, list, tuple)):
        return f"[{_listed(value)}]"
    return str(tuple(value.shape))


def _on_images_alone(structure):
    """The call of a model of several inputs in which `other` stands for all but the images."""
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
    """The index, `["a"][0]`, of the output that looks most like features: rank 2, or else the first."""
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
