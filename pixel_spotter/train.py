"""Train one model, or a grid: ``python -m pixel_spotter.train model=cnn optim.lr=0.001``."""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("train")  # before anything slow is imported

import logging
import math
import multiprocessing
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.cli.family import alike, siblings, turn
from pixel_spotter.cli.grid import refuse_late, run_cell, training_time
from pixel_spotter.cli.mistakes import instantiate, refuse_out_of_range
from pixel_spotter.cli.start import run_command
from pixel_spotter.cli.trainer import claim, make_trainer, owned
from pixel_spotter.data.base import PointData
from pixel_spotter.errors import UserError
from pixel_spotter.files import read_tensors
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model, own_modules
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.training import callbacks, precision, prefixes
from pixel_spotter.training.measure import measure, print_figures
from pixel_spotter.training.memory import keep_freed_memory

log = logging.getLogger(__name__)

MONITORED = "val/mean_error_px"

_NEEDED = {  # settings that are of no use without another
    "early_stopping.min_delta": "early_stopping.patience",
    "trainer.gradient_clip_algorithm": "trainer.gradient_clip_val",
}

_TRAINED_ONLY = re.compile(  # settings that are of no use to a model that is solved
    r"optim|scheduler|early_stopping|trainer\.(max_epochs|min_epochs|gradient_clip|accumulate)"
)


def train(cfg: DictConfig, run_dir: Path, model_name: str) -> dict[str, Any]:
    """Train, validate and test one model, or go on with it; return what ``metrics.json`` has."""
    refuse_out_of_range(cfg)
    with owned(run_dir):
        claim(run_dir, cfg)
        if runs.is_finished(run_dir):
            metrics = runs.read_metrics(run_dir)
            if metrics.get("ended") != "max_time":
                log.info("already finished: %s", run_dir)
                return metrics
        others = siblings(cfg, run_dir)
        try:
            with turn(run_dir, others):
                refuse_late()
                (run_dir / runs.METRICS).unlink(missing_ok=True)  # finished it is no longer
                return _train(cfg, run_dir, model_name, others)
        except SystemExit as end:  # how Lightning ends after Ctrl-C
            raise KeyboardInterrupt from end


def _train(
    cfg: DictConfig, run_dir: Path, model_name: str, others: Mapping[int, Path]
) -> dict[str, Any]:
    keep_freed_memory()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, model = make(cfg, model_name)
    seed = callbacks.SeedEachEpoch(cfg.seed)
    time_limit = callbacks.TimeLimit(training_time(cfg.trainer.max_time))
    best, last = run_dir / runs.BEST, run_dir / runs.LAST
    stops = {most for most, other in others.items() if runs.is_open(other)}
    doing: list[Callback] = [seed, time_limit, callbacks.EpochTable(run_dir)]
    doing.append(prefixes.Stops(run_dir, stops))
    # last is written after best, and so knows of it
    kept = callbacks.KeptCheckpoint(best, MONITORED), callbacks.KeptCheckpoint(last)
    watched = _is_watched(cfg)
    if watched:
        doing.append(TQDMProgressBar(refresh_rate=10))
    if cfg.early_stopping.patience is not None:
        doing.append(instantiate(cfg.early_stopping, "early_stopping", monitor=MONITORED))
    trainer = make_trainer(
        cfg,
        enable_progress_bar=watched,
        callbacks=[*doing, *kept],
        logger=instantiate(cfg.logger, "logger", save_dir=str(run_dir)),
        plugins=[callbacks.AtomicCheckpointIO()],
    )
    solved = isinstance(model, SolvedRegressor)
    if solved:
        trainer.limit_train_batches = 1  # nothing is made of them
    if solved and trainer.world_size > 1:
        raise UserError(f"model={model_name} is solved, not trained: leave out trainer.devices")

    if not (solved or last.is_file()):
        begun = {most: other for most, other in others.items() if alike(cfg, other)}
        where = runs.where_it_ran(trainer.strategy.root_device)
        prefixes.take_prefix(run_dir, begun, cfg.trainer.max_epochs, where)
    before = last if last.is_file() else None
    if cfg.trainer.precision == "auto" and not solved:
        precision.choose(trainer, model, before)
    words = "continuing" if before else "training"
    log.info("%s %s in %s (name=%s continues it)", words, model_name, run_dir, cfg.name)
    trainer.fit(model, data, ckpt_path=before)
    epochs, seconds = trainer.current_epoch, time_limit.time_elapsed("train")
    cut = time_limit.ran_out and not solved and epochs < cfg.trainer.max_epochs
    ended = "max_time" if cut else "max_epochs"
    stop = trainer.early_stopping_callback
    if stop is not None and stop.stopped_epoch > 0:
        ended = "early_stopping"
    log.info("ended by %s after %d epochs, %.1f s of training", ended, epochs, seconds)
    trainer.validate(model, data, ckpt_path=best, verbose=False)
    images = data.train_samples if solved else epochs * data.counts["train"]
    trained_on = model.training_data(data)
    metrics = {
        **{f"val/{name}": value for name, value in model.figures["val"].items()},
        **measure(trainer, model, data, trained_on, run_dir, best),
        "trained_here": any(one is data for one in trained_on),
        "seed": cfg.seed,
        "epochs": epochs,
        "ended": ended,
        "lr": None if solved else cfg.optim.lr,
        "train_seconds": round(seconds, 3),
        "train_images_per_second": round(images / seconds, 1),
    }
    if trainer.is_global_zero:
        log_settings(trainer, cfg, metrics)
        runs.write_metrics(run_dir, metrics)
    for other in others.values():  # what they kept for this run has served
        shutil.rmtree(prefixes.kept_after(cfg.trainer.max_epochs, other), ignore_errors=True)
    return metrics


