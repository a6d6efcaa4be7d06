"""Rules that the code itself must follow: layers, sizes, names, docstrings and configs."""

import ast
import functools
import inspect
import json
import pathlib

import keras
import pytest

import keras_barlow as kb

PACKAGE = pathlib.Path(kb.__file__).parent
LAYERS = [
    {"keras_internals", "philox", "whole_files"},
    {"engine"},
    {
        "checkpoint",
        "distribution",
        "image_scale",
        "labels",
        "launch",
        "moved",
        "networks",
        "plots",
        "tensorflow_internals",
        "version",
        "weights",
    },
    {"optimizers", "randomness"},
    {"augmentations", "layers", "losses"},
    {"data", "encoders", "views"},
    {"evaluation"},
    {"callbacks", "export", "retrieval"},
    {"pretraining"},
    {"methods"},
    {"recipes"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path):
    """Returns the first-level module or package of a file."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "keras_barlow":
            yield from node.module.split(".")[1:2] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("keras_barlow."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_modules_stay_small(path):
    for name in imported_parts(path):
        assert name == part(path) or LAYER_OF[name] < LAYER_OF[part(path)], f"{path.name} imports {name}"
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            first = node.body[1:][0] if documented and node.body[1:] else node.body[0]
            assert node.end_lineno - first.lineno < 60, f"{node.name} is too long"
    if part(path) != "distribution":
        assert "tf.distribute" not in text.split('"""', 2)[-1].replace("`tf.distribute", "")


def test_every_part_has_a_layer_and_module_names_are_unique():
    assert {part(path) for path in MODULES} == set(LAYER_OF)
    names = [path.stem for path in MODULES if path.name != "__init__.py"]
    assert not {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_method_is_at_most_100_lines(path):
    assert len(path.read_text().splitlines()) <= 100


def test_the_public_surface():
    modules = "augmentations callbacks checkpoint data distribution encoders evaluation export layers losses methods"
    modules += " optimizers plots pretraining randomness recipes retrieval views weights"
    names = ["Projector", "__version__", "load_encoder", *kb.methods.__all__]
    assert sorted(kb.__all__) == sorted([*names, *modules.split()])
    assert sorted(kb.methods.__all__) == ["BYOL", "BarlowTwins", "MoCo", "SimCLR", "SimSiam", "SwAV", "VICReg"]


def public_objects():
    for name in kb.__all__:
        value = getattr(kb, name)
        members = [value] if not inspect.ismodule(value) else vars(value).values()
        for member in members:
            ours = getattr(member, "__module__", "").startswith("keras_barlow") and callable(member)
            if ours and not member.__name__.startswith("_"):
                yield member


def issubclass_of(item, base):
    return inspect.isclass(item) and issubclass(item, base)


OBJECTS = sorted(set(public_objects()), key=lambda item: (item.__module__, item.__qualname__))


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{item.__module__}.{item.__name__}")
def test_public_docstrings_name_every_argument(item):
    text = inspect.getdoc(item)
    assert text and text.splitlines()[0].endswith((".", ":", "`"))
    if issubclass_of(item, Exception):
        return
    names = [
        name
        for name, parameter in inspect.signature(item).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    for name in names:
        assert f"{name}:" in text or f"`{name}`" in text or f"{name} " in text, f"{name} is not documented"


def method(name, **arguments):
    """A small model of a method."""
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    if name in ("BYOL", "SimSiam"):
        arguments["predictor"] = kb.Projector((4, 4))
    return getattr(kb, name)(encoder, kb.Projector((4,)), views=kb.views.barlow_twins(8), **arguments)


METHODS = {name: functools.partial(method, name) for name in kb.methods.__all__}
METHODS |= {
    "MoCo": functools.partial(method, "MoCo", queue_size=8),
    "SwAV": functools.partial(method, "SwAV", num_prototypes=3),
}
SERIALIZABLE = {
    **{name: getattr(kb.losses, name) for name in kb.losses.__all__ if name.endswith("Loss") and name != "Loss"},
    **METHODS,
    "MixedBarlowTwinsLoss": lambda: kb.losses.MixedBarlowTwinsLoss(kb.losses.BarlowTwinsLoss(0.1), 2.0),
    "LARS": kb.optimizers.LARS,
    "SGD": kb.optimizers.SGD,
    "BatchNormalization": kb.layers.BatchNormalization,
    "Standardize": lambda: kb.layers.Standardize(0.5, 0.25),
    "Projector": lambda: kb.Projector((4,)),
    "Views": lambda: kb.views.barlow_twins(8, seed=0),
    "RandomResizedCrop": lambda: kb.augmentations.RandomResizedCrop(8, 8),
    "RandomFlip": kb.augmentations.RandomFlip,
    "RandomColorJitter": kb.augmentations.RandomColorJitter,
    "RandomGrayscale": kb.augmentations.RandomGrayscale,
    "RandomGaussianBlur": kb.augmentations.RandomGaussianBlur,
    "RandomSolarization": kb.augmentations.RandomSolarization,
}


def test_every_registered_class_is_listed():
    registered = {name.split(">")[1] for name in keras.saving.get_custom_objects() if name.startswith("keras_barlow>")}
    assert registered == set(SERIALIZABLE)


@pytest.mark.parametrize("name", SERIALIZABLE)
def test_every_argument_is_an_attribute_and_survives_the_config(name):
    item = SERIALIZABLE[name]()
    config = keras.saving.serialize_keras_object(item)
    assert config["registered_name"] == f"keras_barlow>{name}"
    # Compare JSON, which does not distinguish tuples from lists. Serialize first, because Keras modifies the config.
    text = json.dumps(config)
    again = keras.saving.deserialize_keras_object(config)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == text
    for argument, parameter in inspect.signature(type(item).__init__).parameters.items():
        if argument != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            assert hasattr(item, argument), f"{name}.{argument}"
