import dataclasses
import inspect
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb
from tests import shared

ADAM, LARS, Cosine = keras.optimizers.Adam, kb.optimizers.LARS, keras.optimizers.schedules.CosineDecay
HE, PYTORCH = (2.0, "fan_out", "untruncated_normal"), (1 / 3, "fan_in", "uniform")
# Two batches of the largest recipe.
IMAGES = 4096
NO_BLUR = {"blur": (0.0, 0.0)}
DIGIT_VIEWS = {"crop_scale": (0.5, 1.0), "flip": 0.0, "jitter": (0.6, 0.4, 0.9, 0.5), "jitter_probability": 1.0}
DIGIT_VIEWS |= {"grayscale": 0.3, "blur": (0.0, 0.0), "solarization": (0.0, 0.0)}

# For each recipe: size, epochs, batch size, k, precision, projector; encoder; optimizer; views; weights of the loss.
EXPECTED = {
    "digits": (
        (32, 25, 64, 5, "float32", (256, 256)),
        (kb.encoders.resnet8, HE, {"stem": "small", "width": 16}),
        lambda: ADAM(Cosine(0.0, 24 * 64, 0.2, warmup_target=0.005, warmup_steps=64), beta_2=0.95, weight_decay=1e-6),
        DIGIT_VIEWS,
        (0.005,),
    ),
    "cifar10_small": (
        (32, 20, 256, 200, "mixed_bfloat16", (1024, 1024, 1024)),
        (kb.encoders.resnet18, PYTORCH, {"stem": "small", "width": 16}),
        lambda: ADAM(0.001, beta_2=0.99, weight_decay=1e-6),
        NO_BLUR,
        (0.005,),
    ),
    "cifar10_resnet18": (
        (32, 1000, 256, 200, "mixed_bfloat16", (2048, 2048, 2048)),
        (kb.encoders.resnet18, HE, {"stem": "small", "width": 64}),
        lambda: LARS(
            Cosine(0.0, 990 * 16, 0.0, warmup_target=0.3, warmup_steps=160),
            weight_decay=1e-4,
            trust_coefficient=0.02,
            trust_clip=True,
        ),
        NO_BLUR,
        # The loss times 0.1.
        (0.00051, 0.1),
    ),
    "imagenet_resnet50": (
        (224, 1000, 2048, 200, "mixed_bfloat16", (8192, 8192, 8192)),
        (kb.encoders.resnet50, HE, {"stem": "imagenet", "width": 64, "zero_init_residual": True}),
        lambda: LARS(
            Cosine(0.0, 990 * 2, 0.001, warmup_target=1.6, warmup_steps=20),
            weight_decay=1e-6,
            vector_learning_rate=Cosine(0.0, 990 * 2, 0.001, warmup_target=0.0024, warmup_steps=20),
        ),
        {"crop_scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.2, 0.1), "blur": (1.0, 0.1), "solarization": (0.0, 0.2)},
        (0.0051,),
    ),
}


def assert_same_config(item, expected):
    """Compares configs. Floats may differ by rounding."""
    if isinstance(expected, dict):
        assert set(item) == set(expected)
        for name in expected:
            assert_same_config(item[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(item) == len(expected)
        for one, other in zip(item, expected, strict=True):
            assert_same_config(one, other)
    else:
        assert item == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_first_recipes_keep_their_values(name):
    settings, (encoder, variance, encoder_options), optimizer, view_options, weights = EXPECTED[name]
    recipe = kb.recipes.get(name)
    names = ("image_size", "epochs", "batch_size", "knn_k", "precision", "projector")
    assert tuple(getattr(recipe, name) for name in names) == settings
    assert recipe.encoder_options.get("width", 64) == encoder_options["width"]
    size, precision = recipe.image_size, recipe.precision
    # Narrow networks: the widths are compared above.
    model = recipe.changed(encoder_options={"width": 2}, projector=(8, 8)).build(IMAGES, seed=0)
    # Resets the counters in layer names, and the policy.
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(precision)
    options = {"synchronized": True, "kernel_initializer": keras.initializers.VarianceScaling(*variance)}
    expected = {
        "encoder": encoder((size, size, 3), **{**encoder_options, "width": 2}, **options),
        "projector": kb.Projector((8, 8), synchronized=True),
        "views": kb.views.barlow_twins(size, seed=0, **view_options),
        "loss": kb.losses.BarlowTwinsLoss(weights[0], invariance_weight=weights[-1] if weights[1:] else 1.0),
    }
    for part, other in expected.items():
        assert_same_config(getattr(model, part).get_config(), other.get_config())
    assert_same_config(model.optimizer.get_config(), optimizer().get_config())
    assert type(model) is kb.BarlowTwins and type(model.optimizer) is type(optimizer())
    assert (model.skip_nonfinite, model.predictor, model.stop_gradient, model.target) == (False, None, False, None)


def small(recipe, **changes):
    return recipe.changed(encoder="resnet8", encoder_options={"width": 2}, projector=(8, 8), image_size=16, **changes)


def test_every_recipe_builds():
    for name in kb.recipes.names("BarlowTwins"):
        models = [small(kb.recipes.get(name), batch_size=4).build(num_images=8, seed=3) for _ in range(2)]
        assert models[0].optimizer is not None and models[0].views.seed == models[1].views.seed
        for one, other in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", shared.few(kb.recipes.names("BarlowTwins"), "digits"))
def test_every_recipe_builds_and_takes_a_step(name):
    recipe = small(kb.recipes.get(name), batch_size=4)
    crops_from_files = name.startswith("imagenet")
    model = recipe.build(num_images=8, seed=0, without=("crop",) if crops_from_files else ())
    images = np.zeros((8, 20, 20, 3), "uint8") + np.arange(8, dtype="uint8")[:, None, None, None]
    if crops_from_files:
        crops = tf.data.Dataset.from_tensor_slices(images[:, :16, :16]).batch(4)
        images = tf.data.Dataset.zip(crops, crops).map(lambda *pair: (pair,))
    model.fit(images, batch_size=None if crops_from_files else 4, verbose=0)
    assert keras.config.dtype_policy().name == "float32"


def test_the_paper():
    recipe = kb.recipes.get("imagenet_resnet50")
    tiny = recipe.changed(encoder_options={"width": 2}, projector=(8, 8))
    model = tiny.build(num_images=1_281_167, seed=0, without=("crop",))
    optimizer = model.optimizer
    steps = 1_281_167 // 2048
    assert isinstance(optimizer, kb.optimizers.LARS)
    assert (optimizer.momentum, optimizer.trust_coefficient, optimizer.weight_decay) == (0.9, 0.001, 1e-6)
    for schedule, peak in ((optimizer._learning_rate, 1.6), (optimizer._vector_schedule, 0.0024)):
        for step, share in (
            (0, 0.0),
            (5 * steps, 0.5),
            (10 * steps, 1.0),
            (505 * steps, 0.5005),
            (1000 * steps, 0.001),
        ):
            np.testing.assert_allclose(schedule(step), peak * share, rtol=1e-4, atol=1e-9)
    assert recipe.projector == (8192, 8192, 8192) and model.loss.redundancy_weight == 0.0051
    assert not np.any(model.encoder.get_layer("stage4_block3_normalization3").gamma)
    assert [layer.probability for layer in recipe.views().layers_b] == [1.0, 0.5, 0.8, 0.2, 0.1, 0.2]
    # The data crops the original files, so the model does not.
    assert [layer.probability for layer in model.views.layers_b] == [0.5, 0.8, 0.2, 0.1, 0.2]


@pytest.mark.full
def test_a_seed_makes_a_run_reproducible():
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype="uint8")
    weights = []
    for _ in range(2):
        model = small(kb.recipes.get("digits"), batch_size=4).build(8, seed=3)
        model.fit(kb.data.ArrayImages(images).batches(4, seed=3), epochs=2, verbose=0)
        weights.append([weight.numpy() for weight in model.weights])
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


def draws():
    """Draws a number from each random state: Python, NumPy, TensorFlow and Keras."""
    numbers = random.random(), np.random.random(), float(tf.random.uniform(()))
    return (*numbers, float(keras.random.uniform(())))


def test_a_seed_sets_the_weights_and_leaves_the_random_states_of_the_process():
    recipe = small(kb.recipes.get("digits"), batch_size=4)
    keras.utils.set_random_seed(7)
    expected = draws()
    # Keras 3.10 and 3.11 keep their own generator when the seed is set again.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    model = recipe.build(8, seed=3)
    assert draws() == expected
    keras.utils.set_random_seed(3)
    for weight, other in zip(model.weights, recipe.build(8).weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())


def test_a_change_updates_options_and_leaves_the_recipe():
    recipe = kb.recipes.DIGITS.changed(epochs=2, loss_options={"invariance_weight": 2.0}, projector=(8,))
    assert (recipe.epochs, recipe.projector, recipe.batch_size) == (2, (8,), 64)
    assert recipe.loss_options == {"redundancy_weight": 0.005, "invariance_weight": 2.0}
    assert kb.recipes.DIGITS.loss_options == {"redundancy_weight": 0.005} and kb.recipes.DIGITS.epochs == 25


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 4}, "only change its fields. Received: 'width'. Use one of .*encoder_options"),
        ({"encoder": "resnet9"}, "`encoder` must be a function of `encoders`. Received: 'resnet9'. Use one of"),
        (
            {"method": "Barlow"},
            "`method` must be a class of `methods`. Received: 'Barlow'. Use one of BYOL, BarlowTwins",
        ),
        (
            {"optimizer": "rmsprop"},
            "`optimizer` must be 'adam', 'lars' or 'sgd'. Received: 'rmsprop'. Use one",
        ),
        ({"encoder_options": {"widht": 4}}, "`encoder_options` must hold .* Received: 'widht'. Use one of .*width"),
        ({"encoder_options": {"input_shape": (8, 8, 3)}}, "`encoder_options` must hold .* Received: 'input_shape'"),
        ({"method_options": {"momentum": 0.9}}, "`method_options` .* 'momentum'. Use one of .*moving_average"),
        ({"projector_options": {"batch_norm": False}}, "`projector_options` .*'batch_norm'.* use_batch_norm"),
        ({"loss_options": {"weight": 1.0}}, "`loss_options` .*'weight'. Use one of .*redundancy_weight"),
        ({"optimizer_options": {"vector_learning_rate": 1.0}}, "`optimizer_options` .*'vector_learning_rate'"),
        ({"views_options": {"colour": 1.0}}, "`views_options` .*'colour'. Use one of .*grayscale"),
    ],
)
def test_unknown_fields_and_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        kb.recipes.DIGITS.changed(**changes)


