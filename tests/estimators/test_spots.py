"""Estimators of camera spots, held against the Cramér-Rao bound by simulation."""

import math

import pytest
import torch
from torch import Tensor

from pixel_spotter import estimators
from pixel_spotter.coordinates import FLAGS, Columns, as_xy
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.simulation.psf import MeasuredPSF

N = 4000
FITS = ("least_squares", "maximum_likelihood", "maximum_likelihood_pair")
OTHERS = ("centroid", "phasor", "radial_symmetry")


def made(count: int = N, **settings: object) -> tuple[Tensor, Columns]:
    data = SpotDataModule(**{"image_size": 19, "margin_px": 8, **settings})
    batch = data.batch("test", 0, torch.arange(count))
    return batch.image[:, 0], batch.truth


def over_bound(found: Columns, truth: Columns) -> tuple[float, float]:
    """Return rmse over bound, and how many coordinates lie within one deviation."""
    error = torch.stack([found[a] - truth[f"{a}_true"] for a in ("x", "y")])
    bound = torch.stack([truth["bound_x"], truth["bound_y"]])
    deviation = torch.stack([found[f"sd_{a}"] for a in ("x", "y")])
    answered = error.isfinite()
    covered = (error.abs() <= deviation)[answered].double().mean().item()
    return (error[answered].square().mean() / bound.square().mean()).sqrt().item(), covered


def assert_on_the_bound(found: Columns, truth: Columns, most: float = 1.0) -> None:
    """8,000 coordinates know the ratio to 0.8% and the share to 0.5%."""
    assert found["x"].isfinite().all()
    ratio, covered = over_bound(found, truth)
    assert 0.965 < ratio < most + 0.03
    assert covered == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.025)


@pytest.mark.parametrize(("photons", "background"), [(300, 1), (1000, 10), (10_000, 20)])
@pytest.mark.parametrize("known", [True, False])
def test_maximum_likelihood_reaches_the_bound(
    photons: float, background: float, known: bool
) -> None:
    widths = 1.3 if known else (1.2999, 1.3001)  # drawn from a range, the width is not known
    image, truth = made(photons=photons, background=background, sigma_px=widths)
    settings = {"sigma_px": 1.3, "read_noise": 0.0} if known else {}
    found = estimators.maximum_likelihood(image, margin_px=8, **settings)
    assert_on_the_bound(found, truth)
    assert found["photons"].mean().item() == pytest.approx(photons, rel=0.03)
    assert found["background"].mean().item() == pytest.approx(background, rel=0.03)
    assert found["sigma_px"].mean().item() == pytest.approx(1.3, rel=0.03)


def test_read_noise_that_nobody_told_of() -> None:
    image, truth = made(camera={"read_noise": 4.0})
    assert_on_the_bound(estimators.maximum_likelihood(image, sigma_px=1.0, margin_px=8), truth)


def test_a_map_of_read_noise() -> None:
    noise = torch.full((19, 19), 1.0)
    noise[:, 10:] = 8.0
    image, truth = made(camera={"read_noise": noise})
    found = estimators.maximum_likelihood(image, sigma_px=1.0, read_noise=noise, margin_px=8)
    assert_on_the_bound(found, truth)


def test_spots_cut_by_the_edge() -> None:
    image, truth = made(cut_probability=1.0)
    found = estimators.maximum_likelihood(image, sigma_px=1.0, read_noise=0.0, margin_px=8)
    assert found["x"].isfinite().all()
    assert_on_the_bound(found, truth, 1.03)


@pytest.mark.parametrize(("distance", "most"), [(4.0, 1.05), (3.0, 1.10)])
def test_a_neighbour_as_bright(distance: float, most: float) -> None:
    image, truth = made(margin_px=9, neighbour_probability=1.0, neighbour_px=distance)
    found = estimators.maximum_likelihood_pair(image, sigma_px=1.0, margin_px=8)
    assert_on_the_bound(found, truth, most)
    single, _ = over_bound(estimators.maximum_likelihood(image, sigma_px=1.0, margin_px=8), truth)
    assert single > 2.5


