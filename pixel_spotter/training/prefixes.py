"""Runs that differ in nothing but how long they train are one training, with stops."""

import logging
import shutil
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from pixel_spotter import runs
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write, read_tensors
from pixel_spotter.training.callbacks import EpochLogger

log = logging.getLogger(__name__)

_BEST, _LAST = Path(runs.BEST).name, Path(runs.LAST).name


class Stops(Callback):
    """Keeps the checkpoints that a run has after so many epochs, for runs of no more."""

    def __init__(self, run_dir: Path, epochs: Collection[int]) -> None:
        self.run_dir, self.epochs = run_dir, epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kept = kept_after(trainer.current_epoch, self.run_dir)
        if trainer.current_epoch in self.epochs:
            for name in (_BEST, _LAST):
                with atomic_write(kept / name) as temporary:
                    shutil.copyfile(kept.parent / name, temporary)


def kept_after(epochs: int, run_dir: Path) -> Path:
    """Return where a run keeps the checkpoints that it had after so many epochs."""
    return run_dir / runs.KEPT.format(epochs)


def take_prefix(
    run_dir: Path, others: Mapping[int, Path], max_epochs: int, where: Mapping[str, Any]
) -> None:
    """Begin a run with the epochs that one of others, by how many these are to have, has trained.

    The folder becomes that of a run that was interrupted after them. It stays as it is where none
    are undamaged and were trained ``where`` this run is.
    """
    for most, other in sorted(others.items(), reverse=True):
        longer = most > max_epochs
        source = kept_after(max_epochs, other) if longer else (other / runs.LAST).parent
        if not (source / _LAST).is_file():
            continue
        try:
            epochs = _take(run_dir, other, source, where)
        except (UserError, OSError, zipfile.BadZipFile) as error:
            log.info("not begun with epochs of %s: %s", other.name, error)
        else:
            log.info("begun with %d epochs of %s", epochs, other.name)
            return


def _take(run_dir: Path, other: Path, source: Path, where: Mapping[str, Any]) -> int:
    """Take over what a run has trained; return how many epochs. Before ``last``, nothing counts."""
    with atomic_write(run_dir / runs.LAST) as last:
        # Copied before the best: if the other run goes on meanwhile, the best is seen to be later.
        shutil.copyfile(source / _LAST, last)
        with atomic_write(run_dir / runs.BEST) as best:
            shutil.copyfile(source / _BEST, best)
            state, table = _read(last), runs.read_epochs(other)
            epochs = int(state.get("epoch", -1)) + 1
            rows = table[table["epoch"] < epochs].to_dict("records")
            if _read(best).get("epoch", epochs) >= epochs:
                raise UserError("they are of other epochs")
            if state.get("where_it_ran") != where:
                raise UserError("they were trained elsewhere, or with other versions")
            if len(rows) != epochs:
                raise UserError(f"{runs.EPOCHS} lacks some")
        runs.write_epochs(run_dir, rows)
        logger = EpochLogger(str(run_dir))
        for row in rows:
            logger.log_metrics({k: v for k, v in row.items() if k != "seconds" and v == v})
        logger.experiment.close()
    return epochs


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint whose bytes agree with their checksums, at which PyTorch does not look."""
    with zipfile.ZipFile(path) as parts:
        if parts.testzip() is not None:
            raise UserError("its checkpoint is damaged")
    return read_tensors(path)
