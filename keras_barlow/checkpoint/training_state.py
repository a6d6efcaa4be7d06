"""The numbers of a model that a training step can change, and how another model takes them."""

import keras

_BATCHES = "batches/0000"


def state_of(model):
    """The numbers that a training step can change: weights, statistics, seeds, metrics, and the optimizer's.

    Under a strategy all workers must call it, since metrics are summed over the replicas.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary of NumPy arrays.
    """
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(model).items()}


def restore_state(model, arrays, names=None, kept=(), changes=""):
    """Gives a model the numbers of `state_of`.

    Args:
        model: Compiled `keras.Model` of the same architecture and optimizer, under any strategy.
        arrays: Dictionary of NumPy arrays.
        names: Which of the arrays are hyperparameters, `hyperparameter_names` of the model that they come from. None
            for those of this model.
        kept: Names of hyperparameters that stay as they are in the model.
        changes: What else differs between the two, in words, for the error.

    Raises:
        ValueError: If they are of another model, or of an optimizer that keeps other numbers.
    """
    variables = _variables(model)
    own = hyperparameter_names(model)
    names = own if names is None else names
    pairs = _pairs_of_weights(variables, arrays)
    pairs += _pairs_of_slots(variables, arrays, own.values(), names.values(), changes)
    pairs += [(own[name], names[name]) for name in own if name in names and name not in kept]
    # Metrics may come or go, with `skip_nonfinite` for one, and are reset at the next epoch.
    pairs += [(name, name) for name in variables if name.startswith("metrics/") and name in arrays]
    for ours, theirs in pairs:
        _assign(variables[ours], arrays[theirs])
    if _BATCHES in arrays and _BATCHES in variables:
        _assign(variables[_BATCHES], arrays[_BATCHES])
    elif _BATCHES in variables:
        # Before there was a count of batches, the optimizer's steps were taken for it.
        variables[_BATCHES].assign(keras.ops.cast(model.optimizer.iterations, variables[_BATCHES].dtype))


def hyperparameter_names(model):
    """The names under which `state_of` has the hyperparameters that are variables.

    Args:
        model: Compiled `keras.Model`.

    Returns:
        Dictionary from the optimizer's argument, such as `learning_rate`, to a name. Without `learning_rate` if that is
        a schedule.
    """
    numbers = {id(variable): name for name, variable in _variables(model).items()}
    return {name: numbers[id(variable)] for name, variable in _hyperparameters(model.optimizer)}


def _hyperparameters(optimizer, prefix=""):
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return [(f"{prefix}initial_scale", optimizer.dynamic_scale), *_hyperparameters(inner, prefix)]
    several = getattr(optimizer, "optimizers", None)
    if several is not None:
        return [pair for number, one in enumerate(several) for pair in _hyperparameters(one, f"{prefix}{number}.")]
    rate = optimizer.learning_rate
    return [(f"{prefix}learning_rate", rate)] if isinstance(rate, keras.Variable) else []


def _pairs_of_weights(variables, arrays):
    ours = {name: variable for name, variable in variables.items() if name.startswith("model/")}
    theirs = [name for name in arrays if name.startswith("model/")]
    rule = "A checkpoint belongs to one model and one optimizer. Received: "
    remedy = "Train with the model that the run was started with, or in another folder."
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
    """Everything of the optimizer but its hyperparameters, matched in their order."""
    own = [name for name in variables if name.startswith("optimizer/") and name not in own]
    theirs = [name for name in arrays if name.startswith("optimizer/") and name not in theirs]
    if [tuple(variables[name].shape) for name in own] != [arrays[name].shape for name in theirs]:
        raise ValueError(
            "A checkpoint belongs to one model and one optimizer. Received: an optimizer that keeps other numbers than "
            f"that of the checkpoint ({len(own)} arrays and {len(theirs)}"
            f"{f'; changed: {changes}' if changes else ''}). Train with what the run was started with, or in another "
            "folder."
        )
    return list(zip(own, theirs, strict=True))


def _assign(variable, array):
    variable.assign(array.view(variable.dtype) if array.dtype.kind == "V" else array)


def _variables(model):
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    count = getattr(model, "batch_count", None)
    groups = {
        "model": [variable for variable in model.variables if variable is not count],
        "metrics": model.metrics_variables,
        "optimizer": model.optimizer.variables,
        "batches": [] if count is None else [count],
    }
    # By number: two layers may have one name, and Keras counts its names on from model to model.
    return {
        f"{group}/{number:04d}": variable
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }
