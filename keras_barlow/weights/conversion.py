"""Conversion between PyTorch ResNets, with torchvision's names, and the encoders of this library."""

import dataclasses
import os
import re
import weakref

import keras
import ml_dtypes
import numpy as np
import safetensors.numpy

from keras_barlow.weights.limits import shown
from keras_barlow.weights.torch_file import read_tensors

# Positions of torchvision's layers in lightly's nn.Sequential.
_COUNTED = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
# Names of teacher networks, such as moving averages. The network that was trained is preferred.
_TEACHERS = re.compile(r"momentum|teacher|target|ema|(_k|_m)\b")
# Batches seen by PyTorch's normalization layers, by the Keras layer that took their numbers; Keras does not count them.
_BATCHES_TRACKED = weakref.WeakKeyDictionary()
_NORMALIZATION = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Result of `load_torch`.

    Attributes:
        prefix: Prefix of the encoder's names in the file, such as `"module.backbone."`.
        names: Names of the tensors that were loaded, as in the file.
        unused: Names of all other tensors in the file, such as projectors, classifiers and optimizer state.
    """

    prefix: str
    names: tuple
    unused: tuple

    def __str__(self):
        others = sorted({name.removeprefix("module.").split(".")[0] for name in self.unused})
        rest = f"; {len(self.unused)} others are unused ({', '.join(others)})" if others else ""
        return f"{len(self.names)} tensors loaded from {self.prefix or 'the top'!r}{rest}"


def load_torch(path, encoder, prefix=None):
    """Loads the weights of a PyTorch ResNet into an encoder of `encoders`.

    The file may be a state dict or a checkpoint that contains one, written by `torch.save` or safetensors. The format
    is detected from the content. PyTorch is not needed, and no code from the file is executed. The ResNet is found by
    its names: torchvision's, as in the reference code of Barlow Twins, VISSL, MMSelfSup and solo-learn, or the numbers
    of lightly's `nn.Sequential`. Any prefix (`module.`, `backbone.`, `state_dict.`) is allowed.

    Args:
        path: Path of the file.
        encoder: `encoders.resnet50` or another ResNet of `encoders`, with the blocks, width and stem of the weights.
        prefix: Text before `conv1.weight` in the file, if the file holds several networks. None finds the network, and
            prefers a trained network to its moving average.

    Returns:
        `Loaded`. Print it for a summary.

    Raises:
        ValueError: If the file is damaged, expands far beyond its size, or names code to execute; if it contains no
            ResNet or more than one; or if a tensor is missing or has another shape. The encoder does not change then.

    Example:

    >>> import os, tempfile, keras_barlow as kb
    >>> encoder = kb.encoders.resnet18((32, 32, 3), width=4)
    >>> path = os.path.join(tempfile.mkdtemp(), "resnet18.pth")
    >>> print(load_torch(save_torch(encoder, path), encoder))
    120 tensors loaded from 'the top'
    """
    path = os.path.expanduser(path)
    tensors = read_tensors(path)
    variables = list(_named_variables(encoder))
    prefix, counted = _place(tensors, prefix, path)
    values, names = [], []
    for name, variable in variables:
        own = prefix + (_count(name) if counted else name)
        if own not in tensors:
            raise ValueError(
                f"The weights must have the architecture of the encoder. Received: {path} without {own}, which "
                f"the encoder needs with shape {_torch_shape(variable)}. Compare blocks, width and stem."
            )
        if tensors[own].shape != _torch_shape(variable):
            raise ValueError(
                f"The weights must have the architecture of the encoder. Received: {own} of shape "
                f"{tensors[own].shape}; the encoder needs {_torch_shape(variable)}. Compare blocks, width and stem."
            )
        names.append(own)
        values.append(_numbers(tensors, own))
    modules = {name.rsplit(".", 1)[0] for name in names}
    counters = {name.rsplit(".", 1)[0]: name for name in tensors if name.endswith(".num_batches_tracked")}
    inside = [name for name in tensors if name.startswith(prefix) and _is_block(name.removeprefix(prefix), counted)]
    extra = sorted(name for name in inside if name.rsplit(".", 1)[0] not in modules)
    if extra:
        raise ValueError(
            "The weights must have the architecture of the encoder. Received: "
            f"{shown(extra[0])} of shape {tensors[extra[0]].shape}, for which the encoder has no place. "
            "Build it with more blocks."
        )
    tracked = []
    for layer, name in _normalizations(encoder):
        counter = counters.get(prefix + (_count(name) if counted else name))
        tracked.append((layer, 0 if counter is None else _batches(tensors, counter)))
        names += [] if counter is None else [counter]
    # Read everything before assigning anything.
    for (_, variable), value in zip(variables, values, strict=True):
        variable.assign(_to_keras(value))
    for layer, batches in tracked:
        _BATCHES_TRACKED[layer] = batches
    used = set(names)
    return Loaded(prefix, tuple(names), tuple(name for name in tensors if name not in used))


def save_torch(encoder, path):
    """Writes an encoder as a state dict with torchvision's names, for PyTorch's ResNets.

    A path that ends in `.safetensors` selects that format; any other path is written by `torch.save`. Weights from
    `load_torch` are written back bit for bit. PyTorch networks expect standardized images; the encoder's mean and
    deviation are in its layer `standardize`.

    Args:
        encoder: `keras.Model` of `encoders`.
        path: File to write.

    Returns:
        `path`.

    Raises:
        ImportError: If PyTorch is not installed. Safetensors files do not need it.
        ValueError: If `encoder` is not a ResNet of `encoders`.
    """
    state = {name: _to_torch(variable) for name, variable in _named_variables(encoder)}
    for layer, name in _normalizations(encoder):
        state[f"{name}.num_batches_tracked"] = np.array(_BATCHES_TRACKED.get(layer, 0), "int64")
    file = os.fsdecode(os.path.expanduser(path))
    if file.endswith(".safetensors"):
        safetensors.numpy.save_file(state, file, metadata={"format": "pt"})
        return path
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Writing a PyTorch file needs PyTorch. Install it with pip install torch, or write a .safetensors file."
        ) from error
    torch.save({name: _torch_tensor(torch, value) for name, value in state.items()}, file)
    return path


def _torch_tensor(torch, value):
    if value.dtype == ml_dtypes.bfloat16:  # PyTorch does not accept NumPy's bfloat16.
        return torch.from_numpy(value.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(value)


def _numbers(tensors, name):
    value = tensors[name].read()
    if value.dtype.kind == "c":
        raise ValueError(
            f"The weights must be real numbers. Received: {name} of dtype {value.dtype}. Save its real part."
        )
    return value


def _batches(tensors, name):
    """Returns the number of batches that a PyTorch normalization layer has seen."""
    value = tensors[name].read()
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(
            f"A batch count must be one integer. Received: {name} of shape {value.shape} and dtype {value.dtype}. "
            "Save the file without it."
        )
    return int(value.item())


def _named_variables(encoder):
    """Yields torchvision's name and the variable, for each variable of the encoder."""
    is_resnet = False
    for layer in getattr(encoder, "layers", []):
        name = _torch_name(layer.name)
        if name is None:
            continue
        is_resnet = True
        if isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel
        else:
            for own, theirs in _NORMALIZATION.items():
                yield f"{name}.{theirs}", getattr(layer, own)
    if not is_resnet:
        raise ValueError(
            "PyTorch weights need a ResNet of keras_barlow.encoders, whose layers are named for it. "
            f"Received: {encoder!r}. Build one with encoders.resnet."
        )


