"""Measure a checkpoint: ``python -m pixel_spotter.evaluate checkpoint=PATH [data.split=...]``."""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("evaluate")  # before anything slow is imported

import inspect
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.arguments import check_arguments
from pixel_spotter.cli.start import run_command
from pixel_spotter.cli.trainer import claim, make_trainer, owned
from pixel_spotter.errors import UserError
from pixel_spotter.models.loading import load_model
from pixel_spotter.training.measure import measure, print_figures


def evaluate(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Test a checkpoint, write its figures, predictions and pictures, and return the figures."""
    path = Path(str(cfg.checkpoint))
    model, trained_on = load_model(path, cfg.trust)
    given: dict[str, Any] = OmegaConf.to_container(cfg.data)  # type: ignore[assignment]
    changes = {key: value for key, value in given.items() if value is not None}
    taken = inspect.signature(type(trained_on)).parameters
    for name in changes:
        if name not in taken:
            raise UserError(f"data.{name}: this checkpoint's data has {', '.join(taken)}")
    try:
        check_arguments(type(trained_on), changes, "data")
        data = type(trained_on)(**{**trained_on.hparams, **changes})
        model.search(data.size, getattr(data, "margin_px", 0))
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    trainer = make_trainer(cfg, logger=False, enable_checkpointing=False)
    with owned(run_dir):
        claim(run_dir, cfg)
        metrics = measure(trainer, model, data, model.training_data(trained_on), run_dir)
        metrics["checkpoint"] = str(path)
        if trainer.is_global_zero:
            runs.write_metrics(run_dir, metrics)
    return metrics


def run(cfg: DictConfig) -> None:
    """Evaluate in the folder that Hydra has chosen, and print the figures."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    metrics = evaluate(cfg, run_dir)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print_figures(metrics)
        print(f"Figures, predictions and pictures: {run_dir}")


if __name__ == "__main__":
    run_command("evaluate", run)