# As published: epochs, batch size, peak rate, projector, optimizer and its options; options of method and loss.
CIFAR_LARS = {"trust_coefficient": 0.02, "trust_clip": True}
PAPER_LARS = {"vector_learning_rate": None}
PUBLISHED = {
    "cifar10_resnet18_vicreg": ((1000, 256, 0.3, (2048,) * 3, "lars", {"weight_decay": 1e-4, **CIFAR_LARS}), {}, {}),
    "cifar10_resnet18_simclr": (
        (1000, 256, 0.4, (2048, 256), "lars", {"weight_decay": 1e-4, **CIFAR_LARS}),
        {},
        {"temperature": 0.2},
    ),
    "cifar10_resnet18_byol": (
        (1000, 256, 1.0, (4096, 256), "lars", {"weight_decay": 1e-5, **CIFAR_LARS}),
        {"predictor": (4096, 256), "momentum": 0.99},
        {},
    ),
    "cifar10_resnet18_simsiam": (
        (1000, 256, 0.5, (2048,) * 3, "sgd", {"weight_decay": 1e-5, "predictor_learning_rate": 0.5}),
        {"predictor": (512, 2048)},
        {},
    ),
    "cifar10_resnet18_moco": (
        (1000, 256, 0.3, (2048, 256), "sgd", {"weight_decay": 1e-4}),
        {"momentum": 0.99, "queue_size": 32768},
        {},
    ),
    "cifar10_resnet18_swav": (
        (1000, 256, 0.6, (2048, 128), "lars", {"weight_decay": 1e-6, **CIFAR_LARS}),
        {"num_prototypes": 256, "frozen_steps": 390},
        {},
    ),
    "imagenet_resnet50_vicreg": ((1000, 2048, 1.6, (8192,) * 3, "lars", {"weight_decay": 1e-6, **PAPER_LARS}), {}, {}),
    "imagenet_resnet50_simclr": (
        (1000, 4096, 4.8, (2048, 128), "lars", {"weight_decay": 1e-6, **PAPER_LARS}),
        {},
        {"temperature": 0.1},
    ),
    "imagenet_resnet50_byol": (
        (1000, 4096, 3.2, (4096, 256), "lars", {"weight_decay": 1.5e-6, **PAPER_LARS}),
        {"predictor": (4096, 256), "momentum": 0.996},
        {},
    ),
    "imagenet_resnet50_simsiam": (
        (100, 512, 0.1, (2048,) * 3, "sgd", {"weight_decay": 1e-4, "predictor_learning_rate": 0.1}),
        {"predictor": (512, 2048)},
        {},
    ),
    "imagenet_resnet50_moco": (
        (800, 256, 0.03, (2048, 128), "sgd", {"weight_decay": 1e-4}),
        {"momentum": 0.999, "queue_size": 65536},
        {},
    ),
    "imagenet_resnet50_swav": (
        (800, 4096, 4.8, (2048, 128), "lars", {"weight_decay": 1e-6, **PAPER_LARS}),
        {"num_prototypes": 3000, "frozen_steps": 313},
        {},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_of_the_other_methods_are_those_published(name):
    recipe = kb.recipes.get(*name.rsplit("_", 1))
    settings, method_options, loss_options = PUBLISHED[name]
    fields = ("epochs", "batch_size", "learning_rate", "projector", "optimizer", "optimizer_options")
    for field, expected in zip(fields, settings, strict=True):
        value = getattr(recipe, field)
        assert value == (pytest.approx(expected) if isinstance(expected, float) else expected), field
    assert (recipe.method_options, recipe.loss_options) == (method_options, loss_options)
    assert recipe.name == name and recipe.encoder == name.split("_")[1]


# Further published recipes of Barlow Twins, setting by setting. Settings that are not named are the defaults.
SOLO_LEARN = {
    "batch_size": 256,
    "learning_rate": 0.3,
    "projector": (2048,) * 3,
    "loss_options": {"invariance_weight": 0.1, "redundancy_weight": 0.1 * 0.0051},
    "optimizer": "lars",
    "optimizer_options": {"weight_decay": 1e-4, "trust_coefficient": 0.02, "trust_clip": True},
    "warmup_epochs": 10,
    "final_fraction": 0.0,
    "precision": "mixed_bfloat16",
}
WEAK_SYMMETRIC = {"jitter": (0.4, 0.4, 0.4, 0.1), "blur": (0.0, 0.0), "solarization": (0.0, 0.0)}
LIGHTLY = {
    "image_size": 32,
    "epochs": 200,
    "projector": (2048, 2048),
    "encoder_options": {"stem": "small", "kernel_variance": PYTORCH},
    "loss_options": {"redundancy_weight": 0.005},
    "optimizer": "sgd",
    "optimizer_options": {"weight_decay": 5e-4},
    "final_fraction": 0.0,
    "views_options": WEAK_SYMMETRIC,
    "precision": "mixed_bfloat16",
}
SETTINGS = {
    "cifar100_resnet18": {
        **SOLO_LEARN,
        "image_size": 32,
        "epochs": 1000,
        "encoder_options": {"stem": "small"},
        "views_options": {"blur": (0.0, 0.0)},
    },
    "imagenet100_resnet18": {
        **SOLO_LEARN,
        "image_size": 224,
        "epochs": 400,
        "encoder_options": {"stem": "imagenet"},
    },
    "cifar10_resnet18_lightly": {**LIGHTLY, "batch_size": 128, "learning_rate": 0.06},
    "cifar10_resnet18_lightly_512": {**LIGHTLY, "batch_size": 512, "learning_rate": 0.24},
    "cifar10_resnet50": {
        "image_size": 32,
        "epochs": 1000,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "projector": (512, 128),
        "encoder": "resnet50",
        "encoder_options": {"stem": "small"},
        "loss_options": {"redundancy_weight": 0.0078125},
        "optimizer_options": {"weight_decay": 1e-6},
        "views_options": WEAK_SYMMETRIC,
    },
    "imagenet_resnet50_lightly": {
        "image_size": 224,
        "epochs": 100,
        "batch_size": 256,
        "learning_rate": 0.2,
        "projector": (8192,) * 3,
        "encoder": "resnet50",
        "encoder_options": {"stem": "imagenet", "zero_init_residual": False},
        "loss_options": {"redundancy_weight": 0.005},
        "optimizer": "lars",
        "optimizer_options": {"weight_decay": 1.5e-6, "vector_learning_rate": 0.0024},
        "warmup_epochs": 10,
        "final_fraction": 0.001,
        "precision": "mixed_bfloat16",
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_a_published_recipe(name):
    settings = dataclasses.asdict(kb.recipes.get(name))
    assert_same_config(settings, dataclasses.asdict(kb.recipes.Recipe(name=name, **SETTINGS[name])))


def test_every_recipe_has_checked_settings_and_a_source(capsys):
    names = set(kb.recipes.names())
    own = {f"{recipe}_{name.lower()}" for recipe in ("digits", "cifar10_small") for name in kb.methods.__all__}
    assert names - own == {*EXPECTED, *PUBLISHED, *SETTINGS} and len(kb.recipes.names()) == len(names)
    for name in names:
        kb.recipes.describe(name)
        source, printed = kb.recipes.sources.source(name), capsys.readouterr().out
        assert printed.startswith(f"{name}\n") and f"epochs = {kb.recipes.get(name).epochs}\n" in printed
        for text in (source.settings, source.expected, source.checked, *source.departures):
            assert text.endswith(".") or "http" in text
            assert text in printed


def test_the_published_learning_rate_for_a_batch_size():
    published = {128: 0.7, 256: 0.4, 512: 0.3, 1024: 0.25, 2048: 0.2, 4096: 0.2}
    for size, rate in published.items():
        np.testing.assert_allclose(kb.recipes.learning_rate_for(size), rate * size / 256, rtol=1e-12)
    # Halfway between 512 and 1024 on a logarithmic scale.
    size = round(512 * 2**0.5)
    np.testing.assert_allclose(kb.recipes.learning_rate_for(size), 0.275 * size / 256, rtol=1e-3)
    for size in (127, 4097):
        with pytest.raises(ValueError, match=f"batch sizes are 128 to 4096. Received: batch_size={size}"):
            kb.recipes.learning_rate_for(size)


OTHERS = [name for name in kb.recipes.names() if name not in kb.recipes.names("BarlowTwins")]


@pytest.mark.parametrize("name", shared.few(OTHERS, "imagenet_resnet50_swav"))
def test_every_recipe_of_another_method_builds_and_takes_a_step(name):
    recipe = kb.recipes.get(*name.rsplit("_", 1))
    options = dict(recipe.method_options)
    options |= {option: 4 for option in ("num_prototypes", "queue_size") if option in options}
    options |= {"predictor": (4, 8)} if "predictor" in options else {}
    views = {"small_sizes": (8,)} if recipe.views_policy == "multi_crop" else {}
    model = small(recipe, batch_size=4, method_options=options, views_options=views).build(num_images=8, seed=0)
    assert type(model) is getattr(kb, recipe.method) and type(model.loss) is type(model).default_loss
    if "total_steps" in inspect.signature(type(model)).parameters:
        assert model.total_steps == 2 * recipe.epochs
    images = np.zeros((8, 20, 20, 3), "uint8") + np.arange(8, dtype="uint8")[:, None, None, None]
    history = model.fit(images, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all() and keras.config.dtype_policy().name == "float32"


def test_a_method_chooses_its_recipe():
    assert kb.recipes.get("digits", "SimCLR") is kb.recipes.get("digits", method="simclr")
    assert kb.recipes.get("digits", "barlowtwins") is kb.recipes.DIGITS
    assert len(kb.recipes.names("MoCo")) == 4
    with pytest.raises(ValueError, match=r"Unknown recipe. Received: 'digit_byol'. Known recipes: digits_byol"):
        kb.recipes.get("digit", "byol")
    with pytest.raises(ValueError, match=r"Unknown method. Received: 'biol'. Known methods: barlowtwins"):
        kb.recipes.get("digits", "biol")


def test_the_rate_of_simsiam_s_predictor_is_constant():
    recipe = small(kb.recipes.get("imagenet_resnet50", "simsiam"), batch_size=4, epochs=2)
    model = recipe.changed(method_options={"predictor": (4, 8)}, precision="float32").build(num_images=8, seed=0)
    rates = model.optimizer.constant_rates
    assert set(rates) == {weight.path for weight in model.predictor.trainable_variables}
    assert set(rates.values()) == {0.1}


def test_bad_input():
    with pytest.raises(ValueError, match=r"'digit'.*Known recipes: digits, cifar10_small, cifar10_resnet18"):
        kb.recipes.get("digit")
    with pytest.raises(ValueError, match=r"at least one batch of 64 images.*num_images=63"):
        kb.recipes.get("digits").build(63)
    with pytest.raises(dataclasses.FrozenInstanceError):
        kb.recipes.DIGITS.epochs = 3
