"""How good a representation is: frozen features, weighted k-NN, linear probes."""

from keras_barlow.evaluation.features import extract_features
from keras_barlow.evaluation.knn import knn_accuracy, knn_predict, nearest_neighbors
from keras_barlow.evaluation.linear import few_label_accuracy, linear_accuracy
from keras_barlow.evaluation.protocol import evaluate_features

__all__ = [
    "evaluate_features",
    "extract_features",
    "few_label_accuracy",
    "knn_accuracy",
    "knn_predict",
    "linear_accuracy",
    "nearest_neighbors",
]
