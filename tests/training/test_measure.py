from pathlib import Path
from typing import Any

import lightning as L
import pytest
from noisy import NoisyPoints

from pixel_spotter import runs
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.training.measure import measure


@pytest.mark.parametrize("split", ["everywhere", None])
def test_data_need_not_call_a_split_by_name(
    split: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def pictures(*arguments: Any) -> dict[str, Any]:
        titles.append(arguments[-1])
        return {}

    monkeypatch.setattr("pixel_spotter.training.measure.run_pictures", pictures)
    data = NoisyPoints()
    if split is None:
        del data.hparams["split"]
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    metrics = measure(trainer, ClosedForm(16, "argmax"), data, [], tmp_path)
    assert metrics["split"] == split
    assert titles == ["closed_form, everywhere split" if split else "closed_form"]
    assert len(runs.read_predictions(tmp_path)["x"]) == metrics["test/count"] == 45
