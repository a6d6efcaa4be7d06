"""Object detection with an encoder as the backbone of KerasHub's RetinaNet.

The paper uses Detectron2 (Faster R-CNN and Mask R-CNN with a C4 backbone), which is not available in Keras.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_barlow import randomness
from keras_barlow.encoders import stage_outputs
from keras_barlow.evaluation.boxes import REMEDY, box_precision, checked_boxes


def feature_pyramid(encoder, image_size):
    """Copies an encoder into a backbone with one feature map per pyramid level.

    Batch normalization is frozen, because detection uses small batches.

    Args:
        encoder: Functional `keras.Model` of `encoders`.
        image_size: Side of the images in pixels. It may differ from the encoder's.

    Returns:
        A `keras.Model` from images on 0..255 to the last feature map. Its attribute `pyramid_outputs`, which KerasHub
        requires, maps `"P3"` to the last feature map with 1/8 of the image side, and so on.

    Raises:
        ValueError: If the encoder has no stages.

    Example:

    >>> import keras_barlow as kb
    >>> encoder = kb.encoders.resnet18((32, 32, 3), stem="small", width=4)
    >>> {level: tuple(tensor.shape) for level, tensor in feature_pyramid(encoder, 64).pyramid_outputs.items()}
    {'P0': (None, 64, 64, 4), 'P1': (None, 32, 32, 8), 'P2': (None, 16, 16, 16), 'P3': (None, 8, 8, 32)}
    """
    stage_outputs(encoder)
    images = keras.Input((image_size, image_size, encoder.input_shape[-1]), name="images")
    # Keras 3.10 requires the structure of the encoder's own input, which is a list in a loaded model.
    copy = keras.models.clone_model(encoder, input_tensors=keras.tree.pack_sequence_as(encoder.input, [images]))
    copy.set_weights(encoder.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    # A later feature map replaces earlier ones of the same resolution.
    levels = {f"P{round(math.log2(image_size / output.shape[1]))}": output for output in stage_outputs(copy)}
    backbone = keras.Model(copy.inputs[0], list(levels.values())[-1], name="backbone")
    backbone.pyramid_outputs = levels
    return backbone


def retina_net(encoder, classes, image_size, convolutions=4):
    """Builds KerasHub's RetinaNet on a copy of an encoder.

    Encoders for large images use the pyramid levels 3 to 7 of the original RetinaNet. Encoders for small images, whose
    last feature map has 1/8 or 1/4 of the image side, use levels 2 and 3, with anchors of 16 to 50 pixels.

    Args:
        encoder: Functional `keras.Model` of `encoders`. It is not changed.
        classes: Number of classes.
        image_size: Side of the images in pixels, a multiple of the coarsest stride.
        convolutions: Number of convolutions in each of the two heads.

    Returns:
        A `keras_hub.models.RetinaNetObjectDetector` from images on 0..255 to boxes in `"xyxy"` format, in pixels.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If the encoder has no stages.

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
        # Average precision covers all recalls, so boxes of low confidence count too.
        prediction_decoder=keras_hub.layers.NonMaxSuppression("xyxy", from_logits=True, confidence_threshold=0.05),
    )
    # Nearly all anchors are background, so the initial scores should be low (section 4.1 of the paper). KerasHub 0.32
    # assigns this bias to the boxes instead.
    detector.classification_head.prediction_layer.bias.assign(
        keras.ops.full_like(detector.classification_head.prediction_layer.bias, -math.log(99.0))
    )
    detector.box_head.prediction_layer.bias.assign(keras.ops.zeros_like(detector.box_head.prediction_layer.bias))
    return detector


def detection_probe(
    encoder, train, test, classes, epochs=10, batch_size=16, learning_rate=1e-3, convolutions=1, seed=0, verbose=0
):
    """Trains a RetinaNet end to end on a copy of an encoder and measures its average precision.

    Args:
        encoder: Functional `keras.Model` of `encoders`. It is not changed.
        train: `data.Scenes` to train on, or a triple `(images, boxes, labels)` of arrays.
        test: `data.Scenes` to test on, or a triple `(images, boxes, labels)` of arrays.
        classes: Number of classes.
        epochs: Number of passes over `train`.
        batch_size: Images per step.
        learning_rate: Initial learning rate of Adam, which follows a cosine to 0.
        convolutions: Number of convolutions in each of the detector's two heads.
        seed: Integer seed of the detector's initial weights and of the order of images.
        verbose: Verbosity of `keras.Model.fit` and `predict`.

    Returns:
        A dictionary with `ap`, `ap50` and `ap75`, see `box_precision`.

    Raises:
        ImportError: If KerasHub or pycocotools is not installed.
        ValueError: If images, boxes and labels do not match, or the encoder has no stages.
    """
    for name, scenes in (("train", train), ("test", test)):
        _check_scenes(name, *scenes, classes)
    images, boxes, labels = train
    examples = tf.data.Dataset.from_tensor_slices((images, {"boxes": boxes, "labels": labels}))
    # KerasHub's layers have no seed argument, and `shuffle` also depends on TensorFlow's global seed.
    with randomness.seeded(seed):
        detector = retina_net(encoder, classes, images.shape[1], convolutions)
        examples = examples.shuffle(len(images), seed=seed).batch(batch_size).prefetch(1)
    steps = epochs * math.ceil(len(images) / batch_size)
    # Without clipping, the large gradients of the untrained heads would destroy the pre-trained features.
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), global_clipnorm=1.0)
    detector.compile(optimizer=optimizer)
    detector.fit(examples, epochs=epochs, shuffle=False, verbose=verbose)
    # KerasHub's non-maximum suppression needs a static batch size, so the last batch is padded.
    count = len(test[0])
    padded = np.resize(test[0], (math.ceil(count / batch_size) * batch_size, *test[0].shape[1:]))
    batches = tf.data.Dataset.from_tensor_slices(padded).batch(batch_size, drop_remainder=True)
    outputs = {name: array[:count] for name, array in detector.predict(batches, verbose=verbose).items()}
    return box_precision(outputs["boxes"], outputs["labels"], outputs["confidence"], test[1], test[2])


def _check_scenes(name, images, boxes, labels, classes):
    images, boxes, labels = (np.asarray(array) for array in (images, boxes, labels))
    if labels.ndim != 2 or boxes.shape != (*labels.shape, 4) or images.ndim != 4 or len(images) != len(labels):
        raise ValueError(
            "There must be boxes (n, objects, 4) and labels (n, objects) for n images. "
            f"Received: `{name}` with images {images.shape}, boxes {boxes.shape}, labels {labels.shape}. Pass one row "
            "of boxes and labels per image."
        )
    _, labels = checked_boxes("true", boxes, labels)
    if labels.max() >= classes or not (labels >= 0).any():
        raise ValueError(
            f"Labels must be below classes={classes}, and at least one must not be -1. "
            f"Received: {labels.max()} as the highest label of `{name}`. Increase `classes`, or add scenes with "
            "objects."
        )
