"""Checks of images and views. Each error states the rule, what was received and the remedy."""

from keras_barlow import image_scale
from keras_barlow.pretraining import checks


def image_shape(encoder):
    """`(height, width, channels)` of an encoder's images, with None for unknown sizes."""
    return tuple(getattr(encoder, "input_shape", None) or (None,) * 4)[1:]


def checked_views(views, encoder, accumulation_steps, method):
    """The views layer of a model, if its views suit the method and can be drawn twice where micro-batches need it."""
    if views is None:
        return None
    # Other layers are checked when they draw.
    if isinstance(getattr(views, "count", None), int):
        check_count(views.count, method)
    if accumulation_steps > 1:
        if not hasattr(views, "check_repeatable"):
            raise ValueError(
                "With accumulation_steps > 1, `views` must be a keras_barlow.views.Views, whose draws can be repeated, "
                f"or None if the data holds pairs. Received: views={views!r}"
            )
        views.check_repeatable(image_shape(encoder))
    return views


def check_count(count, method):
    """Refuses more views than a method compares."""
    if method.max_views is not None and count > method.max_views:
        raise ValueError(
            f"{type(method).__name__} compares at most {method.max_views} views of each image. "
            f"Received: {count} views. Use two views, such as keras_barlow.views.barlow_twins(image_size), or a method "
            "that takes any number of views, such as SwAV."
        )


def checked_images(x, encoder, crops=False):
    """The images of a batch, if they can be passed to the views. With `crops`, pairs of crops are accepted too."""
    x = checks.image_of(x)
    if crops and isinstance(x, (tuple, list)) and len(x) == 2:
        _check_pair(*x)
        return tuple(checked_images(crop, encoder) for crop in x)
    if isinstance(x, (tuple, list)):
        raise ValueError(
            f"This model draws its views from one batch of images. Received: {len(x)} tensors as input. Create the "
            "model with views=None if the data holds pairs of views, or with two views without the crop "
            '(barlow_twins(image_size, without="crop")) if it holds pairs of crops.'
        )
    image_scale.check_image_dtype(x)
    rule = "Images must have the shape (batch, height, width, channels). Received: images.shape="
    if getattr(x.shape, "rank", 4) is None or (len(x.shape) == 4 and x.shape[-1] is None):
        height, width, channels = (size or "..." for size in image_shape(encoder))
        raise ValueError(
            f"{rule}{x.shape}, whose channels are unknown. Set the shape of these images, for example with "
            f"dataset.map(lambda images: tf.ensure_shape(images, (None, {height}, {width}, {channels})))."
        )
    shape = tuple(x.shape)
    if len(shape) != 4:
        raise ValueError(f"{rule}{shape}")
    channels = image_shape(encoder)[-1]
    if channels is not None and shape[-1] != channels and shape[1] == channels:
        raise ValueError(f"{rule}{shape}, with the channels first. Use np.moveaxis(images, 1, -1).")
    return x


def checked_pair(x, encoder):
    """The two views of a batch of data that holds views."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            "With views=None the data must hold pairs: ((view_a, view_b),) or ((view_a, view_b), labels). "
            f"Received: {'single images' if not isinstance(x, (tuple, list)) else f'{len(x)} tensors'} as input. "
            "Pass views=keras_barlow.views.barlow_twins(image_size) to draw the views in the model."
        )
    _check_pair(*x)
    return tuple(checked_images(view, encoder) for view in x)


def checked_sizes(views, encoder):
    """The views of a batch, if they have the input shape of the encoder and the same number of rows."""
    views, wanted = tuple(views), image_shape(encoder)
    shapes = [tuple(view.shape) for view in views]
    if len({shape[0] for shape in shapes} - {None}) > 1:
        raise ValueError(
            "Every view must have one row per image of the batch. "
            f"Received: views of shapes {', '.join(map(str, shapes))}. Return as many rows as there are images."
        )
    for shape in shapes:
        _check_size(shape[1:], wanted, several=len({shape[1:] for shape in shapes}) > 1)
    return views


def _check_size(shape, wanted, several):
    if _fit(shape, wanted):
        return
    free = (None, None, wanted[-1])
    if shape[-1] != wanted[-1]:
        remedy = f"Build the encoder with input_shape={shape}."
    elif several:
        remedy = f"Build the encoder with input_shape={free}, which takes views of any size, or use views of one size."
    else:
        remedy = (
            "Set the size of the views, as in "
            f"keras_barlow.views.barlow_twins(image_size={wanted[0]}), or build the encoder with input_shape={shape}."
        )
    raise ValueError(
        f"Views must have the input shape of the encoder, {wanted}. Received: views of shape {shape}. {remedy}"
    )


def _fit(shape, other):
    """Whether two shapes are equal where both are known."""
    return len(shape) == len(other) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, other, strict=True)
    )


def _check_pair(view_a, view_b):
    """Refuses two views of different shapes."""
    known = all(getattr(view.shape, "rank", 4) is not None for view in (view_a, view_b))
    if known and not _fit(tuple(view_a.shape), tuple(view_b.shape)):
        raise ValueError(
            "The two views must have one shape. "
            f"Received: view_a.shape={tuple(view_a.shape)}, view_b.shape={tuple(view_b.shape)}"
        )
