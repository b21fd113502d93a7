from pathlib import Path

import numpy as np
import pytest
import torch

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.simulation.pixels import render_pixels


@pytest.mark.parametrize("estimator", ["argmax", "centre_of_mass"])
@pytest.mark.parametrize("size", [50, [7, 4]])
def test_exact_on_every_clean_image(estimator: str, size: int | list[int]) -> None:
    model = ClosedForm(size, estimator)
    positions = all_positions(model.size)
    assert torch.equal(model(render_pixels(positions, model.size)), positions.float())
    assert model.count_parameters() == 0


def test_it_answers_with_the_estimator_that_was_named() -> None:
    image = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]]])
    assert ClosedForm([2, 3], "argmax")(image).tolist() == [[2, 1]]
    assert ClosedForm([2, 3], "centre_of_mass")(image).tolist() == [[1.5, 0.75]]


@pytest.mark.parametrize("estimator", ["median", "torch", "__all__"])
def test_an_estimator_that_is_not_there(estimator: str) -> None:
    with pytest.raises(ValueError, match=r"model\.estimator must be one of argmax, centre_of_mass"):
        ClosedForm(16, estimator)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"settings": {"foo": 1}}, "phasor has window"),
        ({"settings": {"window": 17}}, "larger than"),
        ({"settings": {"window": 4}}, "odd"),
        ({"settings": {"window": "x"}}, "settings.window must be int"),
        ({"margin_px": 8}, "margin"),
    ],
)
def test_settings_that_cannot_be(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClosedForm(16, "phasor", **settings)


def test_a_checkpoint_holds_the_psf(tmp_path: Path) -> None:
    np.save(tmp_path / "psf.npy", np.ones((9, 9)))
    psf = {"name": "measured", "file": str(tmp_path / "psf.npy"), "oversampling": 3}
    model = ClosedForm(16, "maximum_likelihood", {"read_noise": 0.0}, psf=psf)
    (tmp_path / "psf.npy").unlink()
    again = ClosedForm(**model.hparams)
    image = torch.poisson(torch.full((2, 1, 16, 16), 9.0), torch.Generator().manual_seed(0))
    image[:, :, 7:10, 6:9] += 200
    assert (model(image) - torch.tensor([7.0, 8.0])).abs().max() < 0.2
    torch.testing.assert_close(again(image), model(image))


def test_a_fit_knows_the_camera_but_not_its_read_noise() -> None:
    camera = {"read_noise": 50.0, "em_gain": 300.0, "bits": 16, "gain": 10.0, "offset": 200.0}
    told = ClosedForm(16, "maximum_likelihood", camera=camera).settings
    assert told["excess_noise"] == 2
    assert told["saturation"] == pytest.approx((2**16 - 1 - 200) / 30)
    assert "read_noise" not in told
    own = {"excess_noise": 1.5}
    assert ClosedForm(16, "maximum_likelihood", own, camera=camera).settings["excess_noise"] == 1.5
    assert "excess_noise" not in ClosedForm(16, "phasor", camera=camera).settings
    ClosedForm(16, "phasor", camera={"read_noise": "of_another_machine.npy"})


def test_a_map_of_read_noise_is_read_and_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.full((16, 16), 2.0))
    asked = {"read_noise": str(tmp_path / "noise.npy")}
    model = ClosedForm(16, "maximum_likelihood", asked)
    (tmp_path / "noise.npy").unlink()
    again = ClosedForm(**model.hparams)
    assert torch.equal(again.settings["read_noise"], torch.full((16, 16), 2.0))
    with pytest.raises(ValueError, match=r"model\.settings\.read_noise"):
        ClosedForm(16, "maximum_likelihood", asked)
