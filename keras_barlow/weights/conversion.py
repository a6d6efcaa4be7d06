"""ResNets of PyTorch, by torchvision's names, and the encoders of this library: the same numbers in another order."""

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

# Of the names of torchvision's layers, those by which lightly's nn.Sequential counts them.
_COUNTED = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
# Second networks of methods with a teacher; the first is the one that is trained.
_TEACHERS = re.compile(r"momentum|teacher|target|ema|(_k|_m)\b")
# Batches seen by PyTorch's normalization layers, by the Keras layer that took their numbers; Keras does not count them.
_BATCHES_TRACKED = weakref.WeakKeyDictionary()
_NORMALIZATION = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What `load_torch` found.

    Attributes:
        prefix: Where in the file the encoder stands, `"module.backbone."`.
        names: The file's names of the tensors that were loaded.
        unused: Those of the others: projectors, classifiers, states of optimizers.
    """

    prefix: str
    names: tuple
    unused: tuple

    def __str__(self):
        others = sorted({name.removeprefix("module.").split(".")[0] for name in self.unused})
        rest = f"; {len(self.unused)} others are not used ({', '.join(others)})" if others else ""
        return f"{len(self.names)} tensors loaded from {self.prefix or 'the top'!r}{rest}"


def load_torch(path, encoder, prefix=None):
    """Loads the weights of a PyTorch ResNet into an encoder of `encoders`.

    The file is one of `torch.save`, a state dict or a checkpoint that holds one, or of safetensors; its content tells
    which. PyTorch is not needed, and nothing in the file is run. Where the ResNet stands in it is found by its names:
    torchvision's, as in the reference code of Barlow Twins, VISSL, MMSelfSup and solo-learn, or the numbers of
    lightly's `nn.Sequential`. What stands before (`module.`, `backbone.`, `state_dict.`) does not matter.

    Args:
        path: Path of the file.
        encoder: `encoders.resnet50` or another of `encoders`, with the blocks, the width and the stem of the weights.
        prefix: What stands before `conv1.weight` in the file, if several networks are in it; None to find it.
            Of a network and its moving average the former is taken.

    Returns:
        `Loaded`; print it.

    Raises:
        ValueError: If the file is damaged, expands far beyond its size, or names what is to be run; if there is no
            ResNet in it, or more than one; or at the first tensor that is missing or of another shape, with both
            shapes. The encoder is as it was then.

    Example:

    >>> import os, tempfile, keras_barlow as kb
    >>> encoder = kb.encoders.resnet18((32, 32, 3), width=4)
    >>> path = os.path.join(tempfile.mkdtemp(), "resnet18.pth")
    >>> print(load_torch(save_torch(encoder, path), encoder))
    120 tensors loaded from 'the top'
    """
    path = os.path.expanduser(path)
    tensors = read_tensors(path)
    wanted = list(_named_variables(encoder))
    prefix, counted = _place(tensors, prefix, path)
    values, names = [], []
    for name, variable in wanted:
        own = prefix + (_count(name) if counted else name)
        if own not in tensors:
            raise ValueError(
                f"The weights must be of the same architecture as the encoder. Received: {path} without {own}, which "
                f"the encoder needs with the shape {_torch_shape(variable)}."
            )
        if tensors[own].shape != _torch_shape(variable):
            raise ValueError(
                f"The weights must be of the same architecture as the encoder. Received: {own} of shape "
                f"{tensors[own].shape}; the encoder needs {_torch_shape(variable)}. Compare blocks, width and stem."
            )
        names.append(own)
        values.append(_numbers(tensors, own))
    own = {name.rsplit(".", 1)[0] for name in names}
    counters = {name.rsplit(".", 1)[0]: name for name in tensors if name.endswith(".num_batches_tracked")}
    inside = [name for name in tensors if name.startswith(prefix) and _is_block(name.removeprefix(prefix), counted)]
    extra = sorted(name for name in inside if name.rsplit(".", 1)[0] not in own)
    if extra:
        raise ValueError(
            "The weights must be of the same architecture as the encoder. Received: "
            f"{shown(extra[0])} of shape {tensors[extra[0]].shape}, for which the encoder has no place. "
            "It has too few blocks."
        )
    tracked = []
    for layer, name in _normalizations(encoder):
        counter = counters.get(prefix + (_count(name) if counted else name))
        tracked.append((layer, 0 if counter is None else _batches(tensors, counter)))
        names += [] if counter is None else [counter]
    # Nothing is assigned before everything has been read.
    for (_, variable), value in zip(wanted, values, strict=True):
        variable.assign(_to_keras(value))
    for layer, batches in tracked:
        _BATCHES_TRACKED[layer] = batches
    used = set(names)
    return Loaded(prefix, tuple(names), tuple(name for name in tensors if name not in used))


def save_torch(encoder, path):
    """Writes an encoder as a state dict with torchvision's names, for PyTorch's ResNets.

    A path that ends in `.safetensors` gives a file of safetensors, any other one of `torch.save`.

    A file that `load_torch` read comes back bit for bit. The images of PyTorch's networks are standardised before;
    the encoder's mean and deviation are in its layer `standardize`.

    Args:
        encoder: `keras.Model` of `encoders`.
        path: File to write.

    Returns:
        `path`.

    Raises:
        ImportError: If PyTorch is not installed, which safetensors does not need.
        ValueError: If it is no encoder of `encoders`.
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
            "Writing a file of PyTorch needs PyTorch. Install it with pip install torch, or write a .safetensors file."
        ) from error
    torch.save({name: _torch_tensor(torch, value) for name, value in state.items()}, file)
    return path


