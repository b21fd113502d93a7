"""What the spotter promises by construction, and that it learns."""

from pathlib import Path

import pytest
import torch
from conftest import CPU, compose
from torch import Tensor

from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.coordinates import FLAGS, as_xy
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.estimators.finder import windows
from pixel_spotter.models.spotter import SpotterRegressor, look
from pixel_spotter.train import train


def spots(count: int = 64, **settings: object) -> tuple[Tensor, dict[str, Tensor]]:
    """Images (B, 1, 21, 21) of spots near the middle, and what is true of them."""
    data = SpotDataModule(**{"image_size": 21, "margin_px": 9, **settings})  # type: ignore[arg-type]
    image, truth, *_ = data.batch("test", 0, torch.arange(count))
    return image, truth


@pytest.fixture
def model() -> SpotterRegressor:
    torch.manual_seed(0)
    return SpotterRegressor(21, window=11, widths=[32, 16], margin_px=9).eval()


@torch.no_grad()
def test_mirrored_and_transposed_images_have_such_answers(model: SpotterRegressor) -> None:
    image, _ = spots(cut_probability=0.5)
    straight, mirrored, turned = (
        model.estimate(each) for each in (image, image.flip(3), image.mT.contiguous())
    )
    assert (as_xy(straight) - 10).abs().amax() > 0.1, "random weights answer something"
    torch.testing.assert_close(mirrored["x"], 20 - straight["x"], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned["x"], straight["y"], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned["sd_x"], straight["sd_y"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mirrored["sd_x"], straight["sd_x"], atol=1e-4, rtol=1e-4)


COMA = {"name": "measured", "file": str(CONF_DIR / "psf/coma.npy"), "oversampling": 5}


@pytest.mark.parametrize(
    ("psf", "tied"),
    [
        (None, True),
        ({"name": "gaussian"}, True),
        ({"name": "gaussian", "ratio": 1.2}, False),
        (COMA | {"file": torch.eye(15).add(torch.eye(15).flip(0))}, True),
        (COMA | {"file": torch.eye(15)}, False),
        (COMA | {"file": torch.arange(15.0).expand(15, -1)}, False),
        (COMA, False),
    ],
)
@torch.no_grad()
def test_only_spots_that_are_their_own_mirror_image_tie_its_answers(
    psf: dict[str, object] | None, tied: bool
) -> None:
    torch.manual_seed(0)
    model = SpotterRegressor(21, window=11, widths=[32, 16], margin_px=9, psf=psf).eval()
    image, _ = spots()
    straight, mirrored = (model.estimate(each) for each in (image, image.flip(3)))
    assert torch.allclose(mirrored["x"], 20 - straight["x"], atol=1e-4) == tied
    again = SpotterRegressor(**model.hparams)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval().estimate(image), straight)


@torch.no_grad()
def test_it_looks_everywhere_in_images_of_other_sizes(model: SpotterRegressor) -> None:
    image, truth = spots(image_size=[30, 40], margin_px=0, photons=5000.0)
    found = as_xy(model.estimate(image))
    assert (found - as_xy(truth, "_true")).abs().amax() < 3, "within the window around the spot"
    model.search((30, 40), 12.0)
    columns = model.estimate(image)
    assert columns["x"].min() > 12 - 3
    assert columns["x"].max() < 40 - 12 + 3


@torch.no_grad()
def test_what_holds_no_spot_is_flagged(model: SpotterRegressor) -> None:
    image = torch.full((3, 1, 21, 21), 7.0)
    image[1] = torch.nan
    image[2, 0, 8:13, 8:13] = 4095
    columns = model.estimate(image)
    assert [FLAGS[int(flag)] for flag in columns["flag"]] == ["nothing found"] * 2 + ["saturated"]
    assert columns["x"].isnan().tolist() == [True, True, False]


