"""Measure a checkpoint: ``python -m pixel_spotter.evaluate checkpoint=PATH [data.split=...]``."""

from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pixel_spotter import runs
from pixel_spotter.cli.start import instantiate, run_command
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.reporting import plots
from pixel_spotter.training.checkpoints import load_model


def evaluate(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Test a checkpoint and write its figures, predictions and pictures.

    Args:
        cfg: the composed config, see ``conf/evaluate.yaml``.
        run_dir: where to write ``metrics.json``, ``predictions.csv`` and the pictures.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: if the checkpoint cannot be used or the settings contradict each other.
    """
    path = Path(str(cfg.checkpoint))
    model, trained_on = load_model(path)
    settings = {**trained_on.hparams, **{k: v for k, v in cfg.data.items() if v is not None}}
    try:
        data = PixelDataModule(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    trainer: L.Trainer = instantiate(
        cfg.trainer, logger=False, enable_checkpointing=False, use_distributed_sampler=False
    )
    trainer.test(model, data, verbose=False)

    xy_pred, xy_true, extra = (values.cpu() for values in model.predictions["test"].compute())
    metrics = {
        **runs.prefixed("test", model.figures["test"]),
        "test/seen_in_training": data.seen_in_training(model.trained_before or [trained_on]),
        "model": type(model).__name__,
        "checkpoint": str(path),
        "split": settings["split"],
        "image_size": list(data.size),
        "seed": settings["seed"],
        "parameters": model.count_parameters(),
        "precision": trainer.precision,
        **runs.where_it_ran(trainer.strategy.root_device),
    }
    runs.write_predictions(run_dir, "test", xy_pred, xy_true, extra, model.extras)
    title = f"{metrics['model']}, {metrics['split']} split"
    for name, figure in plots.run_pictures(xy_pred, xy_true, data.size, title).items():
        plots.save(figure, run_dir / f"{name}.png")
    runs.write_metrics(run_dir, metrics)
    return metrics


def run(cfg: DictConfig) -> None:
    """Evaluate in the folder that Hydra has chosen, and print the figures."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    metrics = evaluate(cfg, run_dir)
    runs.print_figures(metrics)
    print(f"Figures, predictions and pictures: {run_dir}")


def main() -> None:
    """Run the command."""
    run_command("evaluate", run, paths=("checkpoint",))


if __name__ == "__main__":
    main()
