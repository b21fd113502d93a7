"""Values out of their range that no constructor looks at before it is too late."""

import os
import re

from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from omegaconf import DictConfig, OmegaConf

from pixel_spotter.arguments import require
from pixel_spotter.errors import UserError

_LEAST = {
    "seed": 0,
    "trainer.max_epochs": 1,
    "trainer.min_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": -1,  # all of them
    "early_stopping.patience": 1,
    "scheduler.T_max": 1,
}
"""Whole numbers, and the least that each may be."""

_NEEDED = ("seed", "trainer.max_epochs")
"""Those of them that cannot be left out."""


def check(cfg: DictConfig) -> None:
    """Refuse what a training cannot be set to."""
    for key, least in _LEAST.items():
        value = OmegaConf.select(cfg, key)
        whole = type(value) is int and least <= value < 2**32
        fits = whole or (value is None and key not in _NEEDED)
        require(fits, key, f"a whole number of at least {least}", value)
    min_epochs, max_time = cfg.trainer.get("min_epochs"), cfg.trainer.max_time
    in_range = min_epochs is None or min_epochs <= cfg.trainer.max_epochs
    require(in_range, "trainer.min_epochs", "at most trainer.max_epochs", min_epochs)
    is_time = re.fullmatch(r"(?=.*[1-9])\d+:\d\d:\d\d:\d\d", str(max_time))
    require(max_time is None or bool(is_time), "trainer.max_time", "DD:HH:MM:SS", max_time)
    check_precision(cfg)


def check_precision(cfg: DictConfig) -> None:
    """Refuse precisions in which coordinates would be rounded."""
    precision = str(cfg.trainer.precision)
    if precision not in ("32", "32-true", "16-mixed", "bf16-mixed"):
        raise UserError(
            f"trainer.precision={precision} would round coordinates or is none; "
            f"use bf16-mixed, 16-mixed or 32-true"
        )


def check_devices(trainer: Trainer) -> None:
    """Refuse more devices than there are."""
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UserError(f"trainer.devices={trainer.num_devices}: this machine has {cores} cores")
