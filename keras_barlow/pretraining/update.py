"""The result of a training step, on either engine."""

from typing import NamedTuple


class Update(NamedTuple):
    """The result of a step.

    Attributes:
        terms: Dictionary of the loss terms of the global batch.
        gradients: List of this replica's gradients of the trainable weights, which add up over replicas.
        penalty: This replica's share of the penalties, or None if there are none.
        embeddings: Tuple of the embeddings of this replica's rows.
    """

    terms: dict
    gradients: list
    penalty: object
    embeddings: tuple
