"""What the harder pixels look like, each difficulty alone."""

import pytest
import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.data.diverse import DiverseDataModule

PLAIN = {"brightness": 1.0, "background": 0.0, "blur_px": 0.0, "noise": 0.0, "distractors": 0}


def images(count: int = 40, **settings: object) -> tuple[Tensor, Columns]:
    made = {"image_size": [12, 20], **PLAIN, **settings}
    data = DiverseDataModule(**made)  # type: ignore[arg-type]
    batch = data.batch("train", 0, torch.arange(count))
    return batch.image[:, 0], batch.truth


def at(image: Tensor, truth: Columns) -> Tensor:
    """The pixel of the truth in each image."""
    x, y = as_xy(truth, "_true").long().unbind(1)
    return image[torch.arange(len(image)), y, x]


def test_without_difficulties_it_is_the_clean_pixel() -> None:
    image, truth = images()
    assert image.shape == (40, 12, 20)
    torch.testing.assert_close(at(image, truth), torch.ones(40))
    torch.testing.assert_close(image.sum(dim=(1, 2)), torch.ones(40))


def test_brightness_is_counted_from_the_background_to_white() -> None:
    image, truth = images(brightness=0.25, background=0.4)
    torch.testing.assert_close(at(image, truth), torch.full((40,), 0.4 + 0.25 * 0.6))
    torch.testing.assert_close(image.flatten(1).median(dim=1).values, torch.full((40,), 0.4))


def test_a_blurred_pixel_is_as_bright_in_its_middle() -> None:
    image, truth = images(blur_px=1.2, brightness=0.5)
    torch.testing.assert_close(at(image, truth), torch.full((40,), 0.5))
    inner = (as_xy(truth, "_true") > 5).all(dim=1) & (as_xy(truth, "_true") < 6.5).any(dim=1)
    assert (image[inner].sum(dim=(1, 2)) > 3).all()
    assert (image.flatten(1).argmax(dim=1) == truth["y_true"] * 20 + truth["x_true"]).all()


def test_noise_has_its_deviation_where_nothing_is_clipped() -> None:
    image, _ = images(noise=0.05, background=0.5, brightness=0.1)
    assert image.std() == pytest.approx(0.05, rel=0.05)
    assert image.mean() == pytest.approx(0.5, abs=0.003)


def test_distractors_are_dimmer_and_some_images_have_none() -> None:
    image, truth = images(count=400, distractors=3, distractor_brightness=0.5)
    others = (image > 0).sum(dim=(1, 2)) - 1
    assert sorted(set(others.tolist())) == [0, 1, 2, 3]
    assert others.float().mean() == pytest.approx(1.5, abs=0.15)
    image[torch.arange(400), truth["y_true"].long(), truth["x_true"].long()] = 0
    assert image.max() < 0.5 + 0.5, "two in one pixel at the most"
    assert image[image > 0].mean() == pytest.approx(0.25, abs=0.02)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    data = DiverseDataModule(image_size=16)
    whole = data.batch("val", 0, torch.arange(25)).image
    torch.testing.assert_close(data.batch("val", 0, torch.tensor([20, 3])).image, whole[[20, 3]])
    assert not torch.equal(whole, data.batch("val", 1, torch.arange(25)).image), "epochs differ"
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"brightness": 0.0}, "data.brightness must be more than 0"),
        ({"brightness": [0.5, 1.5]}, r"data.brightness must be in \[0, 1\]"),
        ({"background": 1.0}, "data.background must be in"),
        ({"noise": [0.2, 0.1]}, "data.noise must be in"),
        ({"blur_px": -1.0}, "data.blur_px must be in"),
        ({"blur_px": [0.0, 1.0, 2.0]}, "data.blur_px must be"),
        ({"distractors": -1}, "data.distractors must be"),
        ({"distractor_brightness": 1.0}, "data.distractor_brightness must be"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        images(**settings)
