"""In which precision a model is trained where nobody says: ``trainer.precision=auto``."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from pixel_spotter.files import read_tensors
from pixel_spotter.models.base import PointRegressor

log = logging.getLogger(__name__)

_FULL = "32-true"


class TrainsInBfloat16(MixedPrecision):
    """Mixed precision in the steps of training alone: what is validated and tested is float32.

    So a run's figures are those of what its checkpoint answers, wherever that is loaded.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    @contextmanager
    def val_step_context(self) -> Generator[None, None, None]:
        yield

    @contextmanager
    def test_step_context(self) -> Generator[None, None, None]:
        yield


def choose(trainer: L.Trainer, model: PointRegressor, last: Path | None = None) -> None:
    """Have a Trainer in float32 train in bfloat16 where that gains, and loses nothing; say why.

    It is judged by what the hardware and the model are, not by the clock: the next run of the same
    settings on the same machine is the same run. What continues from the checkpoint ``last`` does
    so in the precision that it began with, wherever it is.
    """
    device = trainer.strategy.root_device
    what = "processor" if device.type == "cpu" else "device"
    if last is not None:
        mixed = read_tensors(last).get("precision", _FULL) != _FULL
        why = "as it began"
    elif not model.learns_in_bfloat16:
        mixed, why = False, f"{model.name} was not shown to learn as well in bfloat16"
    else:
        mixed = has_bfloat16_units(device)
        why = f"this {what} has {'' if mixed else 'no '}units for bfloat16"
    if mixed:
        trainer.strategy.precision_plugin = TrainsInBfloat16(device.type)
    log.info("precision of training: %s, %s", trainer.precision, why)


def has_bfloat16_units(device: torch.device) -> bool:
    """Tell whether a device multiplies numbers in bfloat16 itself, instead of by way of others."""
    units: bool = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return units or (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
