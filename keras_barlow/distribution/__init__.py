"""Replicas and workers: the only package that uses `tf.distribute`."""

from keras_barlow.distribution.replicas import (
    all_finite,
    gather_rows,
    next_rows,
    own_rows,
    replica_count,
    row_counts,
    rows_after,
    sum_on_first_replica,
    sum_over_replicas,
)
from keras_barlow.distribution.strategies import MultiWorkerStrategy, compiling_pays, get_strategy
from keras_barlow.distribution.workers import (
    Share,
    agreement,
    distribute,
    from_all_workers,
    from_chief,
    is_chief,
    lost_worker,
    worker_count,
    worker_index,
)

__all__ = [
    "MultiWorkerStrategy",
    "Share",
    "agreement",
    "all_finite",
    "compiling_pays",
    "distribute",
    "from_all_workers",
    "from_chief",
    "gather_rows",
    "next_rows",
    "get_strategy",
    "is_chief",
    "lost_worker",
    "own_rows",
    "replica_count",
    "row_counts",
    "rows_after",
    "sum_on_first_replica",
    "sum_over_replicas",
    "worker_count",
    "worker_index",
]
