"""``pixel_spotter.locate``, ``load`` and ``bound``: NumPy in, NumPy or pandas out."""

import importlib
import inspect
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import Run
from test_locate import XY, assert_all_found, movie

import pixel_spotter
from pixel_spotter import api
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.models.spotter import SpotterRegressor

TOLD = {"gain": 0.5, "offset": 100.0, "read_noise": 1.5}


def test_locate_finds_what_the_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_PIXELS", 4 * 90 * 100)
    found = pixel_spotter.locate(movie())
    assert_all_found(found, 6)
    assert [*found][:5] == ["frame", "x", "y", "sd_x", "sd_y"]
    assert {*found["flag"]} == {""}
    assert {*found.attrs["estimated"]} == {"gain", "offset", "sigma_px"}
    told = pixel_spotter.locate(movie(), camera=TOLD, psf={"sigma_px": 1.1})
    assert_all_found(told, 6)
    assert told.attrs["estimated"] == {}
    one = pixel_spotter.locate(movie()[0].astype(float), camera=TOLD, psf={"sigma_px": 1.1})
    pd.testing.assert_frame_equal(one, told[told["frame"] == 0].reset_index(drop=True))


def test_locate_is_a_function_whoever_has_imported_its_command() -> None:
    importlib.import_module("pixel_spotter.locate")
    assert len(pixel_spotter.locate(movie(1), camera=TOLD, psf={"sigma_px": 1.1})) == len(XY)
    code = """if True:
        import pixel_spotter, sys
        assert 'torch' not in sys.modules
        pixel_spotter.bound(9, 1)
        import pixel_spotter.locate
        assert 'lightning' not in sys.modules, 'it takes seconds to import'"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_saturated_pixels_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = movie(6)
    width = {"sigma_px": 1.1}
    white = np.where(counts > 400, 65535, counts).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*saturated")
        full = pixel_spotter.locate(white, TOLD, width)
    assert_all_found(full, 6)
    assert {*full["flag"]} == {"saturated"}, "what the type of the numbers holds"
    bright = np.where(counts > 400, 4095, counts).astype(np.uint16)
    with pytest.warns(UserWarning, match="4095, its largest value, is taken for that of saturated"):
        bits = pixel_spotter.locate(bright, TOLD, width)
    pd.testing.assert_frame_equal(bits, full)
    monkeypatch.setattr(api, "MOST_PIXELS", 3 * 90 * 100)  # two parts, told of once
    for kind in (np.uint16, np.float64):
        with pytest.warns(UserWarning, match="pixels hold exactly 400, the most there is") as said:
            cut = pixel_spotter.locate(np.minimum(counts, 400).astype(kind), TOLD, width)
        assert len(said) == 1
        assert {*cut["flag"]} == {"saturated"}
    few = np.concatenate([np.minimum(counts[:3], 400), np.minimum(counts[3:], 399)])
    x, y = np.round(XY[0]).astype(int)
    few[3:, y, x] = 400  # by themselves, these would not look cut off
    with pytest.warns(UserWarning, match="pixels hold exactly 400"):
        found = pixel_spotter.locate(few, TOLD, width)
    first = np.hypot(found["x"] - x, found["y"] - y) < 2
    assert ((found["flag"] == "saturated") == (first | (found["frame"] < 3))).all()
    later = np.concatenate([counts[:3], bright[3:]])
    with pytest.warns(UserWarning, match="4095"):
        found = pixel_spotter.locate(later, TOLD, width)
    assert ((found["flag"] == "saturated") == (found["frame"] >= 3)).all()
    told = pixel_spotter.locate(np.minimum(counts, 400), TOLD | {"saturation": 401}, width)
    assert {*told["flag"]} == {""}


def test_masked_pixels_have_no_value() -> None:
    counts = movie(2)
    mask = np.zeros(counts.shape, bool)
    x, y = np.round(XY[0]).astype(int)
    mask[:, y - 6 : y + 7, x - 6 : x + 7] = True
    gone = pixel_spotter.locate(np.where(mask, np.nan, counts), TOLD, {"sigma_px": 1.1})
    assert len(gone) == 2 * (len(XY) - 1)
    for masked in (
        np.ma.masked_array(counts, mask),
        np.ma.masked_array(counts.astype(float), mask),
    ):
        found = pixel_spotter.locate(masked, TOLD, {"sigma_px": 1.1})
        pd.testing.assert_frame_equal(found, gone)


def test_arrays_and_maps_may_be_numpy() -> None:
    noise = np.full((90, 100), 1.5, np.float32)
    place = (np.arange(65) - 32) / 5
    psf = np.exp(-(place**2 + place[:, None] ** 2) / (2 * 1.08**2)).astype(np.float32)
    found = pixel_spotter.locate(movie(2), TOLD | {"read_noise": noise}, {"file": psf})
    assert_all_found(found, 2)


def test_settings_may_be_numbers_of_numpys() -> None:
    """As means and medians are, of the table too."""
    camera = {"gain": np.float32(0.5), "offset": np.int64(100), "read_noise": np.float64(1.5)}
    found = pixel_spotter.locate(movie(2), camera, {"sigma_px": np.float32(1.1)}, np.float64(0.01))
    assert_all_found(found, 2)


def test_a_spotter_says_where_what_was_found_is() -> None:
    model = SpotterRegressor(15, window=11, widths=[8], margin_px=6)
    locator = api.make_locator(TOLD, {"sigma_px": 1.1})
    locator.model = model
    columns = locator(api.torch.from_numpy(movie(2).astype(np.float32)))
    plain = api.make_locator(TOLD, {"sigma_px": 1.1})(
        api.torch.from_numpy(movie(2).astype(np.float32))
    )
    for name in "xy":  # untrained, it answers somewhere in the window
        off = (columns[name] - plain[name]).abs()
        assert 0.01 < off.max() < 6
    assert (columns["flag"] == pixel_spotter.coordinates.FLAGS.index("unlike training")).all()


@pytest.mark.parametrize(
    ("frames", "settings", "problem"),
    [
        (np.zeros((2, 3, 4, 5)), {}, "frames must be numbers"),
        (np.zeros((0, 30, 30)), {}, "frames must be numbers"),
        (np.array(["a"]), {}, "frames must be numbers"),
        (np.zeros((2, 30, 30), complex), {}, "frames must be numbers"),
        (np.zeros((2, 30, 30), object), {}, "got object"),
        ([[1, 2], [3]], {}, "frames must be numbers"),
        (movie(1), {"device": "mps"}, "device must be cpu"),
        (movie(1), {"camera": 0.5}, "camera must be a dict"),
        (movie(1), {"psf": "gaussian"}, "psf must be a dict"),
        (movie(2)[:, :5, 18:23], {"camera": TOLD, "psf": {"sigma_px": 1.1}}, "at least 7 px"),
        (np.full((2, 30, 30), np.nan), {}, "no pixel with a value"),
        (movie(1), {"camera": {"gian": 0.5}}, "camera.gian is no setting"),
        (movie(1), {"psf": {"sigma": 0.5}}, "psf.sigma is no setting"),
        (movie(1), {"false_alarms": -1}, "false_alarms must be"),
        (movie(1), {"checkpoint": "nowhere.ckpt"}, "there is no file"),
    ],
)
def test_what_cannot_be_used(frames: np.ndarray, settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        pixel_spotter.locate(frames, **settings)


def test_a_checkpoint_of_another_model(tiny_run: Run) -> None:
    with pytest.raises(UserError, match="is not of model=spotter"):
        pixel_spotter.locate(movie(1), checkpoint=tiny_run.best)


def test_load_gives_a_model_that_predicts_arrays(tiny_run: Run) -> None:
    image = np.zeros((16, 16), np.uint8)
    image[4, 9] = 255
    found = pixel_spotter.load(tiny_run.best).predict(image)
    assert found["x"].shape == (1,)


def test_the_bound_is_that_of_the_field_and_of_our_data() -> None:
    """The reference values are those of Smith et al.'s model, near the middle of 50x50 px."""
    for known, expected in (
        ((1000, 10, 1.0), 0.0410),
        ((100, 1, 1.0), 0.1295),
        ((5000, 10, 1.3), 0.021),
    ):
        for along in pixel_spotter.bound(*known):
            assert along == pytest.approx(expected, rel=3e-3)
    data = SpotDataModule(image_size=20, camera={"read_noise": 2.0})
    truth = data.truth("test", 0, api.torch.arange(7))
    floor = data.floor(truth)
    xy = np.stack([truth["x_true"], truth["y_true"]], axis=1)
    x, y = pixel_spotter.bound(1000, 10, 1.0, 20, xy, read_noise=2.0)
    np.testing.assert_allclose(x, floor["bound_x"], rtol=1e-4)
    np.testing.assert_allclose(y, floor["bound_y"], rtol=1e-4)


