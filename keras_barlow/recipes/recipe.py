"""Named recipes as frozen dataclasses: what is trained, on which views, with which optimizer."""

import dataclasses

import keras

from keras_barlow import encoders, losses, optimizers, views
from keras_barlow.layers import Projector
from keras_barlow.methods.barlow_twins import BarlowTwins


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a pre-training run but its data. `dataclasses.replace` changes one thing.

    Attributes:
        name: Name of the recipe, and of its default output folder.
        image_size: Side of the views, in pixels.
        epochs: Passes over the images.
        batch_size: Images per step, over all replicas. An incomplete last batch of an epoch is left out.
        projector: Width of each layer of the projector.
        redundancy_weight: lambda of the loss.
        learning_rate: Peak, for this batch size.
        encoder: `"resnet8"`, `"resnet18"` or `"resnet50"`, functions of `encoders`.
        stem: `"small"` or `"imagenet"`.
        width: Channels of the encoder's first stage.
        zero_init_residual: See `encoders.resnet`.
        kernel_variance: Scale, mode and distribution of `keras.initializers.VarianceScaling` for the encoder.
        optimizer: `"adam"` or `"lars"`.
        vector_learning_rate: Peak for tensors of rank 1 or less under LARS, for this batch size; None for
            `learning_rate`.
        weight_decay: Added to the gradient under LARS (before the trust ratio); decoupled under Adam.
        beta_2: Share of the mean squared gradient that one step keeps under Adam.
        warmup_epochs: Epochs of linear warm-up.
        final_fraction: What the cosine ends at, as a share of the peak. 1 keeps the rate constant.
        crop_scale: Share of the area that a crop keeps.
        flip: Probability of mirroring.
        jitter: Strengths of brightness, contrast, saturation and hue.
        jitter_probability: Probability of colour jitter.
        blur: Probability of blur in view A and B.
        solarization: Probability of solarisation in view A and B.
        grayscale: Probability of turning grey.
        knn_k: Neighbours of the k-NN that judges the features.
        precision: Keras dtype policy, `"float32"` or `"mixed_bfloat16"`.
        skip_nonfinite: See `BarlowTwins`.
        loss_options: Further arguments of `losses.BarlowTwinsLoss`.
        projector_batch_norm: Whether the projector has batch normalisation.
        predictor: Whether view A goes through a predictor, two layers as wide as the embeddings.
        stop_gradient: See `BarlowTwins`.
        moving_average: See `BarlowTwins`.
        stored_size: Side to which images are brought before any view is drawn; None for `image_size`. The
            encoder is judged on the centre of `image_size`.
        crops_from_files: Whether the crops are cut from the files as they are (`data.Images.crop_pairs`), and the
            model's views leave the crop out; else from the stored images, in the model.
        train_per_class: Only the first so many training images of each class; None for all.
        test_per_class: The same for testing.
    """

    name: str
    image_size: int
    epochs: int
    batch_size: int
    projector: tuple
    redundancy_weight: float
    learning_rate: float
    encoder: str = "resnet18"
    stem: str = "small"
    width: int = 64
    zero_init_residual: bool = False
    kernel_variance: tuple = (2.0, "fan_out", "untruncated_normal")
    optimizer: str = "adam"
    vector_learning_rate: float | None = None
    weight_decay: float = 1e-6
    beta_2: float = 0.999
    warmup_epochs: int = 0
    final_fraction: float = 1.0
    crop_scale: tuple = (0.08, 1.0)
    flip: float = 0.5
    jitter: tuple = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    blur: tuple = (1.0, 0.1)
    solarization: tuple = (0.0, 0.2)
    grayscale: float = 0.2
    knn_k: int = 200
    precision: str = "float32"
    skip_nonfinite: bool = False
    loss_options: dict = dataclasses.field(default_factory=dict)
    projector_batch_norm: bool = True
    predictor: bool = False
    stop_gradient: bool = False
    moving_average: float | None = None
    stored_size: int | None = None
    crops_from_files: bool = False
    train_per_class: int | None = None
    test_per_class: int | None = None

    def build(self, num_images, seed=None):
        """The compiled model.

        Args:
            num_images: Images in one epoch, from which the schedule's length follows.
            seed: Of weights and views; None leaves Keras' global seed as it is.

        Returns:
            A compiled `BarlowTwins` model.

        Raises:
            ValueError: If `num_images` does not fill one batch.

        Example:

        >>> import dataclasses
        >>> recipe = dataclasses.replace(DIGITS, width=8, projector=(32, 32), batch_size=16)
        >>> model = recipe.build(num_images=64, seed=0)
        >>> model.encoder.output_shape
        (None, 32)
        """
        steps_per_epoch = num_images // self.batch_size
        if steps_per_epoch < 1:
            raise ValueError(
                f"The recipe {self.name!r} needs at least one batch of {self.batch_size} images. "
                f"Received: num_images={num_images}. Use a smaller batch_size."
            )
        if seed is not None:
            keras.utils.set_random_seed(seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = BarlowTwins(
                getattr(encoders, self.encoder)(
                    input_shape=(self.image_size, self.image_size, 3),
                    stem=self.stem,
                    width=self.width,
                    zero_init_residual=self.zero_init_residual,
                    kernel_initializer=keras.initializers.VarianceScaling(*self.kernel_variance),
                    # One run on any number of replicas; on one it changes nothing.
                    synchronized=True,
                ),
                projector=self._projector(self.projector),
                views=self.views(seed, without=("crop",) if self.crops_from_files else ()),
                loss=losses.BarlowTwinsLoss(self.redundancy_weight, **self.loss_options),
                skip_nonfinite=self.skip_nonfinite,
                predictor=self._projector((self.projector[-1],) * 2) if self.predictor else None,
                stop_gradient=self.stop_gradient,
                moving_average=self.moving_average,
            )
        finally:
            keras.config.set_dtype_policy(policy)
        model.compile(optimizer=self._optimizer(steps_per_epoch))
        return model

    def views(self, seed=None, without=()):
        """The recipe's views.

        Args:
            seed: See `views.Views`.
            without: Names of transforms to leave out, see `views.policy`.

        Returns:
            A `views.Views` layer.
        """
        return views.barlow_twins(
            self.image_size,
            crop_scale=self.crop_scale,
            flip=self.flip,
            jitter=self.jitter,
            jitter_probability=self.jitter_probability,
            grayscale=self.grayscale,
            blur=self.blur,
            solarization=self.solarization,
            seed=seed,
            without=without,
        )

    def _projector(self, widths):
        return Projector(widths, use_batch_norm=self.projector_batch_norm, synchronized=True)

    def _optimizer(self, steps_per_epoch):
        if self.optimizer == "lars":
            vector_rate = self.vector_learning_rate
            return optimizers.LARS(
                learning_rate=self._schedule(self.learning_rate, steps_per_epoch),
                weight_decay=self.weight_decay,
                vector_learning_rate=None if vector_rate is None else self._schedule(vector_rate, steps_per_epoch),
            )
        return keras.optimizers.Adam(
            self._schedule(self.learning_rate, steps_per_epoch), beta_2=self.beta_2, weight_decay=self.weight_decay
        )

    def _schedule(self, peak, steps_per_epoch):
        if self.final_fraction == 1 and self.warmup_epochs == 0:
            return peak
        warmup_steps = self.warmup_epochs * steps_per_epoch
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else peak,
            # Keras counts the decay from the end of the warm-up, and wants one step where there is none.
            decay_steps=max(1, self.epochs * steps_per_epoch - warmup_steps),
            alpha=self.final_fraction,
            warmup_target=peak if warmup_steps else None,
            warmup_steps=warmup_steps,
        )


# Two CPU cores, about 3 minutes: few-label accuracy of 0.8, from 0.16 untrained. The colour of a digit would
# be a short cut between its two views, so the jitter is strong enough to take it away.
DIGITS = Recipe(
    name="digits",
    image_size=32,
    epochs=25,
    batch_size=64,
    projector=(256, 256),
    redundancy_weight=0.005,
    learning_rate=5e-3,
    encoder="resnet8",
    width=16,
    # A shorter memory than Adam's 0.999, in a run of 1,700 steps: 0.58 in place of 0.48 after 8 epochs.
    beta_2=0.95,
    warmup_epochs=1,
    final_fraction=0.2,
    crop_scale=(0.5, 1.0),
    flip=0.0,
    jitter=(0.6, 0.4, 0.9, 0.5),
    jitter_probability=1.0,
    grayscale=0.3,
    blur=(0.0, 0.0),
    solarization=(0.0, 0.0),
    knn_k=5,
)

# A small comparison on CIFAR-10: 20,000 images, 20 epochs, about 10 minutes on two CPU cores.
CIFAR10_SMALL = Recipe(
    name="cifar10_small",
    image_size=32,
    epochs=20,
    batch_size=256,
    projector=(1024, 1024, 1024),
    redundancy_weight=0.005,
    learning_rate=1e-3,
    width=16,
    # PyTorch's default for convolutions. Under batch normalisation the scale of a kernel is a matter of its
    # learning rate only, and this rate wants PyTorch's: k-NN 0.524 after 20 epochs, 0.498 with torchvision's.
    kernel_variance=(1 / 3, "fan_in", "uniform"),
    # Adam's default, 0.999, remembers the large gradients of the first epoch in most of the 1,560 steps: k-NN 0.519
    # and linear 0.586 in place of 0.533 and 0.609 (seed 0).
    beta_2=0.99,
    blur=(0.0, 0.0),
    precision="mixed_bfloat16",
    train_per_class=2000,
    test_per_class=1000,
)

# After solo-learn's recipe for CIFAR-10 (92.10 top-1, online linear), with the paper's LARS.
CIFAR10_RESNET18 = Recipe(
    name="cifar10_resnet18",
    image_size=32,
    epochs=1000,
    batch_size=256,
    projector=(2048, 2048, 2048),
    redundancy_weight=0.0051,
    learning_rate=0.3,
    optimizer="lars",
    weight_decay=1e-4,
    warmup_epochs=10,
    final_fraction=0.0,
    blur=(0.0, 0.0),
    precision="mixed_bfloat16",
)

# The paper's, for ImageNet: 73.2 top-1 linear after 1000 epochs. Rates are per 256 images, times 2048 / 256.
# The reference's gradient is 1 / W of the true one on its W = 16 devices. LARS hides that from the weights;
# for biases and batch normalisation the published 0.0048 is 0.0048 / 16 of the true gradient.
IMAGENET_RESNET50 = Recipe(
    name="imagenet_resnet50",
    image_size=224,
    epochs=1000,
    batch_size=2048,
    projector=(8192, 8192, 8192),
    redundancy_weight=0.0051,
    learning_rate=0.2 * 2048 / 256,
    encoder="resnet50",
    stem="imagenet",
    zero_init_residual=True,
    optimizer="lars",
    vector_learning_rate=0.0048 / 16 * 2048 / 256,
    weight_decay=1e-6,
    warmup_epochs=10,
    final_fraction=0.001,
    precision="mixed_bfloat16",
    stored_size=256,
    crops_from_files=True,
)

_RECIPES = {recipe.name: recipe for recipe in (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)}


def names():
    """The names of all recipes.

    Returns:
        A list of strings.

    Example:

    >>> names()
    ['digits', 'cifar10_small', 'cifar10_resnet18', 'imagenet_resnet50']
    """
    return list(_RECIPES)


def get(name):
    """The recipe of a name.

    Args:
        name: One of `names()`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: For an unknown name.

    Example:

    >>> get("digits").image_size
    32
    """
    if name not in _RECIPES:
        raise ValueError(f"Unknown recipe. Received: {name!r}. Known recipes: {', '.join(names())}.")
    return _RECIPES[name]
