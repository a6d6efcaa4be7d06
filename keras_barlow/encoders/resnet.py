"""ResNet encoders from images on 0..255 to features, with built-in standardization."""

import keras
from keras import layers

from keras_barlow import engine, image_scale, networks
from keras_barlow.encoders.standardization import standardize_layer
from keras_barlow.layers import BatchNormalization


def resnet8(input_shape=(224, 224, 3), stem="imagenet", width=64, **kwargs):
    """ResNet-8: three stages with one basic block each, and `4 * width` features.

    Args:
        input_shape: Shape `(height, width, channels)` of the images.
        stem: `"imagenet"`, or `"small"` for images of about 32 pixels.
        width: Number of channels of the first stage.
        **kwargs: Additional keyword arguments of `resnet`.

    Returns:
        A functional `keras.Model`, see `resnet`.

    Example:

    >>> resnet8(input_shape=(32, 32, 3), stem="small", width=16).output_shape
    (None, 64)
    """
    kwargs.setdefault("name", "resnet8")
    return resnet((1, 1, 1), "basic", input_shape, stem, width, **kwargs)


def resnet18(input_shape=(224, 224, 3), stem="imagenet", width=64, **kwargs):
    """ResNet-18: four stages with two basic blocks each, and `8 * width` features.

    Args:
        input_shape: Shape `(height, width, channels)` of the images.
        stem: `"imagenet"`, or `"small"` for images of about 32 pixels.
        width: Number of channels of the first stage.
        **kwargs: Additional keyword arguments of `resnet`.

    Returns:
        A functional `keras.Model`, see `resnet`.

    Example:

    >>> resnet18(input_shape=(32, 32, 3), stem="small", width=16).output_shape
    (None, 128)
    """
    kwargs.setdefault("name", "resnet18")
    return resnet((2, 2, 2, 2), "basic", input_shape, stem, width, **kwargs)


def resnet50(input_shape=(224, 224, 3), stem="imagenet", width=64, **kwargs):
    """ResNet-50: four stages with 3, 4, 6 and 3 bottleneck blocks, and `32 * width` features.

    Args:
        input_shape: Shape `(height, width, channels)` of the images.
        stem: `"imagenet"`, or `"small"` for images of about 32 pixels.
        width: Number of channels of the first stage.
        **kwargs: Additional keyword arguments of `resnet`.

    Returns:
        A functional `keras.Model`, see `resnet`.

    Example:

    >>> resnet50(input_shape=(64, 64, 3), width=8).output_shape
    (None, 256)
    """
    kwargs.setdefault("name", "resnet50")
    return resnet((3, 4, 6, 3), "bottleneck", input_shape, stem, width, **kwargs)