def test_the_bound_broadcasts_and_grows_with_what_is_unknown() -> None:
    x, _ = pixel_spotter.bound(np.array([[100], [1000]]), [1, 10, 100])
    assert x.shape == (2, 3)
    assert (np.diff(x, axis=1) > 0).all()
    assert (np.diff(x, axis=0) < 0).all()
    edge = {"size": (9, 30), "xy": (0.2, 4.1)}
    known, unknown = (
        pixel_spotter.bound(500, 5, 1.2, width_known=known, **edge)[0] for known in (True, False)
    )
    assert known < unknown
    with pytest.raises(ValueError, match="photons must be more than 0"):
        pixel_spotter.bound(0, 1)


def test_what_is_public_is_documented_and_typed() -> None:
    for name in pixel_spotter.__all__:
        function = getattr(api, name)
        assert "Args:" in (inspect.getdoc(function) or "")
        assert "return" in function.__annotations__
    with pytest.raises(AttributeError, match="nothing"):
        pixel_spotter.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"xy": 5}, "xy must be positions"),
        ({"xy": (1, 2, 3)}, "xy must be positions"),
        ({"size": "large"}, "^size must be"),
        ({"size": (50, 0)}, "^size must be"),
        ({"psf": {"sigma": 1.0}}, "psf: .*sigma"),
        ({"read_noise": -1.0}, "read_noise must be"),
        ({"sigma_px": 0}, "sigma_px must be more than 0"),
    ],
)
def test_what_has_no_bound(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        pixel_spotter.bound(1000, 10, **settings)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bound_takes_what_stands_for_its_arguments() -> None:
    usual = pixel_spotter.bound(1000, 10, size=(40, 50))
    assert pixel_spotter.bound(1000, 10, size=np.array([40, 50])) == usual
    wider = pixel_spotter.bound(1000, 10, psf={"ratio": 1.3}, size=(40, 50))
    assert wider == pixel_spotter.bound(
        1000, 10, psf={"name": "gaussian", "ratio": 1.3}, size=(40, 50)
    )
    assert wider[1] > usual[1]
