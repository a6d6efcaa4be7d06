"""What a run was started with, and what another run changes of it."""

import json
import weakref

import keras
import numpy as np

from keras_barlow import keras_internals

# The weights of networks are in the checkpoint, and their shapes are compared there.
_NOT_SETTINGS = ("name", "trainable", "dtype", "encoder", "projector", "predictor")
# Names and places of classes say nothing of the training. The seed of the views comes from the checkpoint.
_IGNORED = ("name", "module", "registered_name", "build_config", "seed", "shared_object_id")
_MISSING = "none"

# What an optimizer was compiled with, and the rates that the last run has left it with.
_left = weakref.WeakKeyDictionary()


def settings_of(model):
    """What the training depends on besides weights and data, as text and numbers.

    Args:
        model: Compiled `BarlowTwins`.

    Returns:
        A dictionary that JSON can hold: `optimizer` (the name of its class), `optimizer_config` and `model`.
    """
    optimizer = model.optimizer
    config = _config_of(optimizer)
    if optimizer in _left:
        compiled_with, left_with = _left[optimizer]
        # A callback has changed the rates since, unless they are no longer as the last run has left them.
        config = compiled_with if config == left_with else config
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


def leave(model, settings):
    """Remembers at the end of a run what its optimizer was compiled with.

    Args:
        model: Compiled `BarlowTwins`.
        settings: `settings_of` at the beginning.
    """
    _left[model.optimizer] = settings["optimizer_config"], json.loads(json.dumps(_config_of(model.optimizer)))


def class_of(optimizer):
    """The name of an optimizer's class, with that of the optimizer inside.

    Args:
        optimizer: `keras.optimizers.Optimizer`.

    Returns:
        A string.

    Example:

    >>> class_of(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    'LossScaleOptimizer(SGD)'
    """
    inner = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    inner += getattr(optimizer, "optimizers", [])
    names = ", ".join(class_of(one) for one in inner)
    return type(optimizer).__name__ + (f"({names})" if names else "")


def changes(saved, now):
    """What differs, by name.

    Args:
        saved: Part of the `settings_of` one run.
        now: That part of the other run's settings.

    Returns:
        Dictionary from a name to `old -> new`, a string.

    Example:

    >>> changes({"learning_rate": 0.5, "momentum": 0.9}, {"learning_rate": 0.001, "momentum": 0.9})
    {'learning_rate': '0.5 -> 0.001'}
    """
    return dict(_differences("", saved, now))


def _config_of(optimizer, prefix=""):
    """The arguments of an optimizer and of those inside it, in one dictionary."""
    if hasattr(optimizer, "inner_optimizer"):
        own = {"dynamic_growth_steps": optimizer.dynamic_growth_steps, "initial_scale": optimizer.initial_scale}
        inner = _config_of(optimizer.inner_optimizer, prefix)
        return {**{f"{prefix}{name}": value for name, value in own.items()}, **inner}
    if hasattr(optimizer, "optimizers"):
        parts = [_config_of(one, f"{prefix}{number}.") for number, one in enumerate(optimizer.optimizers)]
        return {name: value for part in parts for name, value in part.items()}
    config = _serialized(optimizer)
    config = config.get("config", {}) if isinstance(config, dict) else {}
    return json.loads(json.dumps({f"{prefix}{name}": value for name, value in config.items()}, default=str))


def _serialized(value):
    try:
        return keras.saving.serialize_keras_object(value)
    # A class of the user's own without `get_config`, or whose arguments Keras cannot write down.
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
