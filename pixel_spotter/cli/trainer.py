"""What train and evaluate share: a Trainer, and a run folder that is theirs."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.cli import mistakes
from pixel_spotter.cli.family import comparable
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text


def make_trainer(cfg: DictConfig, **arguments: Any) -> Trainer:
    """Make the Trainer; time is limited by a callback, samples are shared out by the data.

    Where the precision is ``auto``, it is in float32: `training.precision.choose` knows better.
    """
    mistakes.refuse_rounding(cfg)
    precision = str(cfg.trainer.precision)
    fixed: dict[str, Any] = {"max_time": None, "use_distributed_sampler": False}
    if precision == "auto":
        fixed["precision"] = "32-true"
    trainer: Trainer = mistakes.instantiate(cfg.trainer, "trainer", **fixed, **arguments)
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UserError(f"trainer.devices={trainer.num_devices}: this machine has {cores} cores")
    _refuse_what_it_cannot(precision, trainer.strategy.root_device)
    return trainer


def _refuse_what_it_cannot(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have: the Trainer would take another."""
    lacking = precision == "16-mixed" and device.type == "cpu"
    if device.type == "cuda" and precision == "bf16-mixed":
        lacking = not torch.cuda.is_bf16_supported()
    if lacking:
        where = "on a CPU" if device.type == "cpu" else "on this GPU"
        raise UserError(f"trainer.precision={precision} cannot be had {where}: use auto")


def owned(run_dir: Path) -> AbstractContextManager[None]:
    """Keep a run folder for this process, and those that it starts."""
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    return runs.owned(run_dir) if first else nullcontext()


@rank_zero_only
def claim(run_dir: Path, cfg: DictConfig) -> None:
    """Write ``.hydra/`` into a run's folder; refuse one that holds a run with other settings."""
    for unfinished in run_dir.rglob(".*.tmp*"):
        unfinished.unlink(missing_ok=True)  # what a killed process was writing
    begun = (run_dir / runs.LAST).is_file() or runs.is_finished(run_dir)
    if (run_dir / runs.CONFIG).is_file() and begun:
        written = OmegaConf.create(runs.read_yaml(run_dir / runs.CONFIG, dict))
        before, now = map(comparable, (written, cfg))
        if now.get("trainer.precision") == "auto" and before.get("trainer.precision") == "32-true":
            now["trainer.precision"] = "32-true"  # with auto, a run goes on as it began
        changed = [
            f"{key} is {before.get(key)} there and {now.get(key)} here"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if changed:
            how = "; ".join(changed)
            raise UserError(
                f"{run_dir} holds a run with other settings ({how}): choose another name"
            )
        return
    for of_another in run_dir.glob(runs.KEPT.format("*")):
        shutil.rmtree(of_another)
    write_text(run_dir / runs.CONFIG, OmegaConf.to_yaml(cfg))
    if HydraConfig.initialized():
        hydra_cfg = HydraConfig.get()
        write_text(run_dir / runs.HYDRA, OmegaConf.to_yaml({"hydra": hydra_cfg}))
        write_text(run_dir / runs.OVERRIDES, OmegaConf.to_yaml(hydra_cfg.overrides.task))