def _is_watched(cfg: DictConfig) -> bool:
    """Tell whether progress bars can be seen: side by side, they would write over one another."""
    alone = multiprocessing.parent_process() is None
    return bool(cfg.trainer.enable_progress_bar) and sys.stdout.isatty() and alone


def make(cfg: DictConfig, model_name: str) -> tuple[PointData, PointRegressor]:
    """Make a run's data, and its model with what it is trained with."""
    optimizer, scheduler = instantiate(cfg.optim, "optim"), instantiate(cfg.scheduler, "scheduler")
    data: PointData = instantiate(cfg.data, "data")
    model: PointRegressor = instantiate(cfg.model, "model")
    model.name, model.in_photons = model_name, data.in_photons
    if model.optimizer_factory is None:
        model.optimizer_factory, model.scheduler_factory = optimizer, scheduler
    refuse_unused(cfg, model)
    if type(model).configure_optimizers is PointRegressor.configure_optimizers:
        model.configure_optimizers()  # says what is wrong with them before the training begins
    if cfg.start_from is not None:
        start_from(model, Path(str(cfg.start_from)), cfg.trust)
    return data, model


def refuse_unused(cfg: DictConfig, model: PointRegressor) -> None:
    """Refuse what this run would not use; a grid's settings may be for its other cells."""
    unused = [] if cfg.start_from is None else ["start_from"]
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.RUN:
        given = [word.lstrip("+~").partition("=")[0] for word in HydraConfig.get().overrides.task]
        unused += filter(_TRAINED_ONLY.match, given)
        for key in _NEEDED.keys() & {*given}:
            if OmegaConf.select(cfg, _NEEDED[key]) is None:
                raise UserError(f"{key} is of no use without {_NEEDED[key]}")
    if unused and isinstance(model, SolvedRegressor):
        raise UserError(f"{model.name} is solved, not trained: leave out {unused[0]}")


def dry_run(cfg: DictConfig, run_dir: Path, model_name: str) -> None:
    """Put one batch through training, validation and test, and keep nothing."""
    refuse_out_of_range(cfg)
    with owned(run_dir):
        data, model = make(cfg, model_name)
        quiet = {"logger": False, "enable_checkpointing": False}
        trainer = make_trainer(cfg, **quiet, enable_progress_bar=_is_watched(cfg))
        if cfg.trainer.precision == "auto":
            precision.choose(trainer, model)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
    print(f"Dry run of {model_name}: a batch went through training, validation and test.")


def start_from(model: PointRegressor, path: Path, trust: list[str]) -> None:
    """Give a model the weights of a checkpoint, whose data count as seen from then on."""
    before, data = load_model(path, trust)
    try:
        model.load_state_dict(before.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"start_from={path}: its {before.name} does not fit this {model.name}: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    model.trained_before = before.training_data(data)


def log_settings(trainer: L.Trainer, cfg: DictConfig, metrics: dict[str, Any]) -> None:
    """Tell the logger what was set, and what it brought: what one compares runs by."""
    settings = {key: metrics[key] for key in ("model", "split", "epochs", "lr", "seed")}
    settings |= {"batch_size": cfg.data.batch_size, "train_samples": cfg.data.get("train_samples")}
    figures = {f"test/{name}": metrics[f"test/{name}"] for name in ("mean_error_px", "hit_rate")}
    if isinstance(trainer.logger, callbacks.EpochLogger):
        trainer.logger.log_hyperparams(settings, figures)
    elif trainer.logger is not None:
        trainer.logger.log_hyperparams(settings)
        trainer.logger.log_metrics(figures, metrics["epochs"])
    for logger in trainer.loggers:
        logger.finalize("success")


def run(cfg: DictConfig) -> float | None:
    """Train in the folder that Hydra has chosen; return what was monitored, for its sweepers."""
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    model_name = hydra_cfg.runtime.choices["model"]
    if cfg.model.get("weights", "given") is None:
        model_name = f"{model_name.removesuffix('_scratch')}_scratch"
    if model_name == "closed_form":
        model_name = cfg.model.estimator
    if cfg.trainer.fast_dev_run:
        dry_run(cfg, run_dir, model_name)
        return None
    if hydra_cfg.mode == RunMode.RUN:
        metrics = train(cfg, run_dir, model_name)
        kind: type[PointData] = get_class(cfg.data._target_)
        print_run(run_dir, metrics, kind.in_photons)
        return float(metrics[MONITORED])
    cell = run_cell(run_dir, lambda: train(cfg, run_dir, model_name))
    return math.inf if cell is None else cell[MONITORED]


@rank_zero_only
def print_run(run_dir: Path, metrics: dict[str, Any], in_photons: bool = False) -> None:
    """Print a run's figures and where to look."""
    print_figures(metrics)
    print(f"Trained in {metrics['train_seconds']:.1f} s, {metrics['epochs']} epochs", end="")
    ended = {"max_time": " (time was up)", "early_stopping": " (no more progress)"}
    print(ended.get(metrics.get("ended", ""), ""))
    print(f"Run folder: {run_dir}")
    print("Dashboard:  make dashboard  (or: tensorboard --logdir outputs)")
    if in_photons:  # nobody knows what a file's counts are in photons
        return
    own = own_modules(read_tensors(run_dir / runs.BEST))
    trust = f" trust=[{','.join(sorted(own))}]" if own else ""
    print(f"Predict:    pixel-spotter predict checkpoint={run_dir / runs.BEST}{trust} images=...")


if __name__ == "__main__":
    run_command("train", run)
