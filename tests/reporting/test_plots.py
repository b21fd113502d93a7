import numpy as np
import torch

from pixel_spotter.reporting import plots


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


def test_as_tensor_is_an_rgb_picture() -> None:
    picture = plots.as_tensor(plots.error_map(torch.zeros(1, 2), torch.zeros(1, 2), (2, 3)))
    assert picture.shape[0] == 3
    assert picture.dtype == torch.uint8
    assert picture[:, 0, 0].tolist() == [255, 255, 255]
