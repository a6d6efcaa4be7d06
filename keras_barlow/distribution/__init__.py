"""Replicas and workers: the only package that uses `tf.distribute`, `keras.distribution` and the processes of JAX."""

from keras_barlow import engine
from keras_barlow.distribution.share import Share

if engine.on_jax():
    from keras_barlow.distribution.global_arrays import (
        agreement,
        all_finite,
        compiling_pays,
        distribute,
        from_all_workers,
        from_chief,
        gather_rows,
        get_strategy,
        is_chief,
        lost_worker,
        next_rows,
        own_rows,
        replica_count,
        row_counts,
        strategy_of,
        sum_on_first_replica,
        sum_over_replicas,
        worker_count,
        worker_index,
    )
else:
    from keras_barlow.distribution.replicas import (
        all_finite,
        gather_rows,
        next_rows,
        own_rows,
        replica_count,
        row_counts,
        sum_on_first_replica,
        sum_over_replicas,
    )
    from keras_barlow.distribution.strategies import MultiWorkerStrategy as MultiWorkerStrategy
    from keras_barlow.distribution.strategies import compiling_pays, get_strategy, strategy_of
    from keras_barlow.distribution.workers import (
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
    "Share",
    "agreement",
    "all_finite",
    "compiling_pays",
    "distribute",
    "from_all_workers",
    "from_chief",
    "gather_rows",
    "get_strategy",
    "is_chief",
    "lost_worker",
    "next_rows",
    "own_rows",
    "replica_count",
    "row_counts",
    "strategy_of",
    "sum_on_first_replica",
    "sum_over_replicas",
    "worker_count",
    "worker_index",
]
