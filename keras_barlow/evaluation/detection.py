"""The encoder as the backbone of KerasHub's RetinaNet, and the precision of the boxes that it finds.

The paper's own detectors (Faster R-CNN and Mask R-CNN with a C4 backbone, Detectron2) belong to another framework; this
is the way to detection within Keras.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_barlow import randomness
from keras_barlow.encoders import stage_outputs
from keras_barlow.evaluation.boxes import REMEDY, box_precision, checked_boxes


def feature_pyramid(encoder, image_size):
    """A copy of an encoder that gives its feature maps by level, for images of another size.

    Args:
        encoder: Functional `keras.Model` of `encoders`.
        image_size: Side of the images, in pixels.

    Returns:
        A `keras.Model` from images on 0..255 to the last feature map, with `pyramid_outputs`, the dictionary that
        KerasHub asks of a backbone: `"P3"` is the last map of 1/8 of the side. Its batch normalisation is frozen, as
        detection has few images in a batch.

    Raises:
        ValueError: If the encoder has no feature maps.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet18((32, 32, 3), stem="small", width=4)
    >>> {level: tuple(map.shape) for level, map in feature_pyramid(encoder, 64).pyramid_outputs.items()}
    {'P0': (None, 64, 64, 4), 'P1': (None, 32, 32, 8), 'P2': (None, 16, 16, 16), 'P3': (None, 8, 8, 32)}
    """
    stage_outputs(encoder)
    images = keras.Input((image_size, image_size, encoder.input_shape[-1]), name="images")
    # Keras 3.10 wants the structure of the encoder's own input, which is a list in a loaded model.
    copy = keras.models.clone_model(encoder, input_tensors=keras.tree.pack_sequence_as(encoder.input, [images]))
    copy.set_weights(encoder.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    # The last one of its resolution stays.
    levels = {f"P{round(math.log2(image_size / one.shape[1]))}": one for one in stage_outputs(copy)}
    backbone = keras.Model(copy.inputs[0], list(levels.values())[-1], name="backbone")
    backbone.pyramid_outputs = levels
    return backbone


def retina_net(encoder, classes, image_size, convolutions=4):
    """KerasHub's RetinaNet on an encoder.

    Encoders for large images give the levels 3 to 5 and get 6 and 7, as RetinaNet has them; those for small images,
    whose last map is of 1/8 or 1/4, the levels 2 and 3, with anchors from 16 to 50 pixels.

    Args:
        encoder: Functional `keras.Model` of `encoders`. A copy of it becomes the backbone.
        classes: Number of classes.
        image_size: Side of the images, in pixels, a multiple of the coarsest stride.
        convolutions: In each of the two heads.

    Returns:
        A `keras_hub.models.RetinaNetObjectDetector` with boxes `"xyxy"` in pixels, on images of 0..255.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If the encoder has no feature maps.

    References:
        Lin et al.: Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(f"Detection needs keras-hub and pycocotools. {REMEDY}") from error
    pyramid = feature_pyramid(encoder, image_size)
    last = max(int(level[1:]) for level in pyramid.pyramid_outputs)
    backbone = keras_hub.models.RetinaNetBackbone(
        pyramid,
        min_level=min(last, max(2, last - 2)),
        max_level=last + 2 if last >= 5 else max(last, 3),
        use_p5=last >= 5,
        image_shape=(image_size, image_size, encoder.input_shape[-1]),
    )
    detector = keras_hub.models.RetinaNetObjectDetector(
        backbone,
        classes,
        bounding_box_format="xyxy",
        pre_logits_num_conv_layers=convolutions,
        # Precision is measured over all recalls: boxes of which the detector is in doubt count, too.
        prediction_decoder=keras_hub.layers.NonMaxSuppression("xyxy", from_logits=True, confidence_threshold=0.05),
    )
    # At first nearly every anchor is background, which the scores should say (section 4.1 of the paper). KerasHub 0.32
    # gives that bias to the boxes instead.
    detector.classification_head.prediction_layer.bias.assign(
        keras.ops.full_like(detector.classification_head.prediction_layer.bias, -math.log(99.0))
    )
    detector.box_head.prediction_layer.bias.assign(keras.ops.zeros_like(detector.box_head.prediction_layer.bias))
    return detector


def detection_probe(
    encoder, train, test, classes, epochs=10, batch_size=16, learning_rate=1e-3, convolutions=1, seed=0, verbose=0
):
    """Trains a RetinaNet on an encoder, all of it, and judges the boxes that it finds.

    Args:
        encoder: Functional `keras.Model` of `encoders`. It is not changed.
        train: `data.Scenes`, or a triple of such arrays.
        test: The same.
        classes: Number of classes.
        epochs: Passes over `train`.
        batch_size: Images per step.
        learning_rate: Of Adam, at the beginning; a cosine takes it to 0.
        convolutions: In each of the detector's two heads.
        seed: Of the detector's weights and of the order.
        verbose: As for `keras.Model.fit`.

    Returns:
        The dictionary of `box_precision`.

    Raises:
        ImportError: If KerasHub or pycocotools is not installed.
        ValueError: If boxes, labels and images do not fit together, or the encoder has no feature maps.
    """
    for name, scenes in (("train", train), ("test", test)):
        _check_scenes(name, *scenes, classes)
    images, boxes, labels = train
    examples = tf.data.Dataset.from_tensor_slices((images, {"boxes": boxes, "labels": labels}))
    # KerasHub's layers take no seed, and the order of a dataset depends on TensorFlow's global seed too.
    with randomness.seeded(seed):
        detector = retina_net(encoder, classes, images.shape[1], convolutions)
        examples = examples.shuffle(len(images), seed=seed).batch(batch_size).prefetch(1)
    steps = epochs * math.ceil(len(images) / batch_size)
    # Without a limit the first steps of the untrained heads undo what the encoder has learnt.
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), global_clipnorm=1.0)
    detector.compile(optimizer=optimizer)
    detector.fit(examples, epochs=epochs, shuffle=False, verbose=verbose)
    # KerasHub's suppression of overlapping boxes wants to know the size of a batch: the last one is filled up.
    count = len(test[0])
    filled = np.resize(test[0], (math.ceil(count / batch_size) * batch_size, *test[0].shape[1:]))
    batches = tf.data.Dataset.from_tensor_slices(filled).batch(batch_size, drop_remainder=True)
    found = {name: part[:count] for name, part in detector.predict(batches, verbose=verbose).items()}
    return box_precision(found["boxes"], found["labels"], found["confidence"], test[1], test[2])


def _check_scenes(name, images, boxes, labels, classes):
    images, boxes, labels = (np.asarray(one) for one in (images, boxes, labels))
    if labels.ndim != 2 or boxes.shape != (*labels.shape, 4) or images.ndim != 4 or len(images) != len(labels):
        raise ValueError(
            "There must be boxes (n, objects, 4) and labels (n, objects) for n images. "
            f"Received: `{name}` with images {images.shape}, boxes {boxes.shape}, labels {labels.shape}."
        )
    _, labels = checked_boxes("true", boxes, labels)
    if labels.max() >= classes or not (labels >= 0).any():
        raise ValueError(
            f"Labels must be below classes={classes}, and there must be some. "
            f"Received: {labels.max()} as the highest label of `{name}`."
        )
