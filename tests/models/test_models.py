"""The contract of a model. A new YAML in ``conf/model`` is tested as soon as it is there."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CPU, ModelFiles, choices, compose, predicted
from torch import nn

from pixel_spotter.coordinates import Columns, as_columns, as_xy
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import errors_px, figures_of
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import dry_run, make, train
from pixel_spotter.training.callbacks import AtomicCheckpointIO


def build(choice: str, files: ModelFiles, image_size: str = "32") -> PointRegressor:
    """Make a model without training it; one that is solved is."""
    torch.manual_seed(0)
    asked = [*CPU, f"model={choice}", f"data.image_size={image_size}", "data.train_samples=100"]
    data, model = make(files.compose(asked), choice)
    assert isinstance(model, PointRegressor)
    if isinstance(model, SolvedRegressor):
        model.solve(data)
    return model


def pixels(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    xy = torch.stack(
        [torch.randint(side, (count,), generator=random) for side in (width, height)], 1
    )
    return render_pixels(xy, (height, width)), xy.float()


def true(xy: torch.Tensor) -> Columns:
    return {"x_true": xy[:, 0], "y_true": xy[:, 1]}


@pytest.mark.parametrize("choice", choices("model"), scope="class")
class TestContract:
    """What every model must do."""

    @pytest.fixture(scope="class")
    def model(self, choice: str, model_files: ModelFiles) -> PointRegressor:
        """A model of 32x32 images in eval mode, not to be changed."""
        return build(choice, model_files).eval()

    @torch.no_grad()
    def test_images_in_coordinates_out(self, model: PointRegressor) -> None:
        for count in (0, 1, 5):
            xy_px = model(pixels(count, 32, 32)[0])
            assert xy_px.shape == (count, 2)
            assert xy_px.dtype == torch.float32
            assert xy_px.isfinite().all()

    def test_the_image_matters(self, model: PointRegressor) -> None:
        image, _ = pixels(8, 32, 32)
        image.requires_grad_()
        xy_px = model(image)
        if xy_px.requires_grad:
            xy_px.sum().backward()
            assert image.grad is not None
            assert image.grad.abs().sum() > 0
            model.zero_grad(set_to_none=True)
        else:  # an argmax has no gradient
            assert (xy_px.amax(dim=0) > xy_px.amin(dim=0)).all()

    @torch.no_grad()
    def test_estimates_have_their_names(self, model: PointRegressor) -> None:
        image, xy = pixels(5, 32, 32)
        columns = model.estimate(image)
        assert [*columns][:2] == ["x", "y"]
        torch.testing.assert_close(as_xy(columns), model(image))
        for name, column in columns.items():
            assert not name.endswith("_true")
            assert column.shape == (5,), name
            assert column.dtype == torch.float32, name
            assert column.isfinite().all(), name
        figures = figures_of({**columns, **true(xy)})
        assert figures.keys() >= figures_of(predicted(as_xy(columns), xy)).keys()
        assert all(type(value) in (int, float) for value in figures.values())

    def test_whole_images_in_memory(self, model: PointRegressor) -> None:
        """Bytes, 16 bits and floats; one image, several, and more than a batch."""
        image, _ = pixels(5, 32, 32)
        grey = image[:, 0].numpy()
        with torch.no_grad():
            expected = model.estimate(image)
        for images in (grey, 255 * grey.astype(np.uint8), 65535 * grey.astype(np.uint16)):
            found = model.predict(images, batch_size=2)
            assert [*found][-2:] == ["score", "flag"]
            assert {*found} == {*expected, "score", "flag"}
            assert found["score"].shape == (5,)
            assert np.isfinite(found["score"]).all()
            for name, column in expected.items():
                np.testing.assert_allclose(found[name], column, atol=1e-4, err_msg=name)
        assert model.predict(grey[3])["x"] == pytest.approx([expected["x"][3].item()], abs=1e-4)
        if not model.any_size:
            with pytest.raises(ValueError, match=r"expected images \(N, 32, 32\)"):
                model.predict(grey[:, :4])

    @pytest.mark.parametrize(
        "shape", [(2, 1, 32, 31), (2, 1, 31, 32), (2, 3, 32, 32), (1, 32, 32), (2, 1, 64, 64)]
    )
    def test_images_of_another_shape_are_refused(
        self, model: PointRegressor, shape: tuple[int, ...]
    ) -> None:
        if model.any_size and shape[:2] == (2, 1):
            assert model(torch.zeros(shape)).shape == (2, 2)
            return
        with pytest.raises(ValueError, match="expected images"):
            model(torch.zeros(shape))

    @torch.no_grad()
    def test_pixels_without_a_value_disturb_none_that_takes_them(
        self, model: PointRegressor
    ) -> None:
        image, xy = pixels(6, 32, 32)
        image = image[xy[:, 1] > 1]
        image[:, :, :2] = torch.nan
        assert as_xy(model.estimate(image)).isfinite().all() == model.takes_gaps

    @torch.no_grad()
    def test_a_prediction_does_not_depend_on_its_batch(self, model: PointRegressor) -> None:
        image, _ = pixels(6, 32, 32)
        one_by_one = torch.cat([model(one) for one in image.split(1)])
        torch.testing.assert_close(model(image), one_by_one, atol=1e-4, rtol=0)

    @torch.no_grad()
    def test_one_of_any_size_finds_there_what_it_finds_here(
        self, choice: str, model_files: ModelFiles
    ) -> None:
        model = build(choice, model_files).eval()
        if not model.any_size:
            with pytest.raises(UserError, match="takes images of 32x32 px, not of 48x40 px"):
                model.search((48, 40))
            return
        image, _ = pixels(6, 32, 32)
        model.search((48, 40))
        answers = model(F.pad(image, (0, 8, 0, 16)))
        assert answers.shape == (6, 2)
        assert (answers > -1).all()
        assert (answers < torch.tensor([40, 48])).all()

    @torch.no_grad()
    def test_images_need_not_be_square(self, choice: str, model_files: ModelFiles) -> None:
        model = build(choice, model_files, "[32,48]").eval()
        image, _ = pixels(3, 32, 48)
        assert model(image).shape == (3, 2)
        if not model.any_size:
            with pytest.raises(ValueError, match="expected images"):
                model(image.mT)

    def test_the_head_is_exempt_from_autocast(self, model: PointRegressor) -> None:
        seen: list[torch.dtype] = []
        inside: list[torch.dtype] = []
        head = [*model.head.modules()] if hasattr(model, "head") else []  # estimators have none
        hooks = [
            *(
                layer.register_forward_hook(lambda _m, _i, output: inside.append(output.dtype))
                for layer in model.features.modules()
                if isinstance(layer, nn.Conv2d | nn.Linear)
            ),
            *(
                layer.register_forward_hook(
                    lambda _m, given, output: seen.extend(
                        value.dtype
                        for value in (
                            given[0],
                            *(output.values() if isinstance(output, dict) else [output]),
                        )
                    )
                )
                for layer in head
            ),
        ]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            columns = model.estimate(pixels(2, 32, 32)[0])
        for hook in hooks:
            hook.remove()
        assert {column.dtype for column in columns.values()} == {torch.float32}
        assert {*seen} == ({torch.float32} if head else set())
        assert not inside or torch.bfloat16 in inside, "autocast was not on at all"

    @torch.no_grad()
    def test_rebuilding_fetches_and_reads_nothing(
        self, model: PointRegressor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            raise AssertionError("rebuild() went to a file or the network")

        hparams = dict(model.hparams)
        for target in ("torch.load", "torch.hub.load_state_dict_from_url", "pathlib.Path.open"):
            monkeypatch.setattr(target, refuse)
        for weights in (hparams.get("weights"), "IMAGENET1K_V1", "no/such/file.pth"):
            if "weights" in hparams:
                hparams["weights"] = weights
            again = type(model).rebuild(hparams)
            again.load_state_dict(model.state_dict())
            image, _ = pixels(2, 32, 32)
            assert torch.equal(again.eval()(image), model(image))

    def test_it_learns_a_batch_by_heart(self, choice: str, model_files: ModelFiles) -> None:
        chosen = [*CPU, f"model={choice}", "data.image_size=32", "scheduler=constant"]
        torch.manual_seed(0)
        lr = max(0.003, compose(chosen).optim.lr)
        model = make(model_files.compose([*chosen, f"optim.lr={lr}"]), choice)[1].train()
        made = model.configure_optimizers()
        if made is None:
            pytest.skip("a model that is solved rather than trained")
        (optimizer,), _ = made
        image, xy = pixels(8, 32, 32)
        errors = []
        for _ in range(150):
            with torch.no_grad():
                errors.append(errors_px(predicted(model(image), xy)).mean().item())
            if errors[-1] < 0.15 * errors[0]:
                break
            optimizer.zero_grad()
            model.training_loss(image, true(xy)).backward()
            optimizer.step()
        assert errors[-1] < 0.15 * errors[0], errors[::10]

    def test_a_reloaded_checkpoint_predicts_the_same(
        self, choice: str, model_files: ModelFiles, tmp_path: Path
    ) -> None:
        model = build(choice, model_files)
        data = PixelDataModule(image_size=32, train_samples=16, batch_size=8, seed=5)
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        before = copy.deepcopy(model.state_dict())
        trainer.fit(model, data)
        assert isinstance(model, SolvedRegressor) or any(
            not torch.equal(before[name], value) for name, value in model.state_dict().items()
        )
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        again, trained_on = load_model(tmp_path / "model.ckpt")
        assert type(again) is type(model)
        assert not again.training
        image, _ = pixels(4, 32, 32)
        with torch.no_grad():
            assert torch.equal(again(image), model.eval()(image))
        assert dict(trained_on.hparams) == dict(data.hparams)


class Constant(PointRegressor):
    """Answers with the same point always."""

    def __init__(self, xy_px: tuple[float, float]) -> None:
        super().__init__(4)
        self.features = nn.Flatten()
        self.head = PointHead()
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor(xy_px))


class PointHead(nn.Linear):
    def __init__(self) -> None:
        super().__init__(16, 2)

    def forward(self, features: torch.Tensor) -> Columns:
        return as_columns(super().forward(features))


def test_loss_and_its_gradient_by_hand() -> None:
    model = Constant((1.0, 2.0))
    xy = torch.tensor([[3.0, 5.0], [1.0, 1.0]])
    loss = model.training_loss(torch.zeros(2, 1, 4, 4), true(xy))
    assert loss.item() == (4 + 9 + 0 + 1) / 4
    loss.backward()
    assert model.head.bias.grad.tolist() == [2 * (-2 + 0) / 4, 2 * (-3 + 1) / 4]


def test_a_negative_learning_rate_is_the_users_to_correct() -> None:
    with pytest.raises(UserError, match="learning rate"):
        make(compose([*CPU, "optim.lr=-1"]), "heatmap")


@pytest.mark.parametrize("start", [train, dry_run])
def test_images_with_gaps_are_refused_before_the_work(
    start: Callable[..., object], tmp_path: Path
) -> None:
    small = ["data=spots", "data.image_size=16", "data.margin_px=2", "data.train_samples=32"]
    cfg = compose([*CPU, "model=cnn", *small, "data.cut_probability=0.5"])
    with pytest.raises(UserError, match=r"cnn takes no images with .*data\.cut_probability"):
        start(cfg, tmp_path / "run", "cnn")


def test_training_without_an_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match="optimizer_factory"):
        Constant((1.0, 2.0)).configure_optimizers()
