"""The settings of a run, and how those of a resumed run differ."""

import json
import weakref

import keras
import numpy as np

from keras_barlow import keras_internals

# A checkpoint holds the weights of the networks, whose shapes are compared when they are restored.
_NOT_SETTINGS = ("name", "trainable", "dtype", "encoder", "projector", "predictor")
# Names and modules of classes do not affect training. The seed of the views comes from the checkpoint.
_IGNORED = ("name", "module", "registered_name", "build_config", "seed", "shared_object_id")
_MISSING = "none"

# From an optimizer to its settings at compile time and at the end of the last run.
_last_runs = weakref.WeakKeyDictionary()


def settings_of(model):
    """Returns the settings that training depends on, besides weights and data.

    Args:
        model: Compiled `BarlowTwins`.

    Returns:
        A JSON-serializable dictionary with `optimizer` (the name of its class), `optimizer_config` and `model`.
    """
    optimizer = model.optimizer
    config = _config_of(optimizer)
    if optimizer in _last_runs:
        compiled_config, last_config = _last_runs[optimizer]
        # If only callbacks have changed the rates since then, the original settings still apply.
        config = compiled_config if config == last_config else config
    layers = [layer for part in (model.encoder, model.projector) for layer in keras_internals.flat_layers(part)]
    settings = {
        "optimizer": class_of(optimizer),
        "optimizer_config": config,
        "model": {
            **{name: value for name, value in model.get_config().items() if name not in _NOT_SETTINGS},
            "dtype": sorted({layer.dtype_policy.name for layer in layers}),
        },
    }
    return json.loads(json.dumps(settings, default=str))


def record_end_of_run(model, settings):
    """Records at the end of a run the settings that its optimizer was compiled with.

    Args:
        model: Compiled `BarlowTwins`.
        settings: Return value of `settings_of` at the start of the run.
    """
    _last_runs[model.optimizer] = settings["optimizer_config"], json.loads(json.dumps(_config_of(model.optimizer)))


def class_of(optimizer):
    """Returns the name of an optimizer's class, with the classes of the optimizers inside it.

    Args:
        optimizer: `keras.optimizers.Optimizer`.

    Returns:
        A string.

    Example:

    >>> class_of(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    'LossScaleOptimizer(SGD)'
    """
    inner_optimizers = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    inner_optimizers += getattr(optimizer, "optimizers", [])
    names = ", ".join(map(class_of, inner_optimizers))
    return type(optimizer).__name__ + (f"({names})" if names else "")


def changes(saved, current):
    """Compares two settings.

    Args:
        saved: Settings of the original run, or a part of them.
        current: Settings of the current run, or the same part of them.

    Returns:
        A dictionary from the names of settings that differ to strings `old -> new`.

    Example:

    >>> changes({"learning_rate": 0.5, "momentum": 0.9}, {"learning_rate": 0.001, "momentum": 0.9})
    {'learning_rate': '0.5 -> 0.001'}
    """
    return dict(_differences("", saved, current))


def _config_of(optimizer, prefix=""):
    """Returns the arguments of an optimizer and of the optimizers inside it in one dictionary."""
    if hasattr(optimizer, "inner_optimizer"):
        own = {"dynamic_growth_steps": optimizer.dynamic_growth_steps, "initial_scale": optimizer.initial_scale}
        inner = _config_of(optimizer.inner_optimizer, prefix)
        return {**{f"{prefix}{name}": value for name, value in own.items()}, **inner}
    if hasattr(optimizer, "optimizers"):
        parts = [_config_of(inner, f"{prefix}{number}.") for number, inner in enumerate(optimizer.optimizers)]
        return {name: value for part in parts for name, value in part.items()}
    config = _serialized(optimizer)
    config = config.get("config", {}) if isinstance(config, dict) else {}
    return json.loads(json.dumps({f"{prefix}{name}": value for name, value in config.items()}, default=str))


def _serialized(value):
    try:
        return keras.saving.serialize_keras_object(value)
    # A user's class without `get_config`, or with arguments that Keras cannot serialize.
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return type(value).__name__


def _differences(name, saved, now):
    dictionaries = isinstance(saved, dict) and isinstance(now, dict)
    if dictionaries and saved.get("class_name") == now.get("class_name"):
        for key in sorted(set(saved) | set(now)):
            if key not in _IGNORED:
                longer = name if key == "config" else f"{name}.{key}" if name else key
                yield from _differences(longer, saved.get(key, _MISSING), now.get(key, _MISSING))
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for number, pair in enumerate(zip(saved, now, strict=True)):
            yield from _differences(f"{name}.{number}", *pair)
    elif saved != now:
        yield name, f"{_shown(saved)} -> {_shown(now)}"


def _shown(value):
    if isinstance(value, float):
        return str(np.float32(value))
    if isinstance(value, dict) and "class_name" in value:
        arguments = value.get("config") or {}
        inside = [f"{key}={_shown(item)}" for key, item in arguments.items() if key not in _IGNORED]
        return f"{value['class_name']}({', '.join(inside)})"
    return str(value)
