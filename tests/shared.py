"""Keeps the suite short: models that tests share, and parameters that only `pytest -m full` runs."""

import importlib
import pathlib

import keras
import pytest

_MODELS = {}


def model(key, build, scrambled=False):
    """Returns the model for a key, reset to its initial state. Tracing takes longest, so it is built only once.

    Args:
        key: Hashable key of the model.
        build: Function that creates and compiles the model.
        scrambled: Whether to add 1 to all variables, so that a test notices if they are not restored.
    """
    if key not in _MODELS:
        made = build()
        made.optimizer.build(made.trainable_variables)
        variables = [*made.variables, *made.optimizer.variables, made.batch_count]
        _MODELS[key] = made, [(variable, keras.ops.convert_to_numpy(variable)) for variable in variables]
    made, start = _MODELS[key]
    for variable, value in start:
        variable.assign(value + 1 if scrambled else value)
    made.stop_training = False
    return made


def example(name):
    """Returns a script of examples/ as a module, once per process: absl refuses to define a flag twice."""
    with pytest.MonkeyPatch.context() as patch:
        # As `python examples/NAME.py` finds the modules beside it.
        patch.syspath_prepend(pathlib.Path(__file__).parents[1] / "examples")
        return importlib.import_module(name)


def few(parameters, *chosen):
    """Returns all parameters, and marks those that are not chosen for `pytest -m full` only."""
    parameters = list(parameters)
    missing = [one for one in chosen if one not in parameters]
    assert not missing, f"Received: {missing}, which are not in the parameters"
    return [one if one in chosen else pytest.param(*_values(one), marks=pytest.mark.full) for one in parameters]


def _values(one):
    return one if isinstance(one, tuple) else (one,)
