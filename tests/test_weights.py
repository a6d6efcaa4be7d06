"""Conversion of ResNet weights, compared with PyTorch."""

import os
import pickle
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_barlow as kb
from keras_barlow import weights
from tests import shared

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch")
nn = torch.nn

MEAN, DEVIATION = kb.encoders.IMAGENET_MEAN, kb.encoders.IMAGENET_DEVIATION


class Bottleneck(nn.Module):
    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = None
        if stride != 1 or channels_in != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """A ResNet with torchvision's names, without the classifier."""

    def __init__(self, width=64, blocks=(3, 4, 6, 3)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = width
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                layers.append(Bottleneck(channels, width * 2**stage, 2 if stage and not block else 1))
                channels = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.avgpool(x).flatten(1)


def with_random_statistics(network):
    """Sets weights, scales and moving statistics to values that differ from the defaults."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.num_batches_tracked += 7
    return network.eval()


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return with_random_statistics(ResNet50())


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    return with_random_statistics(ResNet50(width=4, blocks=(1, 1, 1, 1)))


def small_encoder():
    return kb.encoders.resnet((1, 1, 1, 1), "bottleneck", (64, 64, 3), width=4)


def with_prefix(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def counted(state):
    """Renames a state dict like lightly: the children of the network become numbers."""
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {".".join([numbers[name.split(".")[0]], *name.split(".")[1:]]): value for name, value in state.items()}


def other_tensors(*names):
    return {name: torch.ones(3, 2) for name in names}


def reference_checkpoint(state):
    model = {**with_prefix(state, "module.backbone."), **other_tensors("module.projector.0.weight", "module.bn.x")}
    optimizer = {"state": {0: {"mu": torch.zeros(2)}}, "param_groups": [{"lr": 0.2, "params": [0]}]}
    return {"epoch": 3, "model": model, "optimizer": optimizer}


def vissl(state):
    trunk = with_prefix(state, "_feature_blocks.")
    model = {"trunk": trunk, "heads": other_tensors("0.clf.weight")}
    return {"phase_idx": 4, "classy_state_dict": {"base_model": {"model": model, "meta": {"name": "resnet"}}}}


def solo_learn(state):
    """A Lightning checkpoint, whose settings are objects of other packages."""
    import argparse

    parts = {**with_prefix(state, "backbone."), **with_prefix(state, "momentum_backbone.")}
    return {
        "state_dict": {**parts, **other_tensors("projector.0.weight", "classifier.weight")},
        "hyper_parameters": argparse.Namespace(lr=np.float64(0.3), widths=[2048]),
        "callbacks": {},
    }


LAYOUTS = {
    "torchvision": (lambda state: state, ""),
    "torchvision with a classifier": (lambda state: {**state, **other_tensors("fc.weight")}, ""),
    "reference checkpoint": (reference_checkpoint, "model.module.backbone."),
    "VISSL": (vissl, "classy_state_dict.base_model.model.trunk._feature_blocks."),
    "MMSelfSup": (
        lambda state: {"meta": {"epoch": 300}, "state_dict": with_prefix(state, "backbone.")},
        "state_dict.backbone.",
    ),
    "solo-learn": (solo_learn, "state_dict.backbone."),
    "lightly": (
        lambda state: {
            "state_dict": {**with_prefix(counted(state), "backbone."), **other_tensors("projection_head.x")}
        },
        "state_dict.backbone.",
    ),
}


@pytest.mark.parametrize(
    "layout, legacy",
    shared.few(
        [(layout, legacy) for layout in LAYOUTS for legacy in (False, True)],
        *[(layout, False) for layout in LAYOUTS],
        *[("torchvision", True), ("solo-learn", True)],
    ),
)
def test_every_layout_loads_and_comes_back_bit_for_bit(layout, legacy, small, tmp_path):
    wrap, prefix = LAYOUTS[layout]
    state = small.state_dict()
    torch.save(wrap(state), tmp_path / "in.pth", _use_new_zipfile_serialization=not legacy)
    encoder = small_encoder()
    loaded = weights.load_torch(tmp_path / "in.pth", encoder)
    assert loaded.prefix == prefix and len(loaded.names) == len(state)
    assert f"{len(state)} tensors loaded from" in str(loaded)
    back = torch.load(weights.save_torch(encoder, tmp_path / "out.pth"))
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value), name


@pytest.mark.parametrize(
    "layout, name",
    shared.few(
        [
            (layout, name)
            for layout in ("torchvision", "reference checkpoint", "lightly")
            for name in ("out.safetensors", "model.bin")
        ],
        *[("torchvision", "model.bin"), ("reference checkpoint", "out.safetensors"), ("lightly", "out.safetensors")],
    ),
)
def test_safetensors_load_and_come_back_bit_for_bit(layout, name, small, tmp_path):
    """Uses the same names: safetensors files are flat, so the nesting becomes a prefix."""
    wrap, prefix = {
        "torchvision": (lambda state: {**state, **other_tensors("fc.weight")}, ""),
        "reference checkpoint": (lambda state: with_prefix(state, "module.backbone."), "module.backbone."),
        "lightly": (lambda state: with_prefix(counted(state), "backbone."), "backbone."),
    }[layout]
    state = small.state_dict()
    safetensors_torch.save_file(wrap(state), tmp_path / name)
    encoder = small_encoder()
    loaded = weights.load_torch(tmp_path / name, encoder)
    assert loaded.prefix == prefix and len(loaded.names) == len(state)
    out = tmp_path / "again.safetensors"
    assert weights.save_torch(encoder, out) == out
    back = safetensors_torch.load_file(out)
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value), key


def test_half_precision_in_safetensors(small, tmp_path):
    state = {name: value.bfloat16() if value.ndim == 4 else value for name, value in small.state_dict().items()}
    state |= {name: value.half() for name, value in state.items() if name.endswith("bias")}
    safetensors_torch.save_file(state, tmp_path / "in.safetensors")
    encoder = small_encoder()
    weights.load_torch(tmp_path / "in.safetensors", encoder)
    kernel = encoder.get_layer("stem_convolution").kernel
    np.testing.assert_array_equal(kernel, state["conv1.weight"].float().permute(2, 3, 1, 0))
    np.testing.assert_array_equal(encoder.get_layer("stem_normalization").beta, state["bn1.bias"].float())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_an_encoder_in_bfloat16_comes_back(ending, tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    encoder = small_encoder()
    other = small_encoder()
    weights.load_torch(weights.save_torch(encoder, tmp_path / f"out.{ending}"), other)
    for value, expected in zip(other.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(np.asarray(value, "float32"), np.asarray(expected, "float32"))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_tilde_in_the_path_is_expanded(ending, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = f"~/out.{ending}"
    assert weights.save_torch(small_encoder(), path) == path and (tmp_path / f"out.{ending}").exists()
    assert len(weights.load_torch(path, small_encoder()).names) > 50


def test_safetensors_are_written_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    weights.save_torch(small_encoder(), tmp_path / "out.safetensors")
    with pytest.raises(ImportError, match=r"or write a \.safetensors file"):
        weights.save_torch(small_encoder(), tmp_path / "out.pth")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("bn1.num_batches_tracked", torch.tensor([1, 2]), "one integer. Received: bn1.num_batches_tracked of shape"),
        ("bn1.num_batches_tracked", torch.tensor(float("nan")), "one integer. Received: .*float32"),
        ("conv1.weight", torch.ones(4, 3, 7, 7, dtype=torch.complex64), "real numbers. Received: conv1.weight"),
    ],
)
def test_a_rejected_value_leaves_the_encoder_unchanged(name, value, match, small, tmp_path):
    torch.save({**small.state_dict(), name: value}, tmp_path / "in.pth")
    encoder = small_encoder()
    before = encoder.get_weights()
    with pytest.raises(ValueError, match=match):
        weights.load_torch(tmp_path / "in.pth", encoder)
    for weight, old in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize(
    "layout",
    shared.few(LAYOUTS, "reference checkpoint"),
)
def test_features_of_resnet50_match_pytorch(layout, reference, tmp_path):
    wrap, _ = LAYOUTS[layout]
    torch.save(wrap(reference.state_dict()), tmp_path / "in.pth")
    encoder = kb.encoders.resnet50()
    weights.load_torch(tmp_path / "in.pth", encoder)
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("float32")
    standardized = torch.from_numpy((images / 255 - np.float32(MEAN)) / np.float32(DEVIATION)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = reference(standardized.contiguous()).numpy()
    got = encoder.predict(images, verbose=0)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_batch_trains_the_same_statistics(small, tmp_path):
    """Momentum and epsilon match PyTorch: one training step updates the moving statistics equally."""
    torch.save(small.state_dict(), tmp_path / "in.pth")
    encoder = small_encoder()
    weights.load_torch(tmp_path / "in.pth", encoder)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("float32")
    encoder(images, training=True)
    copy = ResNet50(width=4, blocks=(1, 1, 1, 1))
    copy.load_state_dict(small.state_dict())
    standardized = torch.from_numpy((images / 255 - np.float32(MEAN)) / np.float32(DEVIATION)).permute(0, 3, 1, 2)
    copy.train()(standardized)
    got = encoder.get_layer("stage1_block1_normalization2").moving_mean
    np.testing.assert_allclose(got, copy.layer1[0].bn2.running_mean, rtol=1e-4, atol=1e-5)


def test_other_dtypes_and_views_of_one_storage(small, tmp_path):
    state = {name: value.half() if value.is_floating_point() else value for name, value in small.state_dict().items()}
    # A transposed view, a slice of a larger tensor, and a number that is stored once and broadcast.
    state["layer1.0.conv1.weight"] = torch.ones(1, 4, 1, 1).expand(4, 4, 1, 1)
    state["conv1.weight"] = state["conv1.weight"].permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    state["bn1.bias"] = torch.cat([torch.ones(5).half(), state["bn1.bias"]])[5:]
    state["bn1.weight"] = state["bn1.weight"].bfloat16()
    torch.save(state, tmp_path / "in.pth")
    encoder = small_encoder()
    weights.load_torch(tmp_path / "in.pth", encoder)
    kernel = encoder.get_layer("stem_convolution").kernel
    np.testing.assert_array_equal(kernel, state["conv1.weight"].float().permute(2, 3, 1, 0))
    np.testing.assert_array_equal(encoder.get_layer("stem_normalization").beta, state["bn1.bias"].float())
    np.testing.assert_array_equal(encoder.get_layer("stem_normalization").gamma, state["bn1.weight"].float())


def test_weights_of_another_architecture_are_rejected(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "in.pth")
    wider = kb.encoders.resnet((1, 1, 1, 1), "bottleneck", (64, 64, 3), width=8)
    before = wider.get_weights()
    with pytest.raises(ValueError, match=r"conv1.weight of shape \(4, 3, 7, 7\); the encoder needs \(8, 3, 7, 7\)"):
        weights.load_torch(tmp_path / "in.pth", wider)
    with pytest.raises(ValueError, match=r"without layer1.1.conv1.weight, which.*\(4, 16, 1, 1\)"):
        weights.load_torch(tmp_path / "in.pth", kb.encoders.resnet((2, 1, 1, 1), "bottleneck", (64, 64, 3), width=4))
    with pytest.raises(ValueError, match=r"layer4.0.bn1.bias of shape.*no place"):
        weights.load_torch(tmp_path / "in.pth", kb.encoders.resnet((1, 1, 1), "bottleneck", (64, 64, 3), width=4))
    for weight, old in zip(wider.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    with pytest.raises(ValueError, match="layers are named for it"):
        weights.load_torch(tmp_path / "in.pth", keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))


def test_a_file_with_two_networks_needs_a_prefix(small, tmp_path):
    state = small.state_dict()
    torch.save({**with_prefix(state, "one."), **with_prefix(state, "two.")}, tmp_path / "in.pth")
    with pytest.raises(ValueError, match=r"with 'one\.', 'two\.'. Choose one with prefix="):
        weights.load_torch(tmp_path / "in.pth", small_encoder())
    assert weights.load_torch(tmp_path / "in.pth", small_encoder(), prefix="two.").prefix == "two."
    with pytest.raises(ValueError, match=r"must lead to a ResNet. Received: prefix='three\.'"):
        weights.load_torch(tmp_path / "in.pth", small_encoder(), prefix="three.")
    torch.save(other_tensors("fc.weight"), tmp_path / "in.pth")
    with pytest.raises(ValueError, match=r"contain one ResNet. Received: .* with fc.weight"):
        weights.load_torch(tmp_path / "in.pth", small_encoder())


class Evil:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "function", [os.mkdir, os.system, eval, getattr, __import__], ids=lambda function: function.__name__
)
def test_a_pickle_that_names_code_is_rejected_without_executing_it(function, legacy, small, tmp_path):
    trace = tmp_path / "it_ran"
    arguments = {
        os.mkdir: (str(trace),),
        os.system: (f"mkdir {trace}",),
        eval: (f"__import__('os').mkdir({str(trace)!r})",),
        getattr: (Evil(__import__, "os"), "mkdir"),
        __import__: ("os",),
    }[function]
    torch.save(
        {**small.state_dict(), "evil": Evil(function, *arguments)},
        tmp_path / "in.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(ValueError, match=r"name code to execute. Received: a file that names (posix|__builtin__)\."):
        weights.load_torch(tmp_path / "in.pth", small_encoder())
    assert not trace.exists()
    # Check of the test itself: torch.load without restrictions does execute it.
    if function is os.mkdir:
        torch.load(tmp_path / "in.pth", weights_only=False)
        assert trace.exists()


def test_other_files_are_rejected(small, tmp_path):
    path = tmp_path / "in.pth"
    for content in (b"", b"text", pickle.dumps({"a": 1}), pickle.dumps([1, 2])[:5]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"must be written by torch.save"):
            weights.load_torch(path, small_encoder())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(ValueError, match=r"a zip archive without data\.pkl"):
        weights.load_torch(path, small_encoder())
    torch.save(small.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ends too early"):
        weights.load_torch(path, small_encoder())
    with pytest.raises(FileNotFoundError):
        weights.load_torch(tmp_path / "nothing.pth", small_encoder())
