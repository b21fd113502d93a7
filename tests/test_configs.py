import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from conftest import CPU, ModelFiles, choices, compose
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import estimators
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.cli.mistakes import refuse_unknown_settings
from pixel_spotter.cli.trainer import make_trainer
from pixel_spotter.data.base import PointData
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.train import make

GROUPS = ("data", "model", "optim", "scheduler", "trainer")


def parameters(target: str) -> set[str]:
    """Name a constructor's arguments."""
    signature = inspect.signature(get_class(target).__init__)
    return {
        name
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }


def keys(cfg: DictConfig) -> set[str]:
    return {str(key) for key in cfg} - {"_target_", "_partial_"}


def check_all_is_made(cfg: DictConfig) -> tuple[PointData, PointRegressor]:
    data, model = make(cfg, "any")
    assert isinstance(data, PointData)
    assert isinstance(model, PointRegressor)
    assert model.size == data.size
    if not isinstance(model, SolvedRegressor):
        (optimizer,), (scheduler,) = model.configure_optimizers()
        assert optimizer.param_groups[0]["initial_lr"] == cfg.optim.lr
        assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    return data, model


@pytest.mark.parametrize(
    "choice", [f"{group}={choice}" for group in GROUPS for choice in choices(group)]
)
def test_every_choice_of_every_group(choice: str, model_files: ModelFiles) -> None:
    """All can be made, and the keys of a group are arguments of the class it makes."""
    group = choice.partition("=")[0]
    cfg = model_files.compose([*(CPU if group != "trainer" else []), choice])
    taken = parameters(cfg[group]._target_)
    assert keys(cfg[group]) <= taken
    if group in ("data", "model"):
        assert keys(cfg[group]) == taken, "each of our own arguments has its key"
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_all_is_made(cfg)
    if choice != "trainer=gpu" or torch.cuda.is_available():
        trainer = make_trainer(cfg, logger=False, enable_checkpointing=False)
        assert isinstance(trainer, L.Trainer)


def models_of(experiment: str) -> list[str]:
    """List the models of an experiment's own grid; of one that has other grids, those of these."""
    cfg = OmegaConf.load(CONF_DIR / f"experiment/{experiment}.yaml")
    return str(OmegaConf.select(cfg, "hydra.sweeper.params.model") or "cnn,heatmap").split(",")


PAIRS = [
    pytest.param(
        experiment, model, marks=[] if model in models_of(experiment) else pytest.mark.slow
    )
    for experiment in choices("experiment")
    for model in choices("model")
]
"""A composition takes Hydra a third of a second: those that nobody asks for are tested apart."""


@pytest.mark.parametrize(("experiment", "model"), PAIRS)
def test_every_experiment_with_every_model(
    experiment: str, model: str, model_files: ModelFiles
) -> None:
    cfg = model_files.compose([*CPU, f"experiment={experiment}", f"model={model}"])
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_all_is_made(cfg)


@pytest.mark.parametrize("model", ["cnn", "resnet18", "resnet18_scratch"])
def test_the_blogs_protocol(model: str) -> None:
    cfg = compose(["experiment=blog", f"model={model}"])
    assert (cfg.data.split, cfg.data.train_samples, cfg.data.image_size) == ("iid", 2500, 50)
    assert cfg.model.scale_output is False
    assert cfg.scheduler._target_.endswith("ConstantLR")
    assert cfg.name == "blog"
    if model == "cnn":
        assert cfg.model.dropout == 0.5


def test_every_experiment_adjusts_only_models_that_exist() -> None:
    experiments, models = choices("experiment"), choices("model")
    known = {f"{experiment}_{model}" for experiment in experiments for model in models}
    assert {*choices("model_for")} <= known
    assert {*choices("recipe")} <= {*models}


def test_early_stopping_takes_its_keys() -> None:
    cfg = compose().early_stopping
    assert keys(cfg) <= parameters(cfg._target_)


def test_evaluate_and_predict_compose() -> None:
    cfg = compose([], "evaluate")
    assert OmegaConf.missing_keys(cfg) == {"checkpoint"}
    of_data = [
        f"pixel_spotter.data.{name}" for name in ("pixels.PixelDataModule", "spots.SpotDataModule")
    ]
    assert keys(cfg.data) <= parameters(of_data[0]) | parameters(of_data[1])
    assert all(value is None for value in cfg.data.values())
    for command in ("predict", "locate"):
        assert OmegaConf.missing_keys(compose([], command)) == {"images"}


def test_values_are_written_once() -> None:
    changed = compose(["data.image_size=[20,30]", "seed=7", "optim.lr=0.5", "trainer.max_epochs=3"])
    assert changed.model.image_size == [20, 30]
    assert changed.data.seed == 7
    assert changed.scheduler.T_max == 3
    optimizer = make(changed, "heatmap")[1].configure_optimizers()[0][0]
    assert optimizer.param_groups[0]["initial_lr"] == 0.5


def leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_target_is_there() -> None:
    found = 0
    for file in CONF_DIR.rglob("*.yaml"):
        content = OmegaConf.to_container(OmegaConf.load(file))
        for key, value in leaves(content):
            if key.endswith("_target_"):
                assert isinstance(get_class(value), Callable)  # type: ignore[arg-type]
                found += 1
    assert found >= 8


