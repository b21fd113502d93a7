"""Train one model, or a grid: ``python -m pixel_spotter.train model=cnn optim.lr=0.001``."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, Timer, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from pixel_spotter import runs
from pixel_spotter.cli.start import instantiate, run_command, user_message
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.reporting import plots
from pixel_spotter.training.callbacks import EpochLogger, KeptCheckpoint, SeedEachEpoch
from pixel_spotter.training.checkpoints import AtomicCheckpointIO

log = logging.getLogger(__name__)

MONITORED = "val/mean_error_px"


def train(cfg: DictConfig, run_dir: Path, model_name: str) -> dict[str, Any]:
    """Train, validate and test one model, continuing where an earlier try was interrupted.

    Args:
        cfg: the composed config, see ``conf/train.yaml``.
        run_dir: the run folder; a finished run in it is returned as it is.
        model_name: what to call the model in the figures.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: if the config asks for something impossible, or the folder holds another run.
    """
    check(cfg)
    runs.claim_run_folder(run_dir, cfg)
    if runs.is_finished(run_dir):
        log.info("already finished: %s", run_dir)
        return runs.read_metrics(run_dir)

    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data: PixelDataModule = instantiate(cfg.data)
    model: PointRegressor = instantiate(cfg.model)
    timer = Timer()
    best, last = run_dir / runs.BEST, run_dir / runs.LAST
    callbacks: list[Callback] = [SeedEachEpoch(cfg.seed), timer]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10 if sys.stdout.isatty() else 10**6))
    if cfg.early_stopping.patience is not None:
        callbacks.append(instantiate(cfg.early_stopping, monitor=MONITORED))
    logger = EpochLogger(run_dir)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        # last is written after best, and so knows of it
        callbacks=[*callbacks, KeptCheckpoint(best, MONITORED), KeptCheckpoint(last)],
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
    )

    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UserError(f"trainer.devices={trainer.num_devices}: this machine has {cores} cores")

    solved = isinstance(model, SolvedRegressor)
    if solved and trainer.world_size > 1:
        raise UserError(f"model={model_name} is solved, not trained: leave out trainer.devices")

    doing = "continuing" if last.is_file() else "training"
    log.info("%s %s in %s (name=%s continues it)", doing, model_name, run_dir, cfg.name)
    trainer.fit(model, data, ckpt_path=last if last.is_file() else None)
    epochs, seconds = trainer.current_epoch, timer.time_elapsed("train")
    trainer.validate(model, data, ckpt_path=best, verbose=False)
    trainer.test(model, data, ckpt_path=best, verbose=False)

    images = data.train_samples if solved else epochs * data.epoch_samples
    metrics = {
        **runs.prefixed("val", model.figures["val"]),
        **runs.prefixed("test", model.figures["test"]),
        "test/seen_in_training": data.seen_in_training(model.trained_before or [data]),
        "model": model_name,
        "split": cfg.data.split,
        "image_size": list(data.size),
        "seed": cfg.seed,
        "epochs": epochs,
        "lr": None if solved else cfg.optim.lr,
        "parameters": model.count_parameters(),
        "train_seconds": round(seconds, 3),
        "train_images_per_second": round(images / seconds, 1),
        "precision": trainer.precision,
        **runs.where_it_ran(trainer.strategy.root_device),
    }
    if trainer.is_global_zero:
        record(run_dir, logger, data, model, metrics, runs.plain_settings(cfg))
    return metrics


def check(cfg: DictConfig) -> None:
    """Refuse settings that no constructor looks at before it is too late.

    Raises:
        UserError: if one is out of its range.
    """
    for key, value, least in (
        ("seed", cfg.seed, 0),
        ("trainer.max_epochs", cfg.trainer.max_epochs, 1),
        ("early_stopping.patience", cfg.early_stopping.patience or 1, 1),
        ("scheduler.T_max", cfg.scheduler.get("T_max", 1), 1),
    ):
        if type(value) is not int or not least <= value < 2**32:
            raise UserError(f"{key} must be a whole number of at least {least}, got {value!r}")
    precision = str(cfg.trainer.precision)
    if precision not in ("32", "32-true", "16-mixed", "bf16-mixed"):
        raise UserError(
            f"trainer.precision={precision} would round coordinates or is none; "
            f"use bf16-mixed, 16-mixed or 32-true"
        )


def record(
    run_dir: Path,
    logger: EpochLogger,
    data: PixelDataModule,
    model: PointRegressor,
    metrics: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Leave behind what a tested model has shown: predictions, pictures, and figures last."""
    xy_pred, xy_true, extra = (values.cpu() for values in model.predictions["test"].compute())
    runs.write_predictions(run_dir, "test", xy_pred, xy_true, extra, model.extras)

    writer = logger.experiment
    title = f"{metrics['model']}, {metrics['split']} split"
    for name, figure in plots.run_pictures(xy_pred, xy_true, data.size, title).items():
        writer.add_image(f"test/{name}", plots.as_tensor(figure), metrics["epochs"])
    logger.log_hyperparams(
        settings | {key: metrics[key] for key in ("model", "epochs")},
        {name: value for name, value in metrics.items() if name.startswith("test/")},
    )
    logger.finalize("success")
    runs.write_metrics(run_dir, metrics)


def run(cfg: DictConfig) -> None:
    """Train in the folder that Hydra has chosen; a grid's cell that fails lets the others run."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    model_name = hydra_cfg.runtime.choices["model"]
    if cfg.model.get("weights", "given") is None:
        model_name = f"{model_name.removesuffix('_scratch')}_scratch"
    if hydra_cfg.mode == RunMode.RUN:
        metrics = train(cfg, run_dir, model_name)
        report(run_dir, metrics)
        return
    if cfg.grid_seeds is not None and cfg.seed >= cfg.grid_seeds:
        log.info("left out, as grid_seeds=%s: %s", cfg.grid_seeds, run_dir)
        return
    failure = run_dir / runs.FAILURE
    failure.unlink(missing_ok=True)
    try:
        if cfg.trainer.devices not in (1, "1", "auto"):
            raise UserError("a grid trains each cell on one device: leave out trainer.devices")
        train(cfg, run_dir, model_name)
    except Exception as error:
        message = user_message(error)
        if message is None:
            log.exception("failed: %s", run_dir)
            message = f"{type(error).__name__}: {error}; see {run_dir / 'train.log'}"
        else:
            log.error("failed: %s: %s", run_dir, message)
        write_text(failure, message + "\n")


@rank_zero_only
def report(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Print a run's figures and where to look."""
    runs.print_figures(metrics)
    print(f"Trained in {metrics['train_seconds']:.1f} s, {metrics['epochs']} epochs")
    print(f"Run folder: {run_dir}")
    print("Dashboard:  make dashboard  (or: tensorboard --logdir outputs)")
    print(
        f"Predict:    python -m pixel_spotter.predict checkpoint={run_dir / runs.BEST} images=..."
    )


def main() -> None:
    """Run the command."""
    run_command("train", run)


if __name__ == "__main__":
    main()
