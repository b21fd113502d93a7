"""From a checkpoint back to its model: only what is trusted is built, and no code runs from it."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pixel_spotter.data.base import PointData
from pixel_spotter.errors import UserError
from pixel_spotter.files import read_tensors
from pixel_spotter.models.base import PointRegressor, class_name, describe

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where the package keeps models that were trained, each by its name."""

_OURS = ("pixel_spotter.models", "pixel_spotter.data")
_ESTIMATORS_OF_0_1 = {
    "pixel_spotter.models.argmax.ArgmaxRegressor": "argmax",
    "pixel_spotter.models.centroid.CentroidRegressor": "centre_of_mass",
}


def load_model(path: str | Path, trust: Sequence[str] = ()) -> tuple[PointRegressor, PointData]:
    """Rebuild the model of a checkpoint, in eval mode, and the data it was trained on.

    A name that is no file, ``heatmap`` or ``spotter``, is that of a model in the package. Classes
    of ``trust``, modules of one's own or packages of them, may be built: importing them runs their
    code. What Pixel Spotter holds is always trusted.
    """
    path = Path(path).expanduser()
    ours = WEIGHTS / f"{path}.ckpt"
    path = ours if not path.exists() and ours.parent == WEIGHTS and ours.is_file() else path
    checkpoint = read_tensors(path)
    if not isinstance(checkpoint.get("model_class"), str):
        raise UserError(f"{path} is not a checkpoint of Pixel Spotter")
    try:
        model = rebuild_model(checkpoint["model_class"], checkpoint["hyper_parameters"], trust)
        model.load_state_dict(checkpoint["state_dict"])
        model.name = str(checkpoint.get("model_name", model.name))
        before = checkpoint.get("trained_before", [])
        model.trained_before += [rebuild_data(described, trust) for described in before]
        hparams = checkpoint["datamodule_hyper_parameters"]
        data = rebuild_data({**checkpoint, "hyper_parameters": hparams}, trust)
        model.in_photons, model.learned_from = data.in_photons, data
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # a checkpoint can hold any values
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} does not fit its model: {lines[0]}") from error
    return model.eval(), data


def describe_model(model: PointRegressor, trained_on: Sequence[PointData]) -> dict[str, Any]:
    """Return what `load_described` rebuilds a model from, all but its weights."""
    return {
        "model_class": class_name(type(model)),
        "hyper_parameters": dict(model.hparams),
        "trained_on": [describe(data) for data in trained_on],
    }


def load_described(
    checkpoint: str | Mapping[str, Any], trust: Sequence[str] = ()
) -> tuple[PointRegressor, list[PointData]]:
    """Return the model of a file, or of what `describe_model` said, and all it was trained on."""
    if isinstance(checkpoint, str):
        model, data = load_model(checkpoint, trust)
        return model, model.training_data(data)
    model = rebuild_model(checkpoint["model_class"], checkpoint["hyper_parameters"], trust)
    trained_on = checkpoint.get("trained_on") or [  # version 0.1 knew of one alone
        {"hyper_parameters": checkpoint["datamodule_hyper_parameters"]}
    ]
    return model, [rebuild_data(described, trust) for described in trained_on]


def rebuild_model(name: str, hparams: Mapping[str, Any], trust: Sequence[str]) -> PointRegressor:
    """Rebuild a model, without its weights, from its class's full name and its arguments."""
    if name in _ESTIMATORS_OF_0_1:
        hparams = {**hparams, "estimator": _ESTIMATORS_OF_0_1[name]}
        name = "pixel_spotter.models.closed_form.ClosedForm"
    model: PointRegressor = _find(name, PointRegressor, trust).rebuild(hparams, trust)
    return model


def rebuild_data(described: Mapping[str, Any], trust: Sequence[str]) -> PointData:
    """Rebuild data from what `models.base.describe` has said of them."""
    name = described.get("data_class", "pixel_spotter.data.pixels.PixelDataModule")  # as in 0.1
    data: PointData = _find(name, PointData, trust)(**described["hyper_parameters"])
    return data


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, which holds nothing but named tensors."""
    state = read_tensors(path)
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} is not a state dict: it holds more than named tensors")
    return state


def own_modules(described: Any) -> set[str]:
    """Return the modules that a checkpoint, or a part of one, needs trust for."""
    found = set()
    if isinstance(described, Mapping):
        named = (described.get(key) for key in ("model_class", "data_class", "member_class"))
        modules = (name.rpartition(".")[0] for name in named if isinstance(name, str))
        found = {module for module in modules if not _is_in(module, _OURS)}
        described = [*described.values()]
    if isinstance(described, list | tuple):
        found.update(*map(own_modules, described))
    return found


def _is_in(module: str, packages: Sequence[str]) -> bool:
    return any(f"{module}.".startswith(f"{one}.") for one in packages)


def _find(name: str, kind: type, trust: Sequence[str]) -> Any:
    module, _, attribute = name.rpartition(".")
    trust = (trust,) if isinstance(trust, str) else trust
    if not _is_in(module, (*_OURS, *trust)):
        raise UserError(
            f"was refused: it asks for {name}, which is not Pixel Spotter's; if you trust it, "
            f"add trust={module}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"needs {name}, which is not there ({error})") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise UserError(f"was refused: {name} is no {kind.__name__}")
    return found
