"""Checkpoints that the Trainer writes: whole or not at all, two files a run."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pixel_spotter.files import atomic_write, read_tensors


class AtomicCheckpointIO(TorchCheckpointIO):
    """Makes the Trainer write checkpoints atomically and read them as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_tensors(Path(path))


class KeptCheckpoint(ModelCheckpoint):
    """One file, replaced after every epoch, or after those with the smallest ``monitor`` so far."""

    def __init__(self, path: Path, monitor: str | None = None) -> None:
        super().__init__(
            dirpath=path.parent,
            filename=path.stem,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.path = str(path.absolute())
        # A model that is solved makes no step; step 0 counts as saved already otherwise.
        self._last_global_step_saved = -1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        score = state_dict["best_model_score"]
        # The run folder may have been moved meanwhile.
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": self.path,
            "kth_best_model_path": self.path,
            "best_k_models": {} if score is None else {self.path: score},
        }
        super().load_state_dict({**state_dict, **moved})
