"""Valid weights files of all kinds, written by PyTorch.

python tests/fuzz/sound_files.py folder

It runs in a separate process: PyTorch's optimizers import Triton, which crashes next to TensorFlow.
"""

import argparse
import collections
import pathlib
import sys

# Pickle protocols; PyTorch's default is 2.
PROTOCOLS = (1, 2, 3, 4, 5)
LAYOUTS = ("zip", "legacy")


def write(folder):
    """Writes `training_zip2`, `state_legacy4` and so on, and `safetensors`."""
    import safetensors.torch
    import torch

    torch.manual_seed(0)
    state = state_dict(torch)
    training = training_checkpoint(torch, state)
    for name, content in (("state", state), ("training", training)):
        for layout in LAYOUTS:
            for protocol in PROTOCOLS:
                new = layout == "zip"
                path = f"{folder}/{name}_{layout}{protocol}"
                torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    sound = {name: value.contiguous().clone() for name, value in state.items()}
    safetensors.torch.save_file(sound, f"{folder}/safetensors", metadata={"format": "pt"})


def state_dict(torch):
    flat = torch.randn(60)
    return {
        "kernel": torch.randn(4, 3, 3, 3),
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(3, 4).bfloat16(),
        "double": torch.randn(3).double(),
        "small": torch.tensor([1, -2, 3], dtype=torch.int8),
        "bytes": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "truth": torch.tensor([True, False]),
        "transposed": flat[:12].view(3, 4).t(),
        "part": flat[20:30],
        "every third": flat[::3],
        "last": flat[60:],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }


def training_checkpoint(torch, state):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3, 6, 6)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    return {
        "epoch": 3,
        "model": network.state_dict(),
        "ema": collections.OrderedDict(state),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "arguments": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a"), kind=int),
        "settings": collections.defaultdict(list, {"widths": [1, 2]}),
        "history": [0.1, -3, 2**70, None, True, b"bytes", "\u00fc\ud800", {"a"}, torch.Size([1, 2])],
        "views": [state["part"], (state["part"], {3: state["last"], None: state["scalar"]})],
        "complex": torch.randn(3, dtype=torch.complex64),
    }


if __name__ == "__main__":
    write(sys.argv[1])
