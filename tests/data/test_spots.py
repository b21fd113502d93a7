"""Camera spots: what is drawn follows from numbers, and lies where the settings say."""

import pytest
import torch

from pixel_spotter.data.spots import SpotDataModule

HARD = {
    "image_size": [15, 17],
    "photons": [300, 10_000],
    "background": [1, 20],
    "sigma_px": [0.8, 2.0],
    "margin_px": 6,
    "neighbour_probability": 0.3,
    "neighbour_ratio": [0.2, 4.0],
    "cut_probability": 0.25,
    "read_noise": [0, 6],
}


def test_samples_follow_from_their_numbers() -> None:
    data = SpotDataModule(**HARD, seed=3)
    whole = data.batch("train", 2, torch.arange(128))
    some = torch.tensor([5, 77, 33, 3, 96])
    part = SpotDataModule(**HARD, seed=3).batch("train", 2, some)
    assert torch.equal(part.image.nan_to_num(-1), whole.image[some].nan_to_num(-1))
    for name, column in part.truth.items():
        assert torch.equal(column, whole.truth[name][some])
    turned = data.batch("train", 2, torch.arange(63, 31, -1))
    assert torch.equal(turned.image.nan_to_num(-1), whole.image[32:64].flip(0).nan_to_num(-1))
    for other in (data.batch("train", 3, some), data.batch("val", 2, some)):
        assert not torch.equal(other.image.nan_to_num(-1), part.image.nan_to_num(-1))


def test_truths_are_where_the_settings_say() -> None:
    truth = SpotDataModule(**HARD).truth("train", 0, torch.arange(4096))
    ranges = {
        "x_true": (5.5, 10.5), "y_true": (5.5, 8.5), "photons_true": (300, 10_000),
        "background_true": (1, 20), "sigma_px_true": (0.8, 2.0), "read_noise_true": (0, 6),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values = truth[name]
        assert low <= values.min().item() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max().item() <= high
    assert truth["photons_true"].median().item() == pytest.approx((300 * 10_000) ** 0.5, rel=0.1)
    there = truth["neighbour_photons_true"] > 0
    assert there.double().mean().item() == pytest.approx(0.3, abs=0.03)
    away = torch.hypot(*(truth[f"neighbour_{a}_true"] - truth[f"{a}_true"] for a in ("x", "y")))
    assert 2.499 < away.min().item() < 2.6
    assert 9.4 < away.max().item() < 9.501
    cut = (truth["cut_x_true"] != 0) | (truth["cut_y_true"] != 0)
    assert 0.2 < cut.double().mean().item() < 0.26


def test_a_cut_frame_still_shows_the_spots_pixel() -> None:
    data = SpotDataModule(**{**HARD, "cut_probability": 1.0})
    batch = data.batch("train", 0, torch.arange(512))
    x, y = ((batch.truth[f"{a}_true"] + 0.5).floor().long() for a in ("x", "y"))
    rows = torch.arange(512)
    assert batch.image[rows, 0, y, x].isfinite().all()
    assert 0.1 < batch.image.isnan().double().mean().item() < 0.6


def test_images_have_the_mean_that_is_expected() -> None:
    data = SpotDataModule(image_size=9, photons=500, background=4, margin_px=3)
    batch = data.batch("test", 0, torch.arange(2048))
    inside = batch.image.sum(dim=(1, 2, 3)) - 81 * 4
    assert inside.mean().item() == pytest.approx(500, rel=0.01)


def test_bounds_are_those_of_what_is_seen() -> None:
    def bound(**settings: object) -> float:
        data = SpotDataModule(**{"image_size": 19, "margin_px": 9, **settings})
        return data.batch("test", 0, torch.arange(64)).truth["bound_x"].mean().item()

    alone = bound()
    assert alone == pytest.approx(0.041, abs=0.0005)
    assert bound(camera={"read_noise": 4.0}) > 1.1 * alone
    assert bound(camera={"em_gain": 100.0}) == pytest.approx(2**0.5 * alone, rel=1e-3)
    assert bound(neighbour_probability=1.0, neighbour_px=2.0) > 1.2 * alone
    assert bound(cut_probability=1.0) > 1.01 * alone
    assert "bound_x" not in SpotDataModule().batch("train", 0, torch.arange(2)).truth


def test_a_neighbour_that_nothing_is_seen_of_takes_no_information_away() -> None:
    far = {"neighbour_probability": 1.0, "neighbour_px": 60.0}
    for settings in ({"image_size": 21, "margin_px": 6}, HARD):
        samples = torch.arange(256)
        alone = SpotDataModule(**{**settings, "neighbour_probability": 0.0}).truth(
            "test", 0, samples
        )
        data = SpotDataModule(**{**settings, **far})
        floor = data.floor(data.truth("test", 0, samples))
        expected = SpotDataModule(**{**settings, "neighbour_probability": 0.0}).floor(alone)
        torch.testing.assert_close(floor["bound_x"], expected["bound_x"], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"photons": -1.0}, "data.photons"),
        ({"photons": [10.0, 5.0]}, "data.photons"),
        ({"background": 0.0}, "data.background"),
        ({"sigma_px": 0.0}, "data.sigma_px"),
        ({"sigma_px": None}, "data.sigma_px"),
        ({"margin_px": 25}, "data.margin_px"),
        ({"neighbour_probability": 1.5}, "data.neighbour_probability"),
        ({"neighbour_px": [1.0]}, "data.neighbour_px"),
        ({"read_noise": -1.0}, "data.read_noise"),
        ({"test_samples": 0}, "data.test_samples"),
        ({"photons": 1e18}, "data.photons must be more than 0, at most 1e"),
        ({"camera": {"gain": 0.0}}, "camera.gain"),
        ({"camera": {"read_noise": 1.6}, "read_noise": [0, 6]}, "data.read_noise=null"),
        ({"camera": {"read_noise": torch.ones(50, 50)}, "read_noise": 0.0}, "both"),
        ({"camera": {"gain": "abc"}}, "camera.gain must be float"),
        ({"camera": {"read_noise": True}}, "camera.read_noise must be"),
        ({"psf": {"name": "gaussian", "ratio": "x"}}, "psf.ratio must be float"),
        ({"camera": {"read_noise": torch.ones(3, 3)}}, "camera.read_noise"),
        *(({"psf": {"name": "gaussian", "ratio": r}}, "psf.ratio") for r in (-1.0, 1e9)),
    ],
)
def test_settings_that_cannot_be(setting: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpotDataModule(**setting)