def test_a_pair_of_one_is_a_single() -> None:
    image, _ = made(500)
    pair = estimators.maximum_likelihood_pair(image, sigma_px=1.0, read_noise=0.0, margin_px=8)
    single = estimators.maximum_likelihood(image, sigma_px=1.0, read_noise=0.0, margin_px=8)
    torch.testing.assert_close(pair["x"], single["x"])


def test_a_measured_psf() -> None:
    at = (torch.arange(91) - 45) / 5
    ring = torch.exp(-((at[:, None].square() + at.square()).sqrt() - 1.2).square() / 0.5)
    shape = {"file": ring, "oversampling": 5}
    image, truth = made(psf={"name": "measured", **shape}, sigma_px=None)
    psf = MeasuredPSF(**shape)
    fit = estimators.maximum_likelihood(image, read_noise=0.0, margin_px=8, psf=psf)
    assert_on_the_bound(fit, truth)
    gaussian, _ = over_bound(estimators.maximum_likelihood(image, margin_px=8), truth)
    assert gaussian > 1.05


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_near_and_without_bias(name: str) -> None:
    image, truth = made(margin_px=9)
    found = getattr(estimators, name)(image, margin_px=8)
    error = torch.stack([found[a] - truth[f"{a}_true"] for a in ("x", "y")])
    bound = truth["bound_x"].mean().item()
    assert bound < error.square().mean().sqrt().item() < 1.8 * bound
    assert error.mean().abs().item() < bound / 10


def test_least_squares_knows_how_good_it_is() -> None:
    image, truth = made()
    found = estimators.least_squares(image, sigma_px=1.0, margin_px=8)
    ratio, covered = over_bound(found, truth)
    assert 1.05 < ratio < 1.3
    assert covered == pytest.approx(0.683, abs=0.025)


@pytest.mark.parametrize("name", [*OTHERS, *FITS])
def test_images_without_a_spot_are_flagged(name: str) -> None:
    image = torch.zeros(3, 20, 20)
    image[1] = torch.nan
    image[2] = torch.poisson(torch.full((20, 20), 5.0), torch.Generator().manual_seed(0))
    image[2, 8:13, 8:13] = 4095.0
    found = getattr(estimators, name)(image)
    flags = [FLAGS[int(flag)] for flag in found["flag"].tolist()]
    assert flags == ["nothing found", "nothing found", "saturated"]
    assert found["x"][:2].isnan().all()
    assert found["x"][2].nan_to_num(10).item() == pytest.approx(10, abs=0.5)


def flagged(found: Columns, reason: str) -> float:
    return (found["flag"] == FLAGS.index(reason)).double().mean().item()


@pytest.mark.parametrize("settings", [{}, {"photons": 300, "background": 1}, {"camera": 4.0}])
@pytest.mark.parametrize("name", FITS)
def test_a_neighbour_that_is_not_fitted_is_flagged(name: str, settings: dict[str, object]) -> None:
    if "camera" in settings:
        settings = {"camera": {"read_noise": settings["camera"]}}
    alone, _ = made(1000, **settings)
    assert flagged(getattr(estimators, name)(alone, margin_px=8), "crowded") < 0.005
    beside = {"neighbour_probability": 1.0, "neighbour_ratio": 2.0, "neighbour_px": (2.5, 6.0)}
    image, truth = made(1000, **settings, **beside)
    found = getattr(estimators, name)(image, margin_px=8)
    if name == "maximum_likelihood_pair":
        assert flagged(found, "crowded") < 0.05
        return
    wrong = (found["x"] - truth["x_true"]).abs() > 4 * found["sd_x"]
    assert wrong.double().mean() > 0.2
    wrongly = {column: values[wrong] for column, values in found.items()}
    assert flagged(wrongly, "crowded") > 0.97


def test_a_spot_of_another_shape_is_flagged_where_it_matters() -> None:
    image, _ = made(500, photons=20_000, psf={"name": "gaussian", "ratio": 1.4})
    assert flagged(estimators.maximum_likelihood(image, margin_px=8), "crowded") > 0.99


