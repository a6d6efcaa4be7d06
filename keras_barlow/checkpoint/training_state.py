"""The training state of a model: every variable that a training step can change."""

import keras

from keras_barlow import engine

_BATCHES = "batches/0000"
_VECTOR_RATE = "vector_learning_rate"


def state_of(model):
    """Returns all variables that a training step can change: weights, statistics, seeds, metrics, optimizer slots.

    Under a strategy, every worker must call this function, because metrics are summed over the replicas.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary from names to NumPy arrays.
    """
    engine.sync(model)
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(model).items()}


def restore_state(model, arrays, names=None, kept=(), changes=""):
    """Assigns the result of `state_of` to a model.

    Args:
        model: Compiled `keras.Model` with the same architecture and optimizer, under any strategy.
        arrays: Dictionary of NumPy arrays from `state_of`.
        names: Hyperparameters among the arrays: the result of `hyperparameter_names` for the model that was saved.
            None uses the names of `model`.
        kept: Names of hyperparameters that keep their current value in `model`.
        changes: Description of other differences between the two models, for the error message.

    Raises:
        ValueError: If the arrays come from a different architecture or optimizer.
    """
    variables = _variables(model)
    own = hyperparameter_names(model)
    if names is None:
        # Checkpoints without names are older than the vector rate as a variable.
        names = {name: key for name, key in own.items() if not name.endswith(_VECTOR_RATE)}
    pairs = _pairs_of_weights(variables, arrays)
    pairs += _pairs_of_slots(variables, arrays, own.values(), names.values(), changes)
    pairs += [(own[name], names[name]) for name in own if name in names and not _is_kept(name, kept)]
    # The set of metrics may differ (`skip_nonfinite` adds one); all are reset at the next epoch.
    pairs += [(name, name) for name in variables if name.startswith("metrics/") and name in arrays]
    for ours, theirs in pairs:
        _assign(variables[ours], arrays[theirs])
    if _BATCHES in arrays and _BATCHES in variables:
        _assign(variables[_BATCHES], arrays[_BATCHES])
    elif _BATCHES in variables:
        # Older checkpoints have no batch count; the optimizer's steps served as one.
        variables[_BATCHES].assign(keras.ops.cast(model.optimizer.iterations, variables[_BATCHES].dtype))


def hyperparameter_names(model):
    """Returns the names that `state_of` gives to those hyperparameters that are variables.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary from the optimizer's argument, such as `learning_rate`, to the name. A learning-rate schedule is not
        a variable and has no entry.
    """
    names = {id(variable): name for name, variable in _variables(model).items()}
    return {argument: names[id(variable)] for argument, variable in _hyperparameters(model.optimizer)}


def _hyperparameters(optimizer, prefix=""):
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return [(f"{prefix}initial_scale", optimizer.dynamic_scale), *_hyperparameters(inner, prefix)]
    parts = getattr(optimizer, "optimizers", None)
    if parts is not None:
        return [pair for number, part in enumerate(parts) for pair in _hyperparameters(part, f"{prefix}{number}.")]
    rates = {"learning_rate": optimizer.learning_rate, _VECTOR_RATE: getattr(optimizer, "vector_rate", None)}
    return [(f"{prefix}{name}", rate) for name, rate in rates.items() if isinstance(rate, keras.Variable)]


def _is_kept(name, kept):
    # LARS stores its vector rate over the learning rate, so a new learning rate needs the new model's value of both.
    own, shared = name, name.replace(_VECTOR_RATE, "learning_rate")
    return any(changed.startswith((own, shared)) for changed in kept)


def _pairs_of_weights(variables, arrays):
    ours = {name: variable for name, variable in variables.items() if name.startswith("model/")}
    theirs = [name for name in arrays if name.startswith("model/")]
    rule = "A checkpoint belongs to one model and one optimizer. Received: "
    remedy = "Resume with the original model, or choose another folder."
    if len(ours) != len(theirs):
        raise ValueError(f"{rule}{len(theirs)} weights in the checkpoint and {len(ours)} in the model. {remedy}")
    for name, variable in ours.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{rule}a weight of shape {arrays[name].shape} in the checkpoint where the model has "
                f"{getattr(variable, 'path', name)} of shape {tuple(variable.shape)}. {remedy}"
            )
    return [(name, name) for name in ours]


def _pairs_of_slots(variables, arrays, own, theirs, changes):
    """Matches all optimizer variables other than hyperparameters, by position."""
    own = [name for name in variables if name.startswith("optimizer/") and name not in own]
    theirs = [name for name in arrays if name.startswith("optimizer/") and name not in theirs]
    if [tuple(variables[name].shape) for name in own] != [arrays[name].shape for name in theirs]:
        changed = f"; changed: {changes}" if changes else ""
        raise ValueError(
            "A checkpoint belongs to one model and one optimizer. Received: an optimizer whose variables differ from "
            f"those in the checkpoint ({len(own)} and {len(theirs)} arrays{changed}). "
            "Resume with the original optimizer, or choose another folder."
        )
    return list(zip(own, theirs, strict=True))


def _assign(variable, array):
    variable.assign(array.view(variable.dtype) if array.dtype.kind == "V" else array)


def _variables(model):
    if not model.optimizer.built:
        with engine.scope_of(model):
            model.optimizer.build(model.trainable_variables)
    count = getattr(model, "batch_count", None)
    groups = {
        "model": [variable for variable in model.variables if variable is not count],
        "metrics": model.metrics_variables,
        "optimizer": model.optimizer.variables,
        "batches": [] if count is None else [count],
    }
    # Names are positions: layer names may repeat, and Keras numbers them across models.
    return {
        f"{group}/{number:04d}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }
