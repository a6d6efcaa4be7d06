"""Recipes for SimSiam, see `sources`: that of solo-learn for CIFAR-10, that of the paper for ImageNet."""

from keras_barlow.recipes import barlow_twins_recipes as base

DIGITS = base.DIGITS.with_method(
    "digits_simsiam",
    "SimSiam",
    # Slower than with negatives. After 12 epochs, few-label accuracy is 0.43, and 0.39 with a predictor of (64, 256).
    epochs=45,
    learning_rate=1.5e-3,
    optimizer_options={"beta_2": 0.99},
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (256, 256)},
)

CIFAR10_SMALL = base.CIFAR10_SMALL.with_method(
    "cifar10_small_simsiam",
    "SimSiam",
    projector=(1024, 1024, 1024),
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (256, 1024)},
)

CIFAR10_RESNET18 = base.CIFAR10_RESNET18.with_method(
    "cifar10_resnet18_simsiam",
    "SimSiam",
    learning_rate=0.5,
    projector=(2048, 2048, 2048),
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (512, 2048)},
    optimizer="sgd",
    optimizer_options={"weight_decay": 1e-5, "predictor_learning_rate": 0.5},
    views_options={"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.5, 0.5), "solarization": (0.0, 0.0)},
)

IMAGENET_RESNET50 = base.IMAGENET_RESNET50.with_method(
    "imagenet_resnet50_simsiam",
    "SimSiam",
    epochs=100,
    batch_size=512,
    learning_rate=0.05 * 512 / 256,
    projector=(2048, 2048, 2048),
    projector_options={"output_batch_norm": True},
    method_options={"predictor": (512, 2048)},
    optimizer="sgd",
    optimizer_options={"weight_decay": 1e-4, "predictor_learning_rate": 0.05 * 512 / 256},
    warmup_epochs=0,
    final_fraction=0.0,
    views_options={
        "crop_scale": (0.2, 1.0),
        "jitter": (0.4, 0.4, 0.4, 0.1),
        "blur": (0.5, 0.5),
        "solarization": (0.0, 0.0),
    },
)

ALL = (DIGITS, CIFAR10_SMALL, CIFAR10_RESNET18, IMAGENET_RESNET50)
