"""COCO's average precision of boxes."""

import contextlib
import io

import numpy as np

from keras_barlow.labels import checked_labels

REMEDY = 'Install them with pip install "keras-barlow[detection]".'


def box_precision(boxes, labels, confidence, true_boxes, true_labels):
    """COCO's average precision of boxes, by pycocotools.

    Args:
        boxes: Float array `(n, found, 4)`: left, top, right and bottom in pixels.
        labels: Integer array `(n, found)`; -1 where nothing was found.
        confidence: Float array `(n, found)`.
        true_boxes: Float array `(n, objects, 4)`.
        true_labels: Integer array `(n, objects)`; -1 where there is no object.

    Returns:
        A dictionary of floats in [0, 1]: `ap`, the mean over intersections over union of 0.5, 0.55, ..., 0.95 and over
        classes, `ap50` and `ap75`.

    Raises:
        ImportError: If pycocotools is not installed.
        ValueError: If boxes, labels and confidences do not fit together, if one that counts is NaN or infinite, or if
            there are no objects.

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
    boxes, labels = checked_boxes("found", boxes, labels)
    confidence = _checked_confidence(confidence, labels)
    if len(boxes) != len(true_boxes):
        raise ValueError(
            "Boxes must be found for the images that have the true ones. "
            f"Received: {len(boxes)} images with boxes found, {len(true_boxes)} with true ones."
        )
    if not (true_labels >= 0).any():
        raise ValueError("There must be an object to find. Received: labels of -1 only. Add images with objects.")
    truth = _records(true_boxes, true_labels)
    found = _records(boxes, labels, confidence)
    if not found:
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in range(len(true_boxes))],
        "categories": [{"id": number} for number in sorted({record["category_id"] for record in truth})],
        "annotations": truth,
        "info": {},
    }
    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return dict(zip(("ap", "ap50", "ap75"), (float(value) for value in judged.stats[:3]), strict=True))


def _records(boxes, labels, confidence=None):
    """What COCO calls annotations, and with a confidence results."""
    records = []
    for number, (image, place) in enumerate(np.argwhere(labels >= 0), start=1):
        left, top, right, bottom = boxes[image, place].tolist()
        record = {
            "id": number,
            "image_id": int(image),
            "category_id": int(labels[image, place]),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if confidence is not None:
            record["score"] = float(confidence[image, place])
        records.append(record)
    return records


def checked_boxes(name, boxes, labels):
    """Boxes in float64 and labels in int64, if all that count are there and finite.

    To pycocotools a box of NaN overlaps every box.
    """
    boxes, labels = np.asarray(boxes, "float64"), np.asarray(labels)
    if labels.ndim != 2 or boxes.shape != (*labels.shape, 4):
        raise ValueError(
            "There must be boxes (n, objects, 4) and labels (n, objects). "
            f"Received: {name} boxes {boxes.shape} and {name} labels {labels.shape}."
        )
    # -1 means no object; for the rest of the rules one more is as good.
    if labels.size:
        labels = checked_labels(labels.ravel() + 1, name=f"{name} labels + 1").reshape(labels.shape) - 1
    counted = labels >= 0
    broken = counted & ~np.isfinite(boxes).all(axis=-1)
    if broken.any():
        raise ValueError(
            f"Boxes must be finite. Received: NaN or infinite sides of {broken.sum()} {name} boxes, first in image "
            f"{np.argwhere(broken)[0, 0]}. Train the detector with a lower learning rate if they are its own; give "
            "places without an object the label -1."
        )
    if name == "true":
        empty = counted & ~((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]))
        if empty.any():
            raise ValueError(
                "True boxes must be left, top, right and bottom, of some area. "
                f"Received: {boxes[empty][0].tolist()} in image {np.argwhere(empty)[0, 0]}. Add left and top to width "
                "and height, and leave out boxes without an area."
            )
    return boxes, labels


def _checked_confidence(confidence, labels):
    confidence = np.asarray(confidence, "float64")
    if confidence.shape != labels.shape:
        raise ValueError(
            f"Every box found must have a confidence. Received: {confidence.shape} for labels {labels.shape}."
        )
    broken = (labels >= 0) & ~np.isfinite(confidence)
    if broken.any():
        raise ValueError(
            f"Confidences must be finite, so that boxes can be ranked. Received: NaN or infinite values for "
            f"{broken.sum()} boxes, first in image {np.argwhere(broken)[0, 0]}. Train the detector with a lower "
            "learning rate."
        )
    return confidence
