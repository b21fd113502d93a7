import copy

import pytest
import torch
from torch import nn

from pixel_spotter.models.cnn import CNNRegressor


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_of_the_default_by_hand() -> None:
    convolutions = (9 * 1 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 64
    linear = (64 * 6 * 6 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 2  # 50 -> 25 -> 12 -> 6
    assert parameters(CNNRegressor(50)) == convolutions + linear == 326_722


def test_widths_follow_the_arguments() -> None:
    model = CNNRegressor([20, 33], channels=[3, 5], hidden=[7])
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]
    assert shapes == [(3, 1, 3, 3), (5, 3, 3, 3), (7, 5 * 5 * 8), (2, 7)]


def test_no_hidden_layer() -> None:
    model = CNNRegressor(8, channels=[2], hidden=[])
    assert parameters(model) == 10 * 2 + (2 * 4 * 4 + 1) * 2
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 2)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = CNNRegressor(16, channels=[4], hidden=[32], dropout=0.5)
    image = torch.rand(1, 1, 16, 16)
    model.train()
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))


def test_dropout_zeroes_its_share() -> None:
    model = CNNRegressor(16, channels=[4], hidden=[2000], dropout=0.25).train()
    (dropout,) = [layer for layer in model.features if isinstance(layer, nn.Dropout)]
    torch.manual_seed(0)
    assert (dropout(torch.ones(20_000)) == 0).double().mean() == pytest.approx(0.25, abs=0.02)


def test_no_dropout_by_default() -> None:
    model = CNNRegressor(16).train()
    image = torch.rand(2, 1, 16, 16)
    assert torch.equal(model(image), model(image))


def test_pooling_before_relu_changes_no_bit() -> None:
    torch.manual_seed(0)
    pooled_first = CNNRegressor(20, channels=[3, 5], hidden=[7])
    layers = list(copy.deepcopy(pooled_first.features).children())  # type: ignore[arg-type]
    for place in (1, 4):
        assert isinstance(layers[place], nn.MaxPool2d)
        layers[place], layers[place + 1] = layers[place + 1], layers[place]
    relu_first = nn.Sequential(*layers)
    image = torch.rand(64, 1, 20, 20).round(decimals=1) - 0.5  # many ties, and zeros
    outcomes = []
    for network in (pooled_first.features, relu_first):
        features = network(image)
        features.square().sum().backward()
        outcomes.append([features, *(weight.grad for weight in network.parameters())])
    assert all(one.count_nonzero() for one in outcomes[0])
    assert all(torch.equal(*pair) for pair in zip(*outcomes, strict=True))


def test_mean_pooling_comes_after_relu() -> None:
    torch.manual_seed(0)
    model, image = CNNRegressor(8, channels=[2], hidden=[], pooling="mean"), torch.rand(4, 1, 8, 8)
    relu = model.features[0](image).relu()  # type: ignore[index]
    assert torch.equal(model.encode(image), nn.functional.avg_pool2d(relu, 2).flatten(1))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"image_size": 7}, "data.image_size is 7x7"),
        ({"image_size": [64, 7]}, "data.image_size is 64x7"),
        ({"channels": [2] * 5, "image_size": 31}, "at least 32 px"),
        ({"channels": []}, "model.channels"),
        ({"channels": [4, 0]}, "model.channels"),
        ({"hidden": [0]}, "model.hidden"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"dropout": -0.1}, "model.dropout"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        CNNRegressor(**({"image_size": 50} | changes))  # type: ignore[arg-type]


def test_smallest_image_that_fits() -> None:
    assert CNNRegressor(8)(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