@pytest.mark.parametrize("ablation", choices("ablation"))
def test_an_ablation_changes_one_thing(ablation: str) -> None:
    """Each is its model as it comes, named by the longest model name it begins with, plus one."""
    model = max((name for name in choices("model") if ablation.startswith(name)), key=len)
    changed, base = (
        dict(leaves(OmegaConf.to_container(compose([f"ablation={name}"])["model"])))
        for name in (ablation, model)
    )
    different = {k for k in {*changed, *base} if changed.get(k) != base.get(k)}
    if ablation == model:
        assert not different
    elif ablation == "cnn_constant_rate":
        assert not different
        assert compose([f"ablation={ablation}"]).scheduler._target_.endswith("ConstantLR")
    else:
        two = ablation in ("svm_linear_unblurred", "coordconv_glorot_no_coordinates")
        assert len(different) == 1 + two, different


def test_the_ablation_experiment_runs_all_of_them() -> None:
    text = (CONF_DIR / "experiment/ablation.yaml").read_text()
    listed = OmegaConf.create(text).hydra.sweeper.params.ablation.split(",")
    assert sorted(listed) == choices("ablation")


def test_the_comparison_has_every_model_once() -> None:
    listed = {
        experiment: OmegaConf.load(
            CONF_DIR / f"experiment/{experiment}.yaml"
        ).hydra.sweeper.params.model.split(",")
        for experiment in ("compare", "compare_large", "learning_curve")
    }
    compared = [*listed["compare"], *listed["compare_large"]]
    assert len({*compared}) == len(compared)
    others = {"ensemble_of_checkpoints", "closed_form", "trained", "spotter"}
    assert {*choices("model")} - {*compared} == others
    assert {*listed["learning_curve"]} < {*compared}


@pytest.mark.parametrize("model", choices("recipe"))
def test_a_model_trains_as_its_recipe_says_in_every_comparison(model: str) -> None:
    recipe = dict(leaves(OmegaConf.to_container(compose([f"recipe={model}", f"model={model}"]))))
    for experiment in ("compare", "compare_large"):
        cfg = compose([f"experiment={experiment}", f"model={model}"])
        assert cfg.optim.lr == recipe["optim.lr"]
        assert cfg.trainer.max_epochs == recipe["trainer.max_epochs"]
    assert cfg == compose([f"experiment={experiment}", f"recipe={model}", f"model={model}"])
    told = compose([f"model={model}", "optim.lr=0.5", "trainer.max_epochs=3"])
    assert (told.optim.lr, told.trainer.max_epochs) == (0.5, 3), "the command line wins"


def lens_with_coma(side: int = 65, per_px: int = 5) -> np.ndarray:
    """Light behind a round pupil with a coma of 0.3 rad, which counts as none (Maréchal: 0.45)."""
    at = np.linspace(-1, 1, 101)
    x, y = np.meshgrid(at, at)
    squared = x**2 + y**2
    pupil = np.where(squared <= 1, np.exp(0.3j * math.sqrt(8) * (3 * squared - 2) * x), 0)
    place = (np.arange(side) - side // 2) / per_px
    shift = 0.0
    for _ in range(30):  # until the centre of its light lies at the array's
        to_x, to_y = (np.exp(1.34j * np.outer(place + s, at)) for s in (shift, 0.0))
        light = np.abs(to_y @ pupil @ to_x.T) ** 2
        light /= light.sum()
        shift += (light.sum(axis=0) * place).sum()
    return light


def test_the_studies_lens_is_what_its_formula_gives() -> None:
    shipped, light = np.load(CONF_DIR / "psf/coma.npy"), lens_with_coma()
    assert shipped.dtype == np.float32
    np.testing.assert_allclose(shipped, light, atol=1e-8)
    assert (light.sum(axis=0) * np.arange(65)).sum() == pytest.approx(32)


@pytest.mark.parametrize("scenario", choices("scenario"))
def test_a_scenario_makes_spots(scenario: str) -> None:
    cfg = compose(["experiment=hard_spots", f"scenario={scenario}", "model.estimator=phasor"])
    data, model = check_all_is_made(cfg)
    assert isinstance(data, SpotDataModule)
    assert data.photons == (300, 10_000)
    assert data.counts["test"] == 20_000
    assert model.size == (21, 21)
    assert data.psf.has_width == ("psf" not in scenario)
    told = {"measured_psf": "measured", "unknown_psf": None}
    assert OmegaConf.select(cfg, "model.psf.name") == told.get(scenario, "gaussian")
    assert refuse_unknown_settings(cfg, "train") is cfg
    hard = (data.margin_px == 0, *data.chances, data.camera.read_noise, not data.psf.has_width)
    assert sum(map(bool, hard)) == (scenario != "isolated"), "one thing makes it hard"


def test_the_hard_spots_are_all_scenarios_and_estimators() -> None:
    easy, hard = (
        OmegaConf.load(CONF_DIR / f"experiment/{name}.yaml").hydra.sweeper.params
        for name in ("spots", "hard_spots")
    )
    assert sorted(hard.scenario.split(",")) == choices("scenario")
    listed = easy["model.estimator"].split(",")
    assert {*listed} == {*estimators.__all__} - {"argmax", "centre_of_mass"}
