"""`Recipe`: the settings of a pre-training run."""

import contextlib
import dataclasses
import inspect

import keras

from keras_barlow import encoders, methods, optimizers, randomness, views
from keras_barlow.layers import Projector

_OPTIMIZERS = {"adam": keras.optimizers.Adam, "lars": optimizers.LARS, "sgd": optimizers.SGD}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a pre-training run, except for its images.

    Fields that end in `_options` are dictionaries of keyword arguments. Omitted arguments keep their defaults.

    Attributes:
        name: Name of the recipe, and of its default output folder.
        image_size: Side of the views, in pixels.
        epochs: Number of passes over the images.
        batch_size: Images per step, over all replicas. The incomplete last batch of an epoch is dropped.
        learning_rate: Peak learning rate for this batch size.
        projector: Width of each layer of the projector.
        projector_options: Further arguments of `Projector`, such as `use_batch_norm`.
        encoder: Name of a function in `encoders`, such as `"resnet18"`.
        encoder_options: Arguments of that function, such as `stem` and `width`. `kernel_variance` is a tuple of
            arguments of `keras.initializers.VarianceScaling`, the initializer of all kernels.
        method: Name of a class in `methods`.
        method_options: Arguments of the method, such as `skip_nonfinite`. `predictor` is the tuple of the widths of its
            layers, or True for two layers as wide as the embeddings. `total_steps` is the length of the run by default;
            None keeps a momentum constant.
        loss_options: Arguments of the loss of the method, such as `redundancy_weight`.
        optimizer: `"adam"`, `"lars"` or `"sgd"`.
        optimizer_options: Arguments of the optimizer, such as `weight_decay`. `vector_learning_rate` of LARS is a peak
            and follows the schedule of `learning_rate`. `predictor_learning_rate` of SGD is the constant learning rate
            of the predictor.
        warmup_epochs: Epochs of linear warm-up.
        final_fraction: Learning rate at the end of the cosine schedule, as a fraction of the peak. 1 keeps it constant.
        views_policy: Name of a policy in `views`: `"barlow_twins"`, `"cifar"`, `"multi_channel"`, `"multi_crop"` or
            `"simclr"`. The encoder for `"multi_crop"` takes images of any size.
        views_options: Arguments of that policy and of `views.policy`, such as `crop_scale`.
        precision: Keras dtype policy, `"float32"` or `"mixed_bfloat16"`.
        knn_k: Number of neighbors of the k-NN that evaluates the features.

    Raises:
        ValueError: If an encoder, method, optimizer, policy or option does not exist.
    """

    name: str
    image_size: int
    epochs: int
    batch_size: int
    learning_rate: float
    projector: tuple
    projector_options: dict = dataclasses.field(default_factory=dict)
    encoder: str = "resnet18"
    encoder_options: dict = dataclasses.field(default_factory=dict)
    method: str = "BarlowTwins"
    method_options: dict = dataclasses.field(default_factory=dict)
    loss_options: dict = dataclasses.field(default_factory=dict)
    optimizer: str = "adam"
    optimizer_options: dict = dataclasses.field(default_factory=dict)
    warmup_epochs: int = 0
    final_fraction: float = 1.0
    views_policy: str = "barlow_twins"
    views_options: dict = dataclasses.field(default_factory=dict)
    precision: str = "float32"
    knn_k: int = 200

    def __post_init__(self):
        _check_known(self.encoder, encoders.__all__, "`encoder` must be a function of `encoders`")
        _check_known(self.method, methods.__all__, "`method` must be a class of `methods`")
        _check_known(self.optimizer, _OPTIMIZERS, "`optimizer` must be 'adam', 'lars' or 'sgd'")
        _check_known(self.views_policy, views.policies.POLICIES, "`views_policy` must be a policy of `views`")
        for field, known in self._known_options().items():
            for option in getattr(self, field):
                _check_known(option, known, f"`{field}` must hold arguments that exist")

    def changed(self, **changes):
        """Returns a copy of the recipe with other values.

        Args:
            **changes: Fields and their new values. A dictionary updates the field's dictionary; use
                `dataclasses.replace` to replace the whole dictionary. If another optimizer or policy of views is
                chosen, the options of the old one are dropped.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: If a field or an option does not exist.

        Example:

        >>> recipe = Recipe("tiny", 32, 1, 16, 1e-3, (32,), encoder_options={"stem": "small", "width": 8})
        >>> recipe.changed(epochs=2, encoder_options={"width": 4}).encoder_options
        {'stem': 'small', 'width': 4}
        """
        fields = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            _check_known(name, fields, "A recipe can only change its fields")
        for field, options in (("optimizer", "optimizer_options"), ("views_policy", "views_options")):
            if changes.get(field, getattr(self, field)) != getattr(self, field):
                recipe = dataclasses.replace(self, **{field: changes.pop(field), options: {}})
                return recipe.changed(**changes)
        for name, value in changes.items():
            if isinstance(getattr(self, name), dict):
                changes[name] = {**getattr(self, name), **value}
        return dataclasses.replace(self, **changes)

    def with_method(self, name, method, **changes):
        """Returns a copy of the recipe for another method.

        The options of the old method and its loss are dropped.

        Args:
            name: Name of the new recipe.
            method: Name of a class in `methods`.
            **changes: Further changes, see `changed`.

        Returns:
            A `Recipe`.

        Example:

        >>> from keras_barlow import recipes
        >>> recipe = recipes.DIGITS.with_method("digits_tight", "SimCLR", loss_options={"temperature": 0.2})
        >>> recipe.loss_options
        {'temperature': 0.2}
        """
        recipe = dataclasses.replace(self, name=name, method=method, method_options={}, loss_options={})
        return recipe.changed(**changes)

    def build(self, num_images, seed=None, without=()):
        """Creates and compiles the model.

        Args:
            num_images: Number of images in an epoch, which determines the length of the schedule.
            seed: Seed of the initial weights and the views. None draws one from Python's `random`.
            without: Names of the transforms that the model leaves out because the data is already transformed, such as
                `("crop",)` for `data.Images.crop_pairs`.

        Returns:
            A compiled model of the class `method`.

        Raises:
            ValueError: If `num_images` does not fill one batch.

        Example:

        >>> from keras_barlow import recipes
        >>> small = {"encoder_options": {"width": 8}, "projector": (32, 32), "batch_size": 16}
        >>> model = recipes.DIGITS.changed(**small).build(num_images=64, seed=0)
        >>> model.encoder.output_shape
        (None, 32)
        """
        steps_per_epoch = num_images // self.batch_size
        if steps_per_epoch < 1:
            raise ValueError(
                f"The recipe {self.name!r} needs at least one batch of {self.batch_size} images. "
                f"Received: num_images={num_images}. Use a smaller batch_size."
            )
        with randomness.seeded_initializers(seed), _dtype_policy(self.precision):
            model = self._model(seed, without, steps_per_epoch)
        model.compile(optimizer=self._optimizer(steps_per_epoch, model))
        return model

    def views(self, seed=None, without=()):
        """Creates the layer that draws the views.

        Args:
            seed: Seed of the views. None draws a random one.
            without: Names of transforms to leave out, as in `views.policy`.

        Returns:
            A `views.Views` layer.
        """
        policy = getattr(views, self.views_policy)
        return policy(self.image_size, seed=seed, without=without, **self.views_options)

    def _model(self, seed, without, steps_per_epoch):
        method, options = getattr(methods, self.method), dict(self.method_options)
        if "total_steps" in _parameters(method):
            options.setdefault("total_steps", self.epochs * steps_per_epoch)
        networks = {"encoder": self._encoder(), "projector": self._projector(self.projector, **self.projector_options)}
        predictor = options.pop("predictor", None)
        if predictor:
            widths = (self.projector[-1],) * 2 if predictor is True else predictor
            # The normalization of the output of SimSiam's projector is not for its predictor.
            networks["predictor"] = self._projector(widths, **{**self.projector_options, "output_batch_norm": False})
        loss = method.default_loss(**self.loss_options)
        return method(**networks, views=self.views(seed, without), loss=loss, **options)

    def _encoder(self):
        options = dict(self.encoder_options)
        if "kernel_variance" in options:
            options["kernel_initializer"] = keras.initializers.VarianceScaling(*options.pop("kernel_variance"))
        # Synchronized, so that the run does not depend on the number of replicas. No effect on a single one.
        options = {"synchronized": True, **options}
        # Crops of several sizes need an encoder that takes any size.
        side = None if self.views_policy == "multi_crop" else self.image_size
        return getattr(encoders, self.encoder)(input_shape=(side, side, 3), **options)

    def _projector(self, widths, **options):
        return Projector(widths, **{"synchronized": True, **options})

    def _optimizer(self, steps_per_epoch, model):
        options = dict(self.optimizer_options)
        constant = options.pop("predictor_learning_rate", None)
        if options.get("vector_learning_rate") is not None:
            options["vector_learning_rate"] = self._schedule(options["vector_learning_rate"], steps_per_epoch)
        optimizer = _OPTIMIZERS[self.optimizer](self._schedule(self.learning_rate, steps_per_epoch), **options)
        if constant is not None:
            optimizer.exclude_from_schedule(model.predictor.trainable_variables, constant)
        return optimizer

    def _schedule(self, peak, steps_per_epoch):
        if self.final_fraction == 1 and self.warmup_epochs == 0:
            return peak
        warmup_steps = self.warmup_epochs * steps_per_epoch
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else peak,
            # Keras counts the decay from the end of the warm-up and needs at least one step.
            decay_steps=max(1, self.epochs * steps_per_epoch - warmup_steps),
            alpha=self.final_fraction,
            warmup_target=peak if warmup_steps else None,
            warmup_steps=warmup_steps,
        )

    def _known_options(self):
        """Option names of each dictionary: arguments of the callable, except those that `build` passes itself."""
        # Encoders of one family, such as `resnet18`, pass their keyword arguments on to `resnet`.
        encoder_names = _parameters(getattr(encoders, self.encoder), encoders.resnet) | {"kernel_variance"}
        policy = getattr(views, self.views_policy)
        method = getattr(methods, self.method)
        optimizer_names = _parameters(_OPTIMIZERS[self.optimizer])
        if self.optimizer == "sgd" and "predictor" in _parameters(method):
            optimizer_names |= {"predictor_learning_rate"}
        return {
            "projector_options": _parameters(Projector) - {"widths"},
            "encoder_options": encoder_names - {"blocks", "input_shape", "kernel_initializer"},
            "method_options": _parameters(method) - {"encoder", "projector", "views", "loss"},
            "loss_options": _parameters(method.default_loss),
            "optimizer_options": optimizer_names - {"learning_rate", "constant_rates"},
            "views_options": _parameters(policy, views.policy) - {"image_size", "seed", "without"},
        }


def _parameters(*functions):
    """Names of the arguments of functions or classes."""
    return {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def _check_known(name, known, rule):
    if name not in known:
        raise ValueError(f"{rule}. Received: {name!r}. Use one of {', '.join(sorted(known))}.")


@contextlib.contextmanager
def _dtype_policy(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
