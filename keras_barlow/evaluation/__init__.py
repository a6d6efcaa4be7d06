"""Evaluation of encoders: k-NN and linear probes, fine-tuning, detection, and measures of collapse."""

from keras_barlow import moved
from keras_barlow.evaluation.boxes import box_precision
from keras_barlow.evaluation.collapse import effective_rank, embedding_deviation, mean_correlation
from keras_barlow.evaluation.detection import detection_probe, feature_pyramid, retina_net
from keras_barlow.evaluation.features import extract_features
from keras_barlow.evaluation.fine_tuning import fine_tune
from keras_barlow.evaluation.frozen_probes import linear_probe, multi_stage_probe
from keras_barlow.evaluation.head_training import train_heads
from keras_barlow.evaluation.knn import knn_accuracy, knn_predict, knn_scores, nearest_neighbors
from keras_barlow.evaluation.linear import few_label_accuracy, linear_accuracy, linear_scores, multi_label_scores
from keras_barlow.evaluation.protocol import evaluate_features
from keras_barlow.evaluation.scores import average_precision, mean_average_precision, top_k_accuracy

__all__ = [
    "average_precision",
    "box_precision",
    "detection_probe",
    "effective_rank",
    "embedding_deviation",
    "evaluate_features",
    "extract_features",
    "feature_pyramid",
    "few_label_accuracy",
    "fine_tune",
    "knn_accuracy",
    "knn_predict",
    "knn_scores",
    "linear_accuracy",
    "linear_probe",
    "linear_scores",
    "mean_average_precision",
    "mean_correlation",
    "multi_label_scores",
    "multi_stage_probe",
    "nearest_neighbors",
    "retina_net",
    "top_k_accuracy",
    "train_heads",
]


def __getattr__(name):
    return moved.attribute(f"evaluation.{name}")