def resnet(
    blocks,
    block="basic",
    input_shape=(224, 224, 3),
    stem="imagenet",
    width=64,
    zero_init_residual=False,
    synchronized=False,
    mean=None,
    deviation=None,
    kernel_initializer=None,
    name="resnet",
):
    """A residual network with the padding, initialization and normalization of torchvision.

    Args:
        blocks: Number of residual blocks in each stage. Each stage after the first halves the resolution and doubles
            the number of channels.
        block: `"basic"` (two 3 x 3 convolutions) or `"bottleneck"` (1 x 1, 3 x 3, and 1 x 1 with 4 times as many
            channels).
        input_shape: Shape `(height, width, channels)` of the images; height and width may be None.
        stem: `"imagenet"` (7 x 7 convolution of stride 2 and max pooling), or `"small"` (3 x 3 convolution of stride 1,
            no pooling) for images of about 32 pixels.
        width: Number of channels of the first stage.
        zero_init_residual: Whether to initialize the last scale of each block to zero, as in the paper's recipe.
        synchronized: Whether batch normalization uses the moments of all replicas.
        mean: Mean of the images on [0, 1], one float or one per channel. None uses the mean of ImageNet, averaged over
            the channels for grayscale images.
        deviation: Positive standard deviation of the images on [0, 1], one float or one per channel. None uses the
            deviation of ImageNet, averaged over the channels for grayscale images.
        kernel_initializer: Name or instance of a Keras initializer. Each kernel gets a copy with its own seed. None
            uses that of torchvision, He normal with fan-out.
        name: Name of the model.

    Returns:
        A `keras.Model` from images on 0..255 to average-pooled float32 features `(batch, features)`.

    Raises:
        ValueError: If the block or stem is unknown, the input shape does not have three sides, or `mean` or
            `deviation` is None and the images have neither 1 nor 3 channels.

    Example:

    >>> resnet((1, 1), input_shape=(16, 16, 3), stem="small", width=4).output_shape
    (None, 8)

    References:
        He, Zhang, Ren, Sun: Deep Residual Learning, https://arxiv.org/abs/1512.03385
    """
    if block not in ("basic", "bottleneck"):
        raise ValueError(f"`block` must be 'basic' or 'bottleneck'. Received: block={block!r}")
    if stem not in ("imagenet", "small"):
        raise ValueError(f"`stem` must be 'imagenet' or 'small'. Received: stem={stem!r}")
    if kernel_initializer is None:
        kernel_initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    networks.check_channels_last()
    if len(tuple(input_shape)) != 3 or input_shape[-1] is None:
        raise ValueError(
            "`input_shape` must be (height, width, channels), with a known number of channels. "
            f"Received: input_shape={input_shape}"
        )
    images = keras.Input(input_shape, name="images")
    x = standardize_layer(mean, deviation, images.shape[-1])(images)
    if stem == "imagenet":
        x = _convolution(x, width, 7, 2, kernel_initializer, name="stem_convolution")
        x = _normalization(x, synchronized, name="stem_normalization")
        x = layers.ReLU(name="stem_relu")(x)
        x = layers.ZeroPadding2D(1, name="stem_padding")(x)
        x = layers.MaxPooling2D(3, strides=2, name="stem_pooling")(x)
    else:
        x = _convolution(x, width, 3, 1, kernel_initializer, name="stem_convolution")
        x = _normalization(x, synchronized, name="stem_normalization")
        x = layers.ReLU(name="stem_relu")(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = _residual_block(
                x,
                block,
                channels=width * 2**stage,
                stride=2 if stage > 0 and index == 0 else 1,
                last_gamma="zeros" if zero_init_residual else "ones",
                synchronized=synchronized,
                initializer=kernel_initializer,
                name=f"stage{stage + 1}_block{index + 1}",
            )
    features = layers.GlobalAveragePooling2D(dtype=engine.full_precision(), name="features")(x)
    return image_scale.with_scale_check_in_predict(keras.Model(images, features, name=name))


def _residual_block(x, block, channels, stride, last_gamma, synchronized, initializer, name):
    if block == "basic":
        convolutions = [(channels, 3, stride), (channels, 3, 1)]
    else:
        convolutions = [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)]
    out_channels = convolutions[-1][0]
    shortcut = x
    if stride != 1 or x.shape[-1] != out_channels:
        shortcut = _convolution(x, out_channels, 1, stride, initializer, name=f"{name}_shortcut_convolution")
        shortcut = _normalization(shortcut, synchronized, name=f"{name}_shortcut_normalization")
    for index, (filters, kernel, step) in enumerate(convolutions, start=1):
        last = index == len(convolutions)
        x = _convolution(x, filters, kernel, step, initializer, name=f"{name}_convolution{index}")
        x = _normalization(x, synchronized, gamma=last_gamma if last else "ones", name=f"{name}_normalization{index}")
        if not last:
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x, filters, kernel, stride, initializer, name):
    # At stride 2, "same" pads images of even size asymmetrically, but published weights expect symmetric padding.
    padding = "same"
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_padding")(x)
        padding = "valid"
    elif stride > 1:
        # Select the pixels that a strided 1 x 1 convolution reads. With oneDNN, that convolution corrupts memory in
        # TensorFlow 2.21 if the batch size changes between steps.
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_subsampling")(x)
        stride = 1
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=_with_new_seed(initializer),
        name=name,
    )(x)


def _with_new_seed(initializer):
    # A Keras initializer returns the same numbers on every call, so kernels of the same shape would be equal.
    initializer = keras.initializers.get(initializer)
    config = initializer.get_config()
    return type(initializer).from_config({name: value for name, value in config.items() if name != "seed"})


def _normalization(x, synchronized, name, gamma="ones"):
    return BatchNormalization(synchronized=synchronized, gamma_initializer=gamma, name=name)(x)
