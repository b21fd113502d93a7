"""Checkpoints are data: written whole or not at all, read without running anything in them."""

import importlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write
from pixel_spotter.models.base import PointRegressor


class AtomicCheckpointIO(TorchCheckpointIO):
    """Makes the Trainer write checkpoints atomically and read them as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint under its name once it is whole."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, tensors to the CPU, whatever the Trainer asks for."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values, refusing anything that would run code.

    Raises:
        UserError: if the file is missing, damaged, holds code or something else.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused: it is no file of weights, or holds more than plain data, "
            f"which could run code when loaded"
        ) from error
    except Exception as error:  # torch.load answers damage with whatever its parsers raise
        raise UserError(f"{path} is damaged or not a file of PyTorch weights") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no checkpoint")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Raises:
        UserError: as `read`, or if the file holds something else than named tensors.
    """
    state = read(path)
    named = all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a state dict: it holds more than named tensors")
    return state


def load_model(path: Path) -> tuple[PointRegressor, PixelDataModule]:
    """Rebuild the model of a checkpoint, in eval mode, and the data it was trained on.

    Only subclasses of `PointRegressor` inside ``pixel_spotter`` are ever instantiated.

    Raises:
        UserError: if the file cannot be read or is not one of Pixel Spotter's checkpoints.
    """
    checkpoint = read(path)
    if not isinstance(checkpoint.get("model_class"), str):
        raise UserError(f"{path} is not a checkpoint of Pixel Spotter")
    try:
        model = rebuild(checkpoint["model_class"], checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
        data = PixelDataModule(**checkpoint["datamodule_hyper_parameters"])
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a checkpoint can hold any values
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} does not fit its model: {lines[0]}") from error
    return model.eval(), data


def rebuild(model_class: str, hparams: Mapping[str, Any]) -> PointRegressor:
    """Rebuild a model, without its weights, from its class's full name and its arguments.

    Raises:
        UserError: if the class is none of Pixel Spotter's models; says what is wrong with the
            checkpoint that asks for it.
    """
    module_name, _, class_name = model_class.rpartition(".")
    if not module_name.startswith("pixel_spotter.models."):
        raise UserError(f"was refused: it asks for {model_class}, which is not Pixel Spotter's")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"needs {model_class}, which this version does not have") from error
    if not (isinstance(found, type) and issubclass(found, PointRegressor)):
        raise UserError(f"was refused: {model_class} is not a model")
    return found.rebuild(hparams)
