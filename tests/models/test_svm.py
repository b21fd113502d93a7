import numpy as np
import pytest
import torch
from conftest import predicted
from sklearn.svm import SVR

from pixel_spotter.coordinates import as_xy, to_px, to_unit
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import errors_px
from pixel_spotter.models.svm import Blur, SVMRegressor
from pixel_spotter.simulation.pixels import render_pixels


@pytest.fixture(scope="module")
def data() -> PixelDataModule:
    return PixelDataModule(image_size=[16, 20], train_samples=224)


def solved(data: PixelDataModule, **arguments: object) -> SVMRegressor:
    model = SVMRegressor([16, 20], **arguments)  # type: ignore[arg-type]
    model.solve(data)
    return model


def trained_on(data: PixelDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    batch = data.batch("train", 0, torch.arange(data.train_samples))
    return batch.image, as_xy(batch.truth, "_true")


def unseen_images(data: PixelDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    xy = data.positions.test
    return render_pixels(xy, (16, 20)), xy.float()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_equals_scikit_learns_own_prediction(kernel: str, data: PixelDataModule) -> None:
    model = solved(data, kernel=kernel, blur_px=1.0, cost=10.0, tolerance_px=0.2)
    image, xy = trained_on(data)
    unseen, _ = unseen_images(data)
    vectors, asked = (model.features(images).double().numpy() for images in (image, unseen))
    if kernel == "linear":  # scikit-learn scales by gamma in its other kernels only
        scale = 1 / np.sqrt(vectors.shape[1] * vectors.var())
        vectors, asked = vectors * scale, asked * scale
    expected = [
        SVR(kernel=kernel, gamma="scale", C=10.0, epsilon=2 * 0.2 / side)
        .fit(vectors, target.numpy())
        .predict(asked)
        for target, side in zip(to_unit(xy, (16, 20)).T, (20, 16), strict=True)
    ]
    expected_px = to_px(torch.tensor(np.array(expected)).T, (16, 20))
    torch.testing.assert_close(model(unseen).double(), expected_px, atol=0.02, rtol=0)


def test_seen_positions_are_within_the_tolerance(data: PixelDataModule) -> None:
    model = solved(data, blur_px=0.0, cost=1e4, tolerance_px=0.1)
    image, xy = trained_on(data)
    assert (model(image) - xy).abs().max() < 0.11


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_unblurred_it_says_the_same_of_all_positions_never_seen(
    kernel: str, data: PixelDataModule
) -> None:
    image, xy = unseen_images(data)
    xy_px = solved(data, kernel=kernel, blur_px=0.0)(image)
    assert (xy_px.amax(dim=0) - xy_px.amin(dim=0)).max() < 1e-3
    assert errors_px(predicted(xy_px, xy)).mean() > 5
    blurred = solved(data, kernel=kernel, blur_px=2.0)(image)
    assert errors_px(predicted(blurred, xy)).mean() < 1.5


def test_blur_by_hand() -> None:
    image = render_pixels(torch.tensor([[5, 5]]), (11, 11))
    blurred = Blur(1.0)(image)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    gauss = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    assert blurred[0, 0, 5, 2:9].tolist() == pytest.approx(
        gauss * gauss[3] / gauss.sum() ** 2, abs=1e-6
    )
    assert torch.equal(Blur(0.0)(image), image)


def test_only_support_vectors_are_kept(data: PixelDataModule) -> None:
    model = solved(data)
    kept = len(model.head.vectors)
    assert 0 < kept < data.train_samples
    assert model.count_parameters() == kept * (16 * 20 + 2) + 2 + 1
    assert model.head.coefficients.any(dim=1).all()


def test_a_state_dict_brings_its_support_vectors(data: PixelDataModule) -> None:
    model, again = solved(data), SVMRegressor([16, 20])
    again.load_state_dict(model.state_dict())
    image, _ = unseen_images(data)
    assert torch.equal(again(image), model(image))


def test_more_samples_than_fit_in_memory() -> None:
    data = PixelDataModule(image_size=16, train_samples=10**9)
    with pytest.raises(UserError, match=r"1000000000 samples takes .* GiB .*memory_gib=4"):
        SVMRegressor(16, blur_px=1.0).solve(data)


@pytest.mark.parametrize(
    "wrong",
    [{"kernel": "poly"}, {"blur_px": -1.0}, {"blur_px": 10.0}, {"cost": 0.0}, {"tolerance_px": -1}],
    ids=str,
)
def test_arguments_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"model\.{next(iter(wrong))}"):
        SVMRegressor(16, **wrong)  # type: ignore[arg-type]
