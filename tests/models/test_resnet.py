import os
import socket
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import compose
from torch import nn
from torchvision.models import resnet18

from pixel_spotter.cli.mistakes import instantiate, user_message
from pixel_spotter.errors import UserError
from pixel_spotter.models.resnet import (
    DOWNLOAD_TIMEOUT_S,
    IMAGENET_MEAN,
    IMAGENET_STD,
    GreyInput,
    ResNet18Regressor,
)


def rgb_input(grey: torch.Tensor) -> torch.Tensor:
    """Do to a grey image what torchvision does to a grey photograph."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (grey.expand(-1, 3, -1, -1) - mean) / std


def test_grey_input_equals_three_normalized_channels_up_to_the_border() -> None:
    torch.manual_seed(0)
    rgb = resnet18().conv1
    grey = torch.rand(4, 1, 13, 18)
    with torch.no_grad():
        torch.testing.assert_close(GreyInput(rgb)(grey), rgb(rgb_input(grey)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_features_equal_those_of_the_pretrained_network(fake_weights: Path) -> None:
    original = resnet18().eval()
    original.load_state_dict(torch.load(fake_weights))
    original.fc = nn.Identity()
    model = ResNet18Regressor(40, weights=str(fake_weights)).eval()
    grey = torch.rand(3, 1, 40, 40)
    torch.testing.assert_close(
        model.features(grey), original(rgb_input(grey)), atol=1e-4, rtol=1e-4
    )


def test_the_file_is_loaded(fake_weights: Path) -> None:
    state = torch.load(fake_weights)
    features = ResNet18Regressor(32, weights=str(fake_weights)).features.state_dict()
    for name in ("layer1.0.conv1.weight", "layer4.1.bn2.running_var", "bn1.weight"):
        assert torch.equal(features[name], state[name])


def test_without_weights_the_network_is_random() -> None:
    torch.manual_seed(0)
    one = ResNet18Regressor(32, weights=None).features.state_dict()["layer1.0.conv1.weight"]
    torch.manual_seed(1)
    other = ResNet18Regressor(32, weights=None).features.state_dict()["layer1.0.conv1.weight"]
    assert not torch.equal(one, other)


def test_another_number_of_classes_is_welcome(fake_weights: Path, tmp_path: Path) -> None:
    state = torch.load(fake_weights)
    state["fc.weight"], state["fc.bias"] = torch.zeros(10, 512), torch.zeros(10)
    torch.save(state, tmp_path / "ten.pth")
    ResNet18Regressor(32, weights=str(tmp_path / "ten.pth"))


def damage_foreign(state: dict[str, Any]) -> Any:
    return {"encoder.weight": torch.zeros(3)}


def damage_shape(state: dict[str, Any]) -> Any:
    return state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}


def damage_partial(state: dict[str, Any]) -> Any:
    return {name: value for name, value in state.items() if not name.startswith("layer3.")}


def damage_extra(state: dict[str, Any]) -> Any:
    return state | {"layer5.weight": torch.zeros(1)}


def damage_checkpoint(state: dict[str, Any]) -> Any:
    return {"state_dict": state, "epoch": 3}


def damage_list(state: dict[str, Any]) -> Any:
    return list(state.values())


def damage_names(state: dict[str, Any]) -> Any:
    return dict(enumerate(state.values()))


DAMAGES = [
    damage_foreign,
    damage_shape,
    damage_partial,
    damage_extra,
    damage_checkpoint,
    damage_list,
    damage_names,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_state_dict_that_does_not_fit(damage: Any, fake_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(damage(torch.load(fake_weights)), path)
    with pytest.raises(UserError, match=r"weights\.pth") as caught:
        ResNet18Regressor(32, weights=str(path))
    message = user_message(caught.value)
    assert message
    assert "\n" not in message


def test_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a file nor one of") as caught:
        ResNet18Regressor(32, weights=str(tmp_path / "missing.pth"))
    assert "IMAGENET1K_V1" in str(caught.value)


def test_no_network_and_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*args: Any, **kwargs: Any) -> None:
        assert socket.getdefaulttimeout() == DOWNLOAD_TIMEOUT_S
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match="Name or service not known") as caught:
        instantiate(compose(["model=resnet18"]).model, "model")
    assert "model.weights=PATH" in str(caught.value)
    assert "model.weights=null" in str(caught.value)
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the torch hub caches the default weights: nothing is there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    return path


def test_the_hub_cache_is_used(cached: Path, fake_weights: Path) -> None:
    cached.write_bytes(fake_weights.read_bytes())
    features = ResNet18Regressor(32).features.state_dict()
    expected = torch.load(fake_weights)["layer2.0.conv1.weight"]
    assert torch.equal(features["layer2.0.conv1.weight"], expected)


def test_code_in_the_hub_cache_does_not_run(cached: Path, tmp_path: Path) -> None:
    torch.save(Evil(tmp_path / "it_ran"), cached)
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        ResNet18Regressor(32)
    assert not (tmp_path / "it_ran").exists()


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_damaged_cache_ends_in_a_user_error(cached: Path) -> None:
    cached.write_bytes(b"half a download")
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        ResNet18Regressor(32)


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 12), ("small", 48)])
def test_stem_decides_on_the_resolution(stem: str, side: int) -> None:
    model = ResNet18Regressor(48, weights=None, stem=stem)
    shapes = []
    model.features.get_submodule("layer1").register_forward_hook(
        lambda _module, _inputs, output: shapes.append(tuple(output.shape))
    )
    model(torch.zeros(1, 1, 48, 48))
    assert shapes == [(1, 64, side, side)]


def test_small_stem_keeps_the_filters(fake_weights: Path) -> None:
    small, imagenet = (
        ResNet18Regressor(32, weights=str(fake_weights), stem=stem).features
        for stem in ("small", "imagenet")
    )
    assert small.conv1.conv.stride == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    assert imagenet.conv1.conv.stride == (2, 2)
    assert torch.equal(small.conv1.conv.weight, imagenet.conv1.conv.weight)


def test_unknown_stem() -> None:
    with pytest.raises(ValueError, match=r"model\.stem"):
        ResNet18Regressor(32, weights=None, stem="tiny")


def test_parameters_by_hand() -> None:
    backbone = sum(p.numel() for p in resnet18().parameters()) - (512 + 1) * 1000
    expected = backbone - 64 * 49 + (512 + 1) * 2  # two input channels instead of three
    model = ResNet18Regressor(32, weights=None)
    assert sum(p.numel() for p in model.parameters()) == expected