@pytest.mark.parametrize("name", OTHERS)
def test_a_window_that_the_edge_moves_is_flagged(name: str) -> None:
    image = made(4, photons=10_000, margin_px=9)[0]
    whole = getattr(estimators, name)(image)
    assert not whole["flag"].any()
    cut = getattr(estimators, name)(image[:, :, 8:])  # the spot lies in the second column
    assert flagged(cut, "at the edge") == 1
    image[:, 8, 9] = torch.nan
    assert flagged(getattr(estimators, name)(image), "at the edge") == 1


@pytest.mark.parametrize("name", FITS)
def test_excess_noise_makes_deviations_larger(name: str) -> None:
    """Of an electron-multiplying register: without being told, fits cover 57% and 88%."""
    image, truth = made(camera={"read_noise": 50.0, "em_gain": 300.0})
    found = getattr(estimators, name)(image, margin_px=8, excess_noise=2.0)
    _, covered = over_bound(found, truth)
    assert covered == pytest.approx(0.683, abs=0.025)
    assert found["photons"].mean().item() == pytest.approx(1000, rel=0.03)
    assert found["background"].mean().item() == pytest.approx(10, rel=0.03)


@pytest.mark.parametrize("noise", [3.0, torch.full((19, 19), 3.0)])
def test_excess_noise_is_that_of_light_alone(noise: float | Tensor) -> None:
    """Half as many photons with half the read noise have the same likelihood."""
    image, _ = made(64)
    told = {"read_noise": noise, "margin_px": 8}
    found = estimators.maximum_likelihood(image, excess_noise=2.0, **told)
    halved = estimators.maximum_likelihood(image / 2, **{**told, "read_noise": noise / 2})
    for name, factor in (("x", 1), ("sd_x", 1), ("photons", 2), ("background", 2)):
        torch.testing.assert_close(found[name], factor * halved[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FITS)
def test_saturated_pixels_are_left_out(name: str) -> None:
    image, truth = made(1000, photons=5000.0)
    found = getattr(estimators, name)(image.clamp(max=300.0), margin_px=8, saturation=300.0)
    assert flagged(found, "saturated") > 0.99
    assert found["photons"].median().item() == pytest.approx(5000, rel=0.05)
    error = torch.stack([found[a] - truth[f"{a}_true"] for a in ("x", "y")])
    assert error.square().nanmean().sqrt() < 3 * truth["bound_x"].mean()
    covered = error.abs() < torch.stack([found["sd_x"], found["sd_y"]])
    assert covered.double().mean().item() == pytest.approx(0.68, abs=0.06)


@pytest.mark.parametrize("name", OTHERS)
def test_one_saturated_pixel_is_flagged(name: str) -> None:
    image, _ = made(4, photons=5000.0)
    level = image.amax(dim=(1, 2)).min().item()
    found = getattr(estimators, name)(image.clamp(max=level), margin_px=8, saturation=level)
    assert flagged(found, "saturated") == 1
    assert flagged(getattr(estimators, name)(image, margin_px=8, saturation=1e6), "saturated") == 0


@pytest.mark.parametrize("sigma_px", [0.2, 8.0])
def test_a_width_that_is_told_is_not_limited(sigma_px: float) -> None:
    image, _ = made(200, photons=50_000.0, sigma_px=sigma_px)
    found = estimators.maximum_likelihood(image, sigma_px=sigma_px, margin_px=8)
    assert found["x"].isfinite().double().mean() > 0.95
    assert (found["sigma_px"].nan_to_num(sigma_px) == sigma_px).all()


@pytest.mark.parametrize("name", FITS)
def test_what_has_no_light_or_no_place_is_no_answer(name: str) -> None:
    image, _ = made(2000, photons=20.0, background=50.0)
    found = getattr(estimators, name)(image, sigma_px=1.0, margin_px=8)
    there = found["x"].isfinite()
    assert 0.5 < there.double().mean() < 0.9999
    assert found["sd_x"][there].max() < 6.5
    assert found["photons"][there].min() > 0.1


@pytest.mark.parametrize("name", [*OTHERS, *FITS, "argmax", "centre_of_mass"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.float16, torch.float64])
def test_images_of_all_types(name: str, kind: torch.dtype) -> None:
    image = made(8)[0].clamp(max=250).round()
    estimator = getattr(estimators, name)
    found, exact = estimator(image.to(kind)), estimator(image)
    torch.testing.assert_close(found["x"], exact["x"], atol=0.05, rtol=0, check_dtype=False)


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_ends_nowhere_is_no_answer(name: str) -> None:
    """Of so dim spots, up to one in ten has no width: each row is whole, or found nothing."""
    image, _ = made(1000, photons=100, background=20)
    found = getattr(estimators, name)(image, margin_px=8)
    lost = found["flag"] == FLAGS.index("nothing found")
    assert 0.005 < lost.double().mean().item() < 0.2
    for column, values in found.items():
        assert torch.equal(values.isfinite(), ~lost) or column == "flag"


def test_of_a_pair_anywhere_the_one_that_stands_out_is_meant() -> None:
    data = SpotDataModule(
        image_size=40, margin_px=1, neighbour_probability=1.0, neighbour_px=4.0, neighbour_ratio=0.3
    )
    batch = data.batch("test", 0, torch.arange(200))
    found = estimators.maximum_likelihood_pair(batch.image[:, 0], sigma_px=1.0, margin_px=1)
    error = torch.hypot(*(found[a] - batch.truth[f"{a}_true"] for a in ("x", "y")))
    assert (error < 0.5).double().mean().item() > 0.98


@pytest.mark.parametrize("name", [*OTHERS, *FITS])
def test_flips_and_batches_change_nothing(name: str) -> None:
    estimator = getattr(estimators, name)
    image, _ = made(64)
    found = estimator(image)
    torch.testing.assert_close(estimator(image[5:9])["x"], found["x"][5:9], atol=2e-3, rtol=0)
    torch.testing.assert_close(estimator(image.flip(2))["x"], 18 - found["x"], atol=5e-3, rtol=0)
    torch.testing.assert_close(estimator(image.mT)["y"], found["x"], atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", [*OTHERS, *FITS])
def test_no_images_have_no_answers(name: str) -> None:
    columns = getattr(estimators, name)(torch.zeros(0, 21, 21))
    assert all(column.shape == (0,) for column in columns.values())


def test_chance_is_not_taken_for_a_neighbour() -> None:
    """Two of 20,000 samples, in which a fit of two gains more than 10 and is 1.5 px off."""
    data = SpotDataModule(
        21, photons=[300, 10000], background=[1, 20], sigma_px=[0.8, 2.0], margin_px=8
    )
    batch = data.batch("test", 0, torch.tensor([5513, 15828]))
    columns = estimators.maximum_likelihood_pair(batch.image[:, 0], margin_px=8)
    error = (as_xy(columns) - as_xy(batch.truth, "_true")).abs().amax(dim=1)
    assert (error < 6 * batch.truth["bound_x"]).all()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("maximum_likelihood", {"window": 8}, "odd"),
        *((name, {"window": 11}, "larger than") for name in ("phasor", "maximum_likelihood")),
        *((name, {"window": 3}, "at least 5") for name in (*OTHERS, *FITS)),
        ("phasor", {"margin_px": 5}, "margin"),
        *((name, {"saturation": 0.0}, "saturation") for name in (*OTHERS, *FITS)),
        *((name, {"sigma_px": 0.0}, "sigma_px") for name in FITS),
        *((name, {"excess_noise": 0.5}, "excess_noise") for name in FITS),
        ("maximum_likelihood", {"read_noise": -1.0}, "read_noise"),
        ("maximum_likelihood", {"read_noise": torch.ones(9, 8)}, "map of read noise"),
        ("maximum_likelihood", {"read_noise": -torch.ones(9, 9)}, "map of read noise"),
    ],
)
def test_settings_that_cannot_be(name: str, settings: dict[str, object], words: str) -> None:
    window = {} if name == "phasor" else {"window": 9}
    with pytest.raises(ValueError, match=words):
        getattr(estimators, name)(torch.zeros(1, 9, 9), **{**window, **settings})
