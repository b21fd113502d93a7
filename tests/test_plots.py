import numpy as np
import torch

from pixel_spotter import plots


def test_error_map_has_the_errors_where_they_were_made() -> None:
    true = torch.tensor([[0.0, 0.0], [2.0, 1.0], [2.0, 1.0]])
    pred = true + torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0]])
    axes = plots.error_map(pred, true, (2, 3), "title").axes[0]
    shown = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    np.testing.assert_allclose(shown, [[5, np.nan, np.nan], [np.nan, np.nan, 1.5]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (px)", "y (px)")


def test_panel_marks_truth_and_prediction() -> None:
    images = torch.rand(2, 1, 5, 7)
    pred, true = torch.tensor([[1.5, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    axes = plots.prediction_panel(images, pred, true).axes
    truth, cross = axes[0].collections
    assert truth.get_offsets().tolist() == [[3, 4]]
    assert cross.get_offsets().tolist() == [[1.5, 2]]
    assert [one.get_title() for one in axes[:2]] == ["2.50 px", "5.00 px"]
    np.testing.assert_array_equal(axes[1].images[0].get_array(), images[1, 0])


def row(model: str, lr: float, epochs: int, error: float) -> dict[str, object]:
    return {"model": model, "split": "uniform", "lr": lr, "epochs": epochs,
            "train_seconds": 10.0 * epochs,
            "test/mean_error_px": error}  # fmt: skip


ROWS = [row("cnn", 0.1, 2, 4.0), row("cnn", 0.1, 2, 6.0), row("cnn", 0.1, 8, 1.0),
        row("resnet18", 0.1, 8, 0.5)]  # fmt: skip


def test_error_against_epochs_is_the_mean_over_seeds() -> None:
    axes = plots.error_against_epochs(ROWS).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"cnn, lr 0.1": [[2, 5], [8, 1]], "resnet18, lr 0.1": [[8, 0.5]]}
    assert "px" in axes.get_ylabel()


def test_cost_against_error_has_a_point_a_run() -> None:
    axes = plots.cost_against_error(ROWS).axes[0]
    points = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert points == {"cnn": [[20, 4], [20, 6], [80, 1]], "resnet18": [[80, 0.5]]}
    assert "(s)" in axes.get_xlabel()


def test_as_tensor_is_an_rgb_picture() -> None:
    picture = plots.as_tensor(plots.cost_against_error(ROWS))
    assert picture.shape[0] == 3
    assert picture.dtype == torch.uint8
    assert picture[:, 0, 0].tolist() == [255, 255, 255]