def _normalizations(encoder):
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer, _torch_name(layer.name)


def _torch_name(name):
    """Converts `stage2_block1_shortcut_normalization` to torchvision's `layer2.0.downsample.1`."""
    if name in ("stem_convolution", "stem_normalization"):
        return {"stem_convolution": "conv1", "stem_normalization": "bn1"}[name]
    match = re.fullmatch(r"stage(\d+)_block(\d+)_(shortcut_)?(convolution|normalization)(\d*)", name)
    if match is None:
        return None
    stage, block, shortcut, kind, number = match.groups()
    if shortcut:
        part = {"convolution": "downsample.0", "normalization": "downsample.1"}[kind]
    else:
        part = {"convolution": "conv", "normalization": "bn"}[kind] + number
    return f"layer{stage}.{int(block) - 1}.{part}"


def _count(name):
    first, rest = name.split(".", 1) if "." in name else (name, "")
    return ".".join(filter(None, (_COUNTED.get(first, first), rest)))


def _is_block(name, counted):
    """Returns whether a name, without the prefix, belongs to a residual block."""
    return re.match(r"[4-7]\.\d+\." if counted else r"layer\d+\.\d+\.", name) is not None


def _place(tensors, prefix, path):
    """Returns the prefix of the ResNet's names, and whether the names are lightly's numbers."""
    if prefix is not None:
        for first, counted in (("layer1.0.conv1.weight", False), ("4.0.conv1.weight", True)):
            if prefix + first in tensors:
                return prefix, counted
        raise ValueError(
            f"`prefix` must lead to a ResNet. Received: prefix={prefix!r} for {path}. Use None to search for it."
        )
    places = {
        (name.removesuffix(first), counted)
        for first, second, counted in (
            ("layer1.0.conv1.weight", "conv1.weight", False),
            ("4.0.conv1.weight", "0.weight", True),
        )
        for name in tensors
        if (name == first or name.endswith(f".{first}")) and name.removesuffix(first) + second in tensors
    }
    if len(places) > 1:
        places = {place for place in places if not _TEACHERS.search(place[0])} or places
    if len(places) != 1:
        prefixes = sorted(repr(shown(place[0])) for place in places)[:8]
        examples = prefixes or [shown(name) for name in list(tensors)[:3]]
        remedy = "Choose one with prefix=." if places else "Rename the tensors as in torchvision or lightly."
        raise ValueError(
            f"The file must contain one ResNet. Received: {path} with {', '.join(examples) or 'no tensor'}. {remedy}"
        )
    return places.pop()


def _torch_shape(variable):
    shape = tuple(variable.shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def _to_keras(value):
    return np.transpose(value, (2, 3, 1, 0)) if value.ndim == 4 else value


def _to_torch(variable):
    value = keras.ops.convert_to_numpy(variable)
    return np.ascontiguousarray(np.transpose(value, (3, 2, 0, 1)) if value.ndim == 4 else value)
