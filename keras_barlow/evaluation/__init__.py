"""How good a representation is: frozen features, weighted k-NN, linear heads, fine-tuning."""

from keras_barlow.evaluation.collapse import effective_rank, embedding_deviation, mean_correlation
from keras_barlow.evaluation.detection import box_precision, detection_probe, feature_pyramid, retina_net
from keras_barlow.evaluation.features import extract_features
from keras_barlow.evaluation.heads import fine_tune, linear_probe, multi_stage_probe, train_heads
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
