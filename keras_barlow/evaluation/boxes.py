"""COCO average precision of bounding boxes."""

import contextlib
import io

import numpy as np

from keras_barlow.labels import checked_labels

REMEDY = 'Install them with pip install "keras-barlow[detection]".'


def box_precision(boxes, labels, confidence, true_boxes, true_labels):
    """COCO average precision of predicted boxes, computed by pycocotools.

    Args:
        boxes: Float array `(n, predictions, 4)` of predicted boxes: left, top, right and bottom in pixels.
        labels: Integer array `(n, predictions)` of predicted class numbers, -1 for padding.
        confidence: Float array `(n, predictions)` of confidences.
        true_boxes: Float array `(n, objects, 4)` of true boxes.
        true_labels: Integer array `(n, objects)` of true class numbers, -1 for padding.

    Returns:
        A dictionary of floats in [0, 1]: `ap`, averaged over classes and over IoU thresholds 0.5, 0.55, ..., 0.95,
        `ap50` and `ap75`.

    Raises:
        ImportError: If pycocotools is not installed.
        ValueError: If the shapes do not match, a value outside the padding is NaN or infinite, or there are no true
            objects.

    Example:

    >>> box = [[[0, 0, 10, 10]]]
    >>> round(box_precision(box, [[3]], [[0.9]], box, [[3]])["ap"], 6)
    1.0

    References:
        https://cocodataset.org/#detection-eval
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(f"Detection needs keras-hub and pycocotools. {REMEDY}") from error
    true_boxes, true_labels = checked_boxes("true", true_boxes, true_labels)
    boxes, labels = checked_boxes("predicted", boxes, labels)
    confidence = _checked_confidence(confidence, labels)
    if len(boxes) != len(true_boxes):
        raise ValueError(
            "Predicted and true boxes must belong to the same images. "
            f"Received: {len(boxes)} images with predicted boxes and {len(true_boxes)} with true boxes. Pass "
            "one row per image for both, padded with labels of -1."
        )
    if not (true_labels >= 0).any():
        raise ValueError(
            "There must be at least one true object. Received: true labels of -1 only. Add images with objects."
        )
    truth = _records(true_boxes, true_labels)
    predictions = _records(boxes, labels, confidence)
    if not predictions:
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(len(true_boxes))],
        "categories": [{"id": number} for number in sorted({record["category_id"] for record in truth})],
        "annotations": truth,
        "info": {},
    }
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(predictions), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("ap", "ap50", "ap75"), (float(value) for value in evaluation.stats[:3]), strict=True))


def _records(boxes, labels, confidence=None):
    """Returns boxes in the format of COCO annotations, or of COCO results if there are confidences."""
    records = []
    for number, (image, column) in enumerate(np.argwhere(labels >= 0), start=1):
        left, top, right, bottom = boxes[image, column].tolist()
        record = {
            "id": number,
            "image_id": int(image),
            "category_id": int(labels[image, column]),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if confidence is not None:
            record["score"] = float(confidence[image, column])
        records.append(record)
    return records


def checked_boxes(name, boxes, labels):
    """Checks boxes and labels, because pycocotools counts a box of NaN as overlapping every box.

    Args:
        name: What error messages call the boxes: `"true"` or `"predicted"`.
        boxes: Float array `(n, objects, 4)`.
        labels: Integer array `(n, objects)`, -1 for padding.

    Returns:
        The pair of float64 boxes and int64 labels.

    Raises:
        ValueError: If the shapes do not match, labels are invalid, a box outside the padding is not finite, or a true
            box is empty.
    """
    boxes, labels = np.asarray(boxes, "float64"), np.asarray(labels)
    if labels.ndim != 2 or boxes.shape != (*labels.shape, 4):
        raise ValueError(
            "There must be boxes (n, objects, 4) and labels (n, objects). "
            f"Received: {name} boxes {boxes.shape} and {name} labels {labels.shape}. Pad images that have fewer "
            "objects with labels of -1."
        )
    # Shifting by one turns the padding of -1 into a valid class number.
    if labels.size:
        labels = checked_labels(labels.ravel() + 1, name=f"{name} labels + 1").reshape(labels.shape) - 1
    real = labels >= 0
    broken = real & ~np.isfinite(boxes).all(axis=-1)
    if broken.any():
        raise ValueError(
            f"Boxes must be finite. Received: NaN or infinite sides of {broken.sum()} {name} boxes, first in image "
            f"{np.argwhere(broken)[0, 0]}. Train the detector with a lower learning rate if it predicted them, and "
            "label padding as -1."
        )
    if name == "true":
        empty = real & ~((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]))
        if empty.any():
            raise ValueError(
                "True boxes must be (left, top, right, bottom) with a positive area. "
                f"Received: {boxes[empty][0].tolist()} in image {np.argwhere(empty)[0, 0]}. Convert (left, top, width, "
                "height) by adding left and top, and drop empty boxes."
            )
    return boxes, labels


def _checked_confidence(confidence, labels):
    confidence = np.asarray(confidence, "float64")
    if confidence.shape != labels.shape:
        raise ValueError(
            f"Every predicted box must have a confidence. Received: {confidence.shape} for labels {labels.shape}. Pass "
            "a confidence for padding too."
        )
    broken = (labels >= 0) & ~np.isfinite(confidence)
    if broken.any():
        raise ValueError(
            "Confidences must be finite, so that boxes can be ranked. Received: NaN or infinite values for "
            f"{broken.sum()} boxes, first in image {np.argwhere(broken)[0, 0]}. Train the detector with a lower "
            "learning rate."
        )
    return confidence
