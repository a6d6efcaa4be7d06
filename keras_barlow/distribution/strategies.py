"""Choosing a strategy, and a multi-worker strategy that works with Keras."""

import importlib.metadata
import json
import os

import tensorflow as tf

NAMES = ("auto", "none", "mirrored", "multi_worker", "tpu")


def get_strategy(name="auto"):
    """Returns the `tf.distribute` strategy of this process. Call it before any other TensorFlow function.

    | name | replicas |
    |---|---|
    | `"none"` | one, on the first GPU or the CPU |
    | `"mirrored"` | all GPUs of this machine, or all logical CPU devices if there is no GPU |
    | `"multi_worker"` | those of all workers listed by `TF_CONFIG` or Slurm; NCCL on GPUs, gRPC rings on CPUs |
    | `"tpu"` | all cores of the TPU; needs `tensorflow-tpu` 2.18 or later; not yet tested on hardware |
    | `"auto"` | the first that applies: several workers, a TPU, several GPUs, one replica |

    Args:
        name: One of the names in the table.

    Returns:
        A `tf.distribute.Strategy`. Create the model in its `scope()`.

    Raises:
        ValueError: If the name is unknown, or the strategy is not available.

    Example:

    >>> with get_strategy("none").scope():
    ...     layer = tf.keras.layers.Dense(2)
    """
    if name not in NAMES:
        raise ValueError(f"The strategy must be one of {', '.join(NAMES)}. Received: {name!r}.")
    if name == "auto":
        name = _available_strategy()
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        if tf.config.list_logical_devices("GPU"):
            return tf.distribute.MirroredStrategy()
        return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices("CPU")])
    if name == "tpu":
        return _tpu_strategy()
    resolver = _worker_resolver()
    if resolver is None:
        raise ValueError(
            'The strategy "multi_worker" needs to know the workers. Received: neither TF_CONFIG nor the variables of '
            "a Slurm job step. Start local workers with python -m keras_barlow.launch --workers=2 script.py, or set "
            "TF_CONFIG on every machine."
        )
    return MultiWorkerStrategy(resolver)


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy` that works with `fit` of Keras 3.

    Keras passes nested values to `reduce`, and scalars together with an axis. TensorFlow rejects both
    (keras-team/keras#20585; Keras 3.10 to 3.15, TensorFlow 2.18 to 2.21).

    Args:
        cluster_resolver: `tf.distribute.cluster_resolver.ClusterResolver` that lists the workers.
    """

    def __init__(self, cluster_resolver):
        super().__init__(cluster_resolver=cluster_resolver)

    def reduce(self, reduce_op, value, axis=None):
        """Reduces any nest of values, and ignores the axis for scalars. See `tf.distribute.Strategy.reduce`."""
        reduce = super().reduce

        def reduced(value):
            scalar = tf.convert_to_tensor(self.experimental_local_results(value)[0]).shape.rank == 0
            return reduce(reduce_op, value, axis=None if scalar else axis)

        return tf.nest.map_structure(reduced, value)


def compiling_pays(model):
    """Returns whether to compile the training step with XLA: only on a single GPU.

    On the CPU, XLA makes this step slower, because it does not use TensorFlow's matrix products and convolutions. With
    several replicas, XLA fails on the collectives. On a TPU, the strategy compiles the step in any case.

    Args:
        model: `keras.Model` to compile.

    Returns:
        A Python boolean.
    """
    return bool(tf.config.list_logical_devices("GPU")) and model.distribute_strategy.num_replicas_in_sync == 1


def strategy_of(model):
    """Returns the strategy of a model.

    Args:
        model: `keras.Model`.

    Returns:
        A `tf.distribute.Strategy`.
    """
    return model.distribute_strategy


def _available_strategy():
    if _worker_resolver() is not None:
        return "multi_worker"
    if _has_tensorflow_tpu():
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _worker_resolver():
    """Returns the cluster resolver of TF_CONFIG, or of a Slurm step with several tasks, or None."""
    text = os.environ.get("TF_CONFIG")
    if text is not None:
        try:
            config = json.loads(text)
            workers, index = config["cluster"]["worker"], int(config["task"]["index"])
            if not (len(workers) == len(set(workers)) and index in range(len(workers))):
                raise ValueError("the index has no worker, or two workers have the same address")
            if config["task"]["type"] != "worker":
                raise ValueError(f"the type is {config['task']['type']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                'TF_CONFIG must list the workers and name this one, {"cluster": {"worker": ["host:port", ...]}, '
                f'"task": {{"type": "worker", "index": 0}}}}. Received: {text} ({error!r}). '
                "Unset it to run without workers."
            ) from error
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return tf.distribute.cluster_resolver.SlurmClusterResolver({"worker": int(os.environ["SLURM_STEP_NUM_TASKS"])})
    return None


def _has_tensorflow_tpu():
    """Returns whether TensorFlow for TPUs is installed, which indicates a TPU machine."""
    try:
        importlib.metadata.version("tensorflow-tpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _tpu_strategy():
    # A remote TPU has a name. Current TPU machines have local TPUs.
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Without a TPU, the type of error depends on the TensorFlow version.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(
            f'The strategy "tpu" needs a TPU. Received: none that TensorFlow {tf.__version__} can use ({reason}). '
            "On a TPU machine, install tensorflow-tpu 2.18 or later instead of tensorflow."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
