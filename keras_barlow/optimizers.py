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
        # Keras passes TensorFlow's variables to `update_step`, which have no path.
        self._paths = [variable.path for variable in variables]

    def _path(self, variable):
        return self._paths[self.index_of(variable)]

    def _decayed(self, gradient, variable):
        """The gradient plus the weight decay, where the variable has one."""
        if self.weight_decay and self.is_decayed(variable):
            # Python numbers: TensorFlow would round them to float32 before a cast.
            gradient = gradient + self.weight_decay * variable
        return gradient

    def _move(self, variable, gradient, learning_rate):
        """`m = momentum * m + g`, `w = w - learning_rate * m`."""
        momentum = self.momentums[self.index_of(variable)]
        step = self.momentum * momentum + gradient
        self.assign(momentum, step)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


@keras.saving.register_keras_serializable(package="keras_barlow")
class LARS(_WithMomentum):
    """Layer-wise adaptive rate scaling, as in the Barlow Twins reference implementation or as in solo-learn.

    For a variable `w` of rank 2 or more, with gradient `g`:

        g = g + weight_decay * w
        g = g * trust_coefficient * ||w|| / ||g||      (a factor of 1 where either norm is zero)
        m = momentum * m + g
        w = w - learning_rate * m

    The decay is added before the trust ratio, and the momentum is updated before the learning rate is applied. With
    `trust_clip=True`, the first two lines become

        ratio = trust_coefficient * ||w|| / (||g|| + weight_decay * ||w||)
        g = (g + weight_decay * w) * min(ratio / learning_rate, 1)      (g itself where either norm is zero)

    so that no step is larger than that of SGD.

    Variables of rank 1 or less (biases, and scales and shifts of batch normalization) skip the decay and the trust
    ratio and may have their own learning rate.

    Args:
        learning_rate: Float or `keras.optimizers.schedules.LearningRateSchedule`, the learning rate of variables of
            rank 2 or more. The paper uses 0.2 per 256 images of the global batch.
        momentum: Float in [0, 1), the decay of the momentum.
        trust_coefficient: Positive float that scales the trust ratio.
        weight_decay: Float, the L2 decay that is added to the gradient.
        vector_learning_rate: Learning rate of variables of rank 1 or less: a float, a schedule, or None for
            `learning_rate`. Callbacks can set the attribute of a float. A callback that scales `learning_rate`
            (`LearningRateScheduler`, `ReduceLROnPlateau`) scales it by the same factor. The reference code uses 0.0048
            per 256 images, but its gradients are too small by a factor of its number of devices, unlike those of this
            package (see `recipes`).
        trust_clip: Whether to use the second form above, the one of solo-learn's recipes for CIFAR and ImageNet-100.
        exclude: Strings. A variable with one of them in its path is treated like those of rank 1: it skips the decay
            and the trust ratio and has the `vector_learning_rate`.
        name: Name of the optimizer.
        **kwargs: Keyword arguments of `keras.optimizers.Optimizer` (`clipnorm`, `use_ema`, ...).

    Raises:
        ValueError: If the momentum is outside [0, 1), the trust coefficient is not positive, or `learning_rate` is 0
            and `vector_learning_rate` is not.
        TypeError: If `exclude` is a single string.

    Example:

    >>> schedule = keras.optimizers.schedules.CosineDecay(
    ...     0.0, decay_steps=38_000, alpha=0.001, warmup_target=0.4, warmup_steps=2_000)
    >>> optimizer = LARS(learning_rate=schedule, vector_learning_rate=0.0006)
    >>> optimizer.vector_learning_rate = 0.0003

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
        trust_clip=False,
        exclude=(),
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name, **kwargs)
        if trust_coefficient <= 0:
            raise ValueError(f"`trust_coefficient` must be positive. Received: trust_coefficient={trust_coefficient}")
        if isinstance(exclude, str):
            raise TypeError(f"`exclude` must be a list of strings. Received: exclude={exclude!r}. Use [{exclude!r}].")
        self.trust_coefficient = trust_coefficient
        self.trust_clip = trust_clip
        self.exclude = tuple(exclude)
        self._vector_schedule = vector_learning_rate if callable(vector_learning_rate) else None
        self._initial_learning_rate = None if callable(learning_rate) else float(learning_rate)
        # A variable, so that compiled steps see a change. If callbacks can set the `learning_rate`, it is the vector
        # rate over that, and so follows it.
        self.vector_rate = None
        if vector_learning_rate is not None and self._vector_schedule is None:
            self.vector_rate = self.add_variable(
                (),
                keras.initializers.Constant(self._over_learning_rate(vector_learning_rate, learning_rate)),
                aggregation="only_first_replica",
                name="vector_learning_rate",
            )

    @property
    def vector_learning_rate(self):
        """Current learning rate of variables of rank 1 or less. None is that of all variables."""
        if self._vector_schedule is not None:
            rate = self._vector_schedule(self.iterations)
            # A schedule follows callbacks that set the learning rate of the other variables.
            return rate * (self.learning_rate / self._initial_learning_rate) if self._initial_learning_rate else rate
        if self.vector_rate is None or self._initial_learning_rate is None:
            return self.vector_rate
        return self.vector_rate * self.learning_rate

    @vector_learning_rate.setter
    def vector_learning_rate(self, rate):
        if self.vector_rate is None:
            made = "None" if self._vector_schedule is None else "a schedule"
            raise TypeError(
                "`vector_learning_rate` can only be set if the optimizer was created with a float. "
                f"Received: vector_learning_rate={rate}, and {made} at creation. Pass LARS a float."
            )
        self.vector_rate.assign(self._over_learning_rate(float(rate), self.learning_rate))

    def _over_learning_rate(self, vector_rate, learning_rate):
        if self._initial_learning_rate is None:
            return float(vector_rate)
        learning_rate = float(learning_rate)
        if not learning_rate and vector_rate:
            raise ValueError(
                "`vector_learning_rate` follows `learning_rate`, which must not be 0. "
                f"Received: learning_rate=0, vector_learning_rate={vector_rate}. "
                "Make `learning_rate` positive, or set `trainable = False` on the layers that must not change."
            )
        return vector_rate / learning_rate if learning_rate else 1.0

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        if len(variable.shape) > 1 and not any(part in self._path(variable) for part in self.exclude):
            gradient = self._scaled(gradient, variable, ops.cast(learning_rate, variable.dtype))
        elif self.vector_learning_rate is not None:
            learning_rate = self.vector_learning_rate
        self._move(variable, gradient, learning_rate)

    def _scaled(self, gradient, variable, learning_rate):
        """The gradient with weight decay, times the trust ratio."""
        decayed = self._decayed(gradient, variable)
        weight_norm = _norm(variable)
        if not self.trust_clip:
            ratio = self._trust_ratio(weight_norm, _norm(decayed))
            return decayed * ops.where(ratio > 0, ratio, 1.0)
        decay_norm = self.weight_decay * weight_norm if decayed is not gradient else 0.0
        ratio = self._trust_ratio(weight_norm, _norm(gradient), decay_norm)
        return ops.where(ratio > 0, decayed * ops.minimum(ratio / learning_rate, 1.0), gradient)

    def _trust_ratio(self, weight_norm, gradient_norm, decay_norm=0.0):
        """The trust ratio, or 0 where either norm is zero."""
        defined = ops.logical_and(weight_norm > 0, gradient_norm > 0)
        norm = ops.where(defined, gradient_norm + decay_norm, 1.0)
        return ops.where(defined, self.trust_coefficient * weight_norm / norm, 0.0)

    def load_own_variables(self, store):
        if self.vector_rate is None or len(store.keys()) != len(self.variables) - 1:
            return super().load_own_variables(store)
        # Saved by version 0.1, which had no such variable: the constructor has its value from the config.
        others = [variable for variable in self.variables if variable is not self.vector_rate]
        for number, variable in enumerate(others):
            variable.assign(store[str(number)])

    def get_config(self):
        config = super().get_config()
        rate = self._vector_schedule
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        elif self.vector_rate is not None:
            rate = float(ops.convert_to_numpy(self.vector_learning_rate))
        return {
            **config,
            "momentum": self.momentum,
            "trust_coefficient": self.trust_coefficient,
            "vector_learning_rate": rate,
            "trust_clip": self.trust_clip,
            "exclude": list(self.exclude),
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

    def update_step(self, gradient, variable, learning_rate):
        gradient = self._decayed(ops.cast(gradient, variable.dtype), variable)
        rate = self.constant_rates.get(self._path(variable), learning_rate)
        self._move(variable, gradient, rate)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "constant_rates": self.constant_rates}


def _norm(tensor):
    return ops.sqrt(ops.sum(ops.square(tensor)))
