"""What every method shares: the model, its exact training step, and what surrounds `fit`."""

from keras_barlow.pretraining.model import JointEmbedding

__all__ = ["JointEmbedding"]
