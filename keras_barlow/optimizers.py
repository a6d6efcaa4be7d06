"""LARS and SGD as the papers use them. Use them with the schedules of `keras.optimizers.schedules`."""

import keras
from keras import ops

from keras_barlow import keras_internals


class _WithMomentum(keras_internals.DecayInUpdateStep, keras.optimizers.Optimizer):
    """Base class of optimizers with a momentum of the gradient, to which the learning rate is applied last."""

    def __init__(self, learning_rate, momentum, weight_decay, name, **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.momentum = momentum

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def _decayed(self, gradient, variable):
        """The gradient plus the weight decay, where the variable has one."""
        if self.weight_decay and self.is_decayed(variable):
            gradient = gradient + ops.cast(self.weight_decay, variable.dtype) * variable
        return gradient

    def _move(self, variable, gradient, learning_rate):
        """`m = momentum * m + g`, `w = w - learning_rate * m`."""
        momentum = self.momentums[self.index_of(variable)]
        step = ops.cast(self.momentum, variable.dtype) * momentum + gradient
        self.assign(momentum, step)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable(package="keras_barlow")
class LARS(_WithMomentum):
    """Layer-wise adaptive rate scaling, as in the Barlow Twins reference implementation.

    For a variable `w` of rank 2 or more, with gradient `g`:

        g = g + weight_decay * w
        g = g * trust_coefficient * ||w|| / ||g||      (a factor of 1 where either norm is zero)
        m = momentum * m + g
        w = w - learning_rate * m

    Variables of rank 1 or less (biases, and scales and shifts of batch normalization) skip the decay and the trust
    ratio and may have their own learning rate. The decay is added before the trust ratio, and the momentum is updated
    before the learning rate is applied. Variables passed to `exclude_from_weight_decay` skip only the decay.

    Args:
        learning_rate: Float or `keras.optimizers.schedules.LearningRateSchedule`, the learning rate of variables of
            rank 2 or more. The paper uses 0.2 per 256 images of the global batch.
        momentum: Float in [0, 1), the decay of the momentum.
        trust_coefficient: Positive float that scales the trust ratio.
        clip: Whether no step is larger than that of SGD: the trust ratio is divided by the learning rate and clipped at
            1, as in the recipes of solo-learn for CIFAR.
        weight_decay: Float, the L2 decay that is added to the gradient.
        vector_learning_rate: Learning rate of variables of rank 1 or less: a float, a schedule, or None for
            `learning_rate`. A callback that scales `learning_rate` (`LearningRateScheduler`, `ReduceLROnPlateau`)
            scales it by the same factor. The reference code uses 0.0048 per 256 images, but its gradients are too small
            by a factor of its number of devices, unlike those of this package (see `recipes`).
        name: Name of the optimizer.
        **kwargs: Keyword arguments of `keras.optimizers.Optimizer` (`clipnorm`, `use_ema`, ...).

    Raises:
        ValueError: If the momentum is outside [0, 1) or the trust coefficient is not positive.

    Example:

    >>> schedule = keras.optimizers.schedules.CosineDecay(
    ...     0.0, decay_steps=38_000, alpha=0.001, warmup_target=0.4, warmup_steps=2_000)
    >>> optimizer = LARS(learning_rate=schedule, vector_learning_rate=0.0006)

    References:
        You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks,
        https://arxiv.org/abs/1708.03888
    """

    def __init__(
        self,
        learning_rate=0.2,
        momentum=0.9,
        trust_coefficient=0.001,
        weight_decay=1e-6,
        vector_learning_rate=None,
        clip=False,
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name, **kwargs)
        if trust_coefficient <= 0:
            raise ValueError(f"`trust_coefficient` must be positive. Received: trust_coefficient={trust_coefficient}")
        # Callbacks cannot change a schedule, so only a float can be scaled later.
        self._initial_learning_rate = None if callable(learning_rate) else float(learning_rate)
        self.trust_coefficient = trust_coefficient
        self.clip = clip
        self.vector_learning_rate = vector_learning_rate

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        if len(variable.shape) > 1:
            gradient = self._decayed(gradient, variable)
            ratio = self._trust_ratio(variable, gradient)
            if self.clip:
                ratio = ops.minimum(ratio / ops.cast(learning_rate, dtype), 1.0)
            gradient = gradient * ratio
        elif self.vector_learning_rate is not None:
            learning_rate = self._current_vector_learning_rate()
        self._move(variable, gradient, learning_rate)

    def _trust_ratio(self, variable, gradient):
        weight_norm = ops.sqrt(ops.sum(ops.square(variable)))
        gradient_norm = ops.sqrt(ops.sum(ops.square(gradient)))
        defined = ops.logical_and(weight_norm > 0, gradient_norm > 0)
        ratio = self.trust_coefficient * weight_norm / ops.where(defined, gradient_norm, 1.0)
        return ops.where(defined, ratio, 1.0)

    def _current_vector_learning_rate(self):
        rate = self.vector_learning_rate
        if callable(rate):
            rate = rate(self.iterations)
        if not self._initial_learning_rate:
            return rate
        return rate * (self.learning_rate / self._initial_learning_rate)

    def get_config(self):
        config = super().get_config()
        vector_learning_rate = self.vector_learning_rate
        if isinstance(vector_learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            vector_learning_rate = keras.optimizers.schedules.serialize(vector_learning_rate)
        elif vector_learning_rate is not None and self._initial_learning_rate and config["learning_rate"]:
            # Keras saves the current learning rate in the config, so scale the vector rate to match.
            vector_learning_rate *= config["learning_rate"] / self._initial_learning_rate
        return {
            **config,
            "momentum": self.momentum,
            "trust_coefficient": self.trust_coefficient,
            "vector_learning_rate": vector_learning_rate,
            "clip": self.clip,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if isinstance(config.get("vector_learning_rate"), dict):
            config["vector_learning_rate"] = keras.optimizers.schedules.deserialize(
                config["vector_learning_rate"], custom_objects=custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)


@keras.saving.register_keras_serializable(package="keras_barlow")
class SGD(_WithMomentum):
    """SGD with momentum whose weight decay is part of the gradient, as in PyTorch.

        g = g + weight_decay * w
        m = momentum * m + g
        w = w - learning_rate * m

    `keras.optimizers.SGD` decays the weights beside the momentum, which is another number for the same arguments.

    Args:
        learning_rate: Float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: Float in [0, 1), the decay of the momentum.
        weight_decay: Float, the L2 decay of all variables. `exclude_from_weight_decay` exempts some.
        constant_rates: Dictionary from paths of variables to constant learning rates, see `exclude_from_schedule`.
        name: Name of the optimizer.
        **kwargs: Keyword arguments of `keras.optimizers.Optimizer` (`clipnorm`, `use_ema`, ...).

    Raises:
        ValueError: If the momentum is outside [0, 1).

    Example:

    >>> optimizer = SGD(learning_rate=0.05, weight_decay=1e-4)
    """

    def __init__(self, learning_rate=0.05, momentum=0.9, weight_decay=1e-4, constant_rates=None, name="sgd", **kwargs):
        super().__init__(learning_rate, momentum, weight_decay, name, **kwargs)
        self.constant_rates = dict(constant_rates or {})

    def exclude_from_schedule(self, variables, learning_rate):
        """Trains some variables with a constant learning rate, such as the predictor of SimSiam.

        Args:
            variables: List of `keras.Variable`s.
            learning_rate: Their learning rate, a float.
        """
        self.constant_rates.update({variable.path: learning_rate for variable in variables})

    def build(self, variables):
        super().build(variables)
        self._paths = [variable.path for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        gradient = self._decayed(ops.cast(gradient, variable.dtype), variable)
        # Keras passes TensorFlow's variable, which has no path.
        rate = self.constant_rates.get(self._paths[self.index_of(variable)], learning_rate)
        self._move(variable, gradient, rate)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "constant_rates": self.constant_rates}