def _torch_tensor(torch, value):
    if value.dtype == ml_dtypes.bfloat16:  # PyTorch does not know NumPy's.
        return torch.from_numpy(value.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(value)


def _numbers(tensors, name):
    value = tensors[name].read()
    if value.dtype.kind == "c":
        raise ValueError(f"The weights must be real numbers. Received: {name} of {value.dtype}. Save its real part.")
    return value


def _batches(tensors, name):
    """What a normalization layer of PyTorch counts."""
    value = tensors[name].read()
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(
            f"A count of batches must be one integer. Received: {name} of shape {value.shape} and {value.dtype}. "
            "Save the file without it."
        )
    return int(value.item())


def _named_variables(encoder):
    """Each variable of the encoder with torchvision's name of it, in order."""
    found = False
    for layer in getattr(encoder, "layers", []):
        name = _torch_name(layer.name)
        if name is None:
            continue
        found = True
        if isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel
        else:
            for own, theirs in _NORMALIZATION.items():
                yield f"{name}.{theirs}", getattr(layer, own)
    if not found:
        raise ValueError(
            "PyTorch's weights go into a ResNet of keras_barlow.encoders, whose layers are named for it. "
            f"Received: {encoder!r}."
        )


def _normalizations(encoder):
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            yield layer, _torch_name(layer.name)


def _torch_name(name):
    """`stage2_block1_shortcut_normalization` is torchvision's `layer2.0.downsample.1`."""
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
    """Whether a name behind the prefix is one of the residual blocks."""
    return re.match(r"[4-7]\.\d+\." if counted else r"layer\d+\.\d+\.", name) is not None


def _place(tensors, prefix, path):
    """What stands before the names of the ResNet, and whether they are lightly's numbers."""
    if prefix is not None:
        for first, counted in (("layer1.0.conv1.weight", False), ("4.0.conv1.weight", True)):
            if prefix + first in tensors:
                return prefix, counted
        raise ValueError(f"There must be a ResNet behind the prefix. Received: prefix={prefix!r} for {path}.")
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
        found = sorted(repr(shown(place[0])) for place in places)[:8] or [shown(name) for name in list(tensors)[:3]]
        remedy = "Choose one with prefix=." if places else "Its names should be torchvision's, or lightly's numbers."
        raise ValueError(
            f"There must be one ResNet in the file. Received: {path} with {', '.join(found) or 'no tensor'}. {remedy}"
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
