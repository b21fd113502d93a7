"""Frames of a camera to spots, with what nobody told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.coordinates import FLAGS
from pixel_spotter.errors import UserError
from pixel_spotter.models.locator import Locator
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import PSF, GaussianPSF, light, make_psf

XY = torch.tensor([[20.3, 30.7], [70.0, 41.2], [44.4, 80.1], [90.6, 90.2]])
TOLD = {"gain": 0.5, "offset": 100.0}


def counts(
    frames: int = 6,
    photons: float = 2000.0,
    background: float = 10.0,
    xy: Tensor = XY,
    psf: PSF | None = None,
    **camera: object,
) -> Tensor:
    settings = {"read_noise": 1.5, "bits": 16, **TOLD, **camera}
    much = torch.full((len(xy), 1), photons)
    spots = torch.cat([xy, much], dim=1).expand(frames, -1, -1)
    flat, wide = torch.full((frames,), background), torch.full((frames,), 1.1)
    expected = light(psf or GaussianPSF(), spots, flat, wide, (110, 120))
    return Camera(**settings).expose(expected, torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def assert_found(columns: dict[str, Tensor], frames: int = 6) -> None:
    assert columns["frame"].tolist() == sorted([*range(frames)] * 4)
    for frame in range(frames):
        own = columns["frame"] == frame
        place = torch.stack([columns["x"][own], columns["y"][own]], dim=1)
        assert (torch.cdist(XY, place).amin(dim=1) < 0.2).all()


@pytest.mark.parametrize(
    "told",
    [
        {},
        TOLD,
        {**TOLD, "read_noise": 1.5},
        {**TOLD, "read_noise": torch.full((110, 120), 1.5)},
        {**TOLD, "read_noise": 1.5, "sigma_px": 1.1},
        {"sigma_px": 1.1},
    ],
)
def test_what_is_not_told_is_estimated_and_said(told: dict[str, object]) -> None:
    locator, recorded = Locator(**told), counts()  # type: ignore[arg-type]
    said = " ".join(locator.learn(recorded))
    columns = locator(recorded)
    assert_found(columns)
    assert {*columns["flag"].tolist()} == {0}
    assert ("camera.gain" in said) == ("gain" not in told)
    assert ("camera.read_noise" in said) == ("gain" in told and "read_noise" not in told)
    assert ("psf.sigma_px" in said) == ("sigma_px" not in told)
    assert columns["photons"].mean().item() == pytest.approx(
        2000, rel=0.02 if "gain" in told else 0.3
    )
    assert columns["sigma_px"].mean().item() == pytest.approx(1.1, rel=0.02)
    if "gain" in told:
        assert columns["background"].mean().item() == pytest.approx(10, rel=0.05)
    assert columns["score"].min() > 50
    assert columns["sd_x"].mean().item() == pytest.approx(0.029, rel=0.15)


def test_electron_multiplication_doubles_the_variance() -> None:
    camera = {"em_gain": 100.0, "gain": 10.0, "read_noise": 30.0}
    recorded = counts(40, 500.0, **camera)
    locator = Locator(offset=100.0, sigma_px=1.1, **camera)  # type: ignore[arg-type]
    locator.learn(recorded)
    columns = locator(recorded)
    assert columns["photons"].mean().item() == pytest.approx(500, rel=0.05)
    truth = XY.repeat(40, 1)
    order = torch.cdist(torch.stack([columns["x"], columns["y"]], dim=1), XY).argmin(dim=1)
    pull = (columns["x"] - XY[order, 0]) / columns["sd_x"]
    assert len(pull) == len(truth)
    assert (pull.abs() < 1).double().mean() == pytest.approx(0.683, abs=0.1)


def test_saturated_and_crowded_spots_are_flagged() -> None:
    recorded = counts(2, 20_000.0, bits=12)
    assert (recorded == 4095).sum() > 8
    columns = Locator(**TOLD, read_noise=1.5, sigma_px=1.1, saturation=4095)(recorded)  # type: ignore[arg-type]
    assert_found(columns, 2)
    assert {FLAGS[int(flag)] for flag in columns["flag"]} == {"saturated"}
    wide = Locator(**TOLD, read_noise=1.5, sigma_px=0.8)(counts(2, 20_000.0))  # type: ignore[arg-type]
    assert FLAGS.index("crowded") in wide["flag"].tolist()


def test_a_measured_psf_is_as_wide_as_it_is() -> None:
    place = (torch.arange(65) - 32) / 5
    array = torch.exp(-(place.square() + place[:, None].square()) / (2 * 1.05**2))
    psf = {"name": "measured", "file": array, "oversampling": 5}
    locator = Locator(**TOLD, read_noise=1.5, psf=psf)  # type: ignore[arg-type]
    assert locator.sigma_px == pytest.approx(1.05, rel=0.05)
    columns = locator(counts())
    assert "sigma_px" not in columns
    assert_found(columns)


def test_a_measured_psf_beside_its_arrays_centre_is_told_of() -> None:
    place = (torch.arange(64) - 32) / 5  # the centre lies half a sample before 0
    array = torch.exp(-(place.square() + (place[:, None] + 1).square()) / (2 * 1.1**2))
    for shown, words in ((array, "0.10, -0.90 px right of and below"), (array[:, 1:], "0.00, -0")):
        psf = {"name": "measured", "file": shown, "oversampling": 5}
        said = Locator(**TOLD, read_noise=1.5, psf=psf).learn(counts(2))  # type: ignore[arg-type]
        assert words in " ".join(said)
    psf["file"] = array[:55, 1:]
    assert not Locator(**TOLD, read_noise=1.5, psf=psf).learn(counts(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"gain": 0.5}, "camera.gain and camera.offset go together"),
        ({"offset": 100.0}, "camera.gain and camera.offset go together"),
        ({"read_noise": 1.0}, "give camera.gain"),
        ({"em_gain": 30.0}, "give camera.gain"),
        ({"gain": 0.0, "offset": 0.0}, "camera.gain"),
        ({"sigma_px": 0.0}, "psf.sigma_px must be a positive number"),
        ({"sigma_px": 9.0}, "psf.sigma_px must be between 0.3 and 6"),
        ({"false_alarms": 0.0}, "false_alarms must be a number above 0"),
        ({**TOLD, "read_noise": -1.0}, "camera.read_noise"),
        (
            {
                "psf": {"name": "measured", "file": torch.ones(9, 9), "oversampling": 5},
                "sigma_px": 1.0,
            },
            "as wide as it is",
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Locator(**settings)  # type: ignore[arg-type]


def test_a_map_of_another_size_and_an_offset_above_the_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.ones((5, 5), np.float32))
    locator = Locator(**TOLD, read_noise=str(tmp_path / "map.npy"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"camera.read_noise is a map of \(5, 5\)"):
        locator.learn(counts(2))
    with pytest.raises(UserError, match="is more than most pixels hold"):
        Locator(gain=0.5, offset=500.0).learn(counts(2))


def test_frames_without_spots_or_values_have_no_rows() -> None:
    locator = Locator(**TOLD, read_noise=1.5, sigma_px=1.1)  # type: ignore[arg-type]
    for empty in (torch.full((2, 40, 40), 100.0), torch.full((2, 40, 40), torch.nan)):
        columns = locator(empty)
        assert {len(column) for column in columns.values()} == {0}


def test_a_camera_that_is_told_wrongly_is_doubted() -> None:
    right = Locator(**TOLD, read_noise=1.5).learn(counts())  # type: ignore[arg-type]
    assert not [line for line in right if "variance" in line]
    for wrong in ({"gain": 1.0}, {"gain": 0.25}, {"read_noise": 12.0}):
        said = Locator(**{**TOLD, "read_noise": 1.5, **wrong}).learn(counts())  # type: ignore[arg-type]
        assert "times the variance" in " ".join(said), wrong


def test_frames_that_were_smoothed_are_told_of() -> None:
    raw = counts()
    for camera in ({}, TOLD):
        said = Locator(**camera).learn((raw + raw.roll(1, dims=2)) / 2)  # type: ignore[arg-type]
        assert "alike in neighbouring pixels" in " ".join(said)
        assert "alike" not in " ".join(Locator(**camera).learn(raw))  # type: ignore[arg-type]


@pytest.mark.parametrize("told", [0.9, 1.04, 1.4])
def test_spots_of_another_width_than_is_told_are_fitted_with_their_own(told: float) -> None:
    recorded = counts(photons=30_000.0)
    locator = Locator(**TOLD, read_noise=1.5, sigma_px=told)  # type: ignore[arg-type]
    assert "but spots look 1.1 px wide" in " ".join(locator.learn(recorded))
    columns = locator(recorded)
    assert_found(columns)
    assert {*columns["flag"].tolist()} == {0}
    assert len(columns["sigma_px"].unique()) > 1
    again = Locator(**TOLD, read_noise=1.5, sigma_px=told)  # type: ignore[arg-type]
    again.restore(locator.estimated)
    assert torch.equal(again(recorded)["sigma_px"], columns["sigma_px"])
    right = Locator(**TOLD, read_noise=1.5, sigma_px=1.1)  # type: ignore[arg-type]
    assert right.learn(recorded) == []
    assert len(right(recorded)["sigma_px"].unique()) == 1


@pytest.mark.parametrize("sigma", [None, 1.1])
def test_bright_elliptic_spots_are_one_each(sigma: float | None) -> None:
    recorded = counts(photons=30_000.0, psf=GaussianPSF(1.4))
    locator = Locator(**TOLD, read_noise=1.5, sigma_px=sigma)  # type: ignore[arg-type]
    assert "psf.ratio=1." in " ".join(locator.learn(recorded))
    assert locator.estimated["ratio"] == pytest.approx(1.4, rel=0.01)
    assert_found(locator(recorded))
    told = Locator(**TOLD, read_noise=1.5, sigma_px=sigma, psf={"name": "gaussian", "ratio": 1.4})  # type: ignore[arg-type]
    assert "psf.ratio" not in " ".join(told.learn(recorded))
    assert_found(told(recorded))


def test_spots_that_are_no_gaussians_are_doubted_and_what_is_beside_them_is_flagged() -> None:
    psf = make_psf("measured", file=str(CONF_DIR / "psf/coma.npy"), oversampling=5)
    many = torch.cartesian_prod(
        torch.tensor([20.2, 52.7, 95.4]), torch.tensor([18.6, 41.3, 64.9, 88.8])
    )
    recorded = counts(photons=30_000.0, xy=many, psf=psf)
    locator = Locator(**TOLD, read_noise=1.5)  # type: ignore[arg-type]
    assert "many spots are no Gaussians" in " ".join(locator.learn(recorded))
    columns = locator(recorded)
    place = torch.stack([columns["x"], columns["y"]], dim=1)
    away = torch.cdist(place, many).amin(dim=1)
    for frame in range(6):  # none is lost
        own = columns["frame"] == frame
        assert (torch.cdist(many, place[own]).amin(dim=1) < 1.5).all()
    crowded = counts(
        1,
        2000.0,
        xy=XY[:1] + 30 * torch.rand(30, 2, generator=torch.Generator().manual_seed(0)),
        gain=0.5,
    )
    assert "no Gaussians" not in " ".join(Locator().learn(crowded)), "neighbours are no shape"
    assert (columns["flag"][away < 12] == FLAGS.index("crowded")).float().mean() > 0.95


def test_spots_that_are_hardly_apart_are_flagged() -> None:
    pairs = XY.repeat(2, 1)
    pairs[4:, 0] += torch.tensor([1.9, 2.0, 3.5, 6.0])
    recorded = counts(3, 5000.0, xy=pairs)
    columns = Locator(**TOLD, read_noise=1.5, sigma_px=1.1)(recorded)  # type: ignore[arg-type]
    assert len(columns["x"]) == 24
    close = columns["y"] < 60
    assert {*columns["flag"][close].tolist()} == {FLAGS.index("crowded")}
    assert {*columns["flag"][~close].tolist()} == {0}


def test_rings_of_a_bright_measured_spot_are_no_spots() -> None:
    psf = {"name": "measured", "file": str(CONF_DIR / "psf/coma.npy"), "oversampling": 5}
    spots = torch.tensor([[30.2, 40.4, 20_000.0], [75.0, 60.7, 20_000.0]]).expand(4, -1, -1)
    flat, wide = torch.full((4,), 10.0), torch.ones(4)
    expected = light(make_psf(**psf), spots, flat, wide, (100, 110))
    recorded = Camera(read_noise=1.5, **TOLD).expose(expected, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    columns = Locator(**TOLD, read_noise=1.5, psf=psf)(recorded)  # type: ignore[arg-type]
    assert columns["frame"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_frames_that_show_nothing_do_not_keep_others_from_being_learned_from() -> None:
    recorded = counts(5)
    recorded[1] = 0
    recorded[3] = torch.nan
    locator = Locator()
    locator.learn(recorded)
    assert locator.estimated["gain"] == pytest.approx(0.5, rel=0.3)
