"""Which replicas there are: choosing a strategy, and several workers that Keras can use."""

import importlib.metadata
import json
import os

import tensorflow as tf

NAMES = ("auto", "none", "mirrored", "multi_worker", "tpu")


def get_strategy(name="auto"):
    """The `tf.distribute` strategy of this process. Call it before anything else of TensorFlow.

    | name | replicas |
    |---|---|
    | `"none"` | one, on the first GPU or the CPU |
    | `"mirrored"` | every GPU of this machine, or every logical CPU device where there is none |
    | `"multi_worker"` | those of all workers, which `TF_CONFIG` or Slurm names; NCCL on GPUs, gRPC rings on CPUs |
    | `"tpu"` | every core of the TPU, needs `tensorflow-tpu` 2.18 or later; not yet run on hardware |
    | `"auto"` | the first that fits: several workers, a TPU, several GPUs, one replica |

    Args:
        name: See above.

    Returns:
        A `tf.distribute.Strategy`: create the model in its `scope()`.

    Raises:
        ValueError: If the name is unknown, or there is nothing of the kind.

    Example:

    >>> with get_strategy("none").scope():
    ...     layer = tf.keras.layers.Dense(2)
    """
    if name not in NAMES:
        raise ValueError(f"The strategy must be one of {', '.join(NAMES)}. Received: {name!r}.")
    if name == "auto":
        name = _what_is_there()
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
    """`tf.distribute.MultiWorkerMirroredStrategy` with which Keras 3 can `fit`.

    Keras hands `reduce` nests of values, and scalars together with an axis, both of which TensorFlow refuses
    (keras-team/keras#20585).

    Args:
        cluster_resolver: `tf.distribute.cluster_resolver.ClusterResolver` that names the workers.
    """

    def __init__(self, cluster_resolver):
        super().__init__(cluster_resolver=cluster_resolver)

    def reduce(self, reduce_op, value, axis=None):
        """See `tf.distribute.Strategy.reduce`; any nest of values, and no axis where the values are scalars."""
        reduce = super().reduce

        def reduced(value):
            scalar = tf.convert_to_tensor(self.experimental_local_results(value)[0]).shape.rank == 0
            return reduce(reduce_op, value, axis=None if scalar else axis)

        return tf.nest.map_structure(reduced, value)


def compiling_pays(model):
    """Whether XLA around the whole step helps: one replica on an accelerator.

    On the CPU it makes this step slower (its matrix products and convolutions are not TensorFlow's), and
    with several replicas it fails on the collectives; on a TPU the strategy compiles it anyway.

    Args:
        model: The `keras.Model` that is to be compiled.

    Returns:
        A Python boolean.
    """
    return bool(tf.config.list_logical_devices("GPU")) and model.distribute_strategy.num_replicas_in_sync == 1


def _what_is_there():
    if _worker_resolver() is not None:
        return "multi_worker"
    if _has_tensorflow_tpu():
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _worker_resolver():
    """Of TF_CONFIG, or of Slurm if a step has several tasks, or None."""
    text = os.environ.get("TF_CONFIG")
    if text is not None:
        try:
            config = json.loads(text)
            workers, index = config["cluster"]["worker"], int(config["task"]["index"])
            if not (len(workers) == len(set(workers)) and index in range(len(workers))):
                raise ValueError("its index has no worker, or two workers have one address")
            if config["task"]["type"] != "worker":
                raise ValueError(f"its type is {config['task']['type']!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                'TF_CONFIG must name this worker, {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
                f'"worker", "index": 0}}}}. Received: {text} ({error!r}).'
            ) from error
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return tf.distribute.cluster_resolver.SlurmClusterResolver({"worker": int(os.environ["SLURM_STEP_NUM_TASKS"])})
    return None


def _has_tensorflow_tpu():
    """Whether the TensorFlow that is installed is the one for TPUs, which nobody installs elsewhere."""
    try:
        importlib.metadata.version("tensorflow-tpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _tpu_strategy():
    # A TPU of another machine has a name; today's machines hold their own.
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    # Without a TPU each version of TensorFlow fails in a way of its own.
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(
            f'The strategy "tpu" needs a TPU. Received: none that TensorFlow {tf.__version__} can use ({what}). '
            "On a TPU machine install tensorflow-tpu 2.18 or later, in place of tensorflow."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