def test_spots_of_all_brightnesses_look_alike() -> None:
    """Without noise, and far above the background: 0 beside the spot, 1 on it."""
    shape = torch.zeros(13, 13)
    shape[5:8, 5:8] = 1
    image = torch.stack([10 + 1e3 * shape, 10 + 1e6 * shape])
    seen = look(windows(image, torch.full((2, 2), 6), 13))
    torch.testing.assert_close(seen.image, shape.expand(2, -1, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.height, torch.tensor([1e3, 1e6]))
    torch.testing.assert_close(seen.background, torch.tensor([10.0, 10.0]))


def test_a_far_brighter_neighbour_does_not_drown_what_is_seen() -> None:
    image = torch.full((1, 13, 13), 25.0)
    image[0, 1, 1] = 1e5
    seen = look(windows(image, torch.full((1, 2), 6), 13))
    assert seen.image.abs().max() < 10


def test_the_loss_is_that_of_a_gaussian_and_linear_far_away(model: SpotterRegressor) -> None:
    image, _ = spots(1)
    with torch.no_grad():
        columns = model.estimate(image)
        sd = torch.stack([columns["sd_x"], columns["sd_y"]], dim=1)
        for off, expected in ((0, 0), (1, 0.5), (4, 8.0), (6, 18.0), (10, 42.0)):
            truth = {
                f"{name}_true": columns[name] + off * columns[f"sd_{name}"] for name in ("x", "y")
            }
            loss = model.training_loss(image, truth)
            torch.testing.assert_close(loss, expected + sd.log().mean(), atol=2e-3, rtol=1e-3)


def test_what_it_was_trained_on_is_that_of_all_batches(model: SpotterRegressor) -> None:
    (image, truth), (brighter, _) = spots(), spots(photons=50_000.0)
    with torch.no_grad():
        model.training_loss(image, truth)
        first = model.met[1, 0].item()
        for _ in range(300):
            model.training_loss(brighter, truth)
        unlike = FLAGS.index("unlike training")
        assert model.met[1, 0].item() > first + 2
        assert (model.estimate(brighter)["flag"] != unlike).all()
        assert (model.estimate(image)["flag"] == unlike).all()


def test_of_two_spots_it_learns_the_closer_one(model: SpotterRegressor) -> None:
    image = torch.full((1, 1, 21, 21), 10.0)
    image[0, 0, 10, 10] = 500.0  # where it looks
    one, other = {"x_true": 13.0, "y_true": 10.0}, {"x_true": 9.6, "y_true": 10.2}
    alone = {name: torch.tensor([value]) for name, value in other.items()}
    both = {
        **{name: torch.tensor([value]) for name, value in one.items()},
        **{f"neighbour_{name}": column for name, column in alone.items()},
        "photons_true": torch.tensor([900.0]),
        "neighbour_photons_true": torch.tensor([700.0]),
    }
    alone["photons_true"] = torch.tensor([700.0])
    with torch.no_grad():
        torch.testing.assert_close(
            model.training_loss(image, both), model.training_loss(image, alone)
        )
        none = both | {"neighbour_photons_true": torch.zeros(1)}
        assert model.training_loss(image, none) > model.training_loss(image, alone) + 0.1


def test_it_learns_where_spots_are_and_how_exactly_it_knows() -> None:
    torch.manual_seed(0)
    data = SpotDataModule(image_size=13, margin_px=5, photons=3000.0, sigma_px=1.2, batch_size=128)
    model = SpotterRegressor(13, window=9, widths=[64, 32], margin_px=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.003 * (1 - step / 150)
        image, truth, *_ = data.batch("train", step, torch.arange(128))
        optimizer.zero_grad()
        model.training_loss(image, truth).backward()
        optimizer.step()
    image, truth, *_ = data.batch("val", 0, torch.arange(500))
    with torch.no_grad():
        columns = model.eval().estimate(image)
    error = as_xy(columns) - as_xy(truth, "_true")
    bound = as_xy({"x": truth["bound_x"], "y": truth["bound_y"]})
    assert error.square().mean().sqrt() < 3 * bound.square().mean().sqrt()  # from 15 times
    sd = torch.stack([columns["sd_x"], columns["sd_y"]], dim=1)
    assert 0.6 < (error.abs() < sd).float().mean() < 0.76
    for name in ("photons", "background"):
        assert (columns[name] / truth[f"{name}_true"]).log().abs().median() < 0.1, name
    unlike = FLAGS.index("unlike training")
    assert (columns["flag"] == unlike).double().mean() < 0.01
    again = SpotterRegressor(13, window=9, widths=[64, 32], margin_px=5).eval()
    again.load_state_dict(model.state_dict())
    for other in ({"photons": 1e5}, {"background": 100.0}, {"camera": {"read_noise": 30.0}}):
        image, _ = spots(
            image_size=13, margin_px=5, **{"photons": 3000.0, "sigma_px": 1.2, **other}
        )
        assert (again.estimate(image)["flag"] == unlike).double().mean() > 0.9, other


def test_behind_a_lopsided_lens_faint_spots_are_found_without_a_bias() -> None:
    """Whose light's middle is not the point: a tied answer is off by how far it is."""
    torch.manual_seed(0)
    settings = {"psf": COMA, "sigma_px": None, "photons": 400.0, "background": 10.0}
    data = SpotDataModule(image_size=15, margin_px=6, batch_size=256, **settings)  # type: ignore[arg-type]
    model = SpotterRegressor(15, window=13, widths=[64, 32], margin_px=6, psf=COMA)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(150):
        image, truth, *_ = data.batch("train", step, torch.arange(256))
        optimizer.zero_grad()
        model.training_loss(image, truth).backward()
        optimizer.step()
    image, truth, *_ = data.batch("val", 0, torch.arange(1000))
    with torch.no_grad():
        columns = model.eval().estimate(image)
    error = as_xy(columns) - as_xy(truth, "_true")
    assert error.mean(dim=0).abs().amax() < 0.06, error.mean(dim=0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"window": 12}, "model.window must be an odd number"),
        ({"window": 3}, "model.window must be an odd number"),
        ({"window": 23}, "model.window=23 px is larger than images of 21x21 px"),
        ({"widths": []}, "model.widths"),
        ({"widths": [8, 0]}, "model.widths"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SpotterRegressor(21, **settings)  # type: ignore[arg-type]


def test_training_that_diverged_says_so(tmp_path: Path) -> None:
    """Its answers are flagged as those of images without a spot are, which there are none of."""
    tiny = ["data.train_samples=512", "data.val_samples=32", "data.test_samples=32"]
    cfg = compose([*CPU, "experiment=spotter", "model.widths=[8]", *tiny, "optim.lr=1e30"], "train")
    with pytest.raises(UserError, match="training diverged"):
        train(cfg, tmp_path / "run", "spotter")
