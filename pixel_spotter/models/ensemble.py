"""Several models that answer together."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import errors_px
from pixel_spotter.models.base import OptimizerFactory, PointRegressor, SchedulerFactory
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.training.checkpoints import load_model, rebuild


class Answers(PointRegressor):
    """What ensembles share: members, whose mean is the answer and whose spread tells of doubt.

    The spread is the root mean square distance of the members' answers from their mean, px.
    """

    features: "Members"
    extras = ("spread_px",)

    def assemble(self, members: Sequence[PointRegressor], vectorized: bool | None) -> None:
        """Set the members; how they are asked, see `Members`.

        Raises:
            UserError: if they are for images of another size than the ensemble.
        """
        sizes = [f"{height}x{width}" for height, width in (member.size for member in members)]
        if any(member.size != self.size for member in members):
            height, width = self.size
            raise UserError(
                f"an ensemble for images of {height}x{width} px cannot have members for images "
                f"of {', '.join(sizes)} px"
            )
        self.features = Members(members, vectorized)
        self.head = Mean()

    def count_parameters(self) -> int:
        """Return how many numbers the members have learned."""
        return sum(member.count_parameters() for member in self.members)

    @property
    def members(self) -> list[PointRegressor]:
        """Return the members."""
        return [member for member in self.features.members if isinstance(member, PointRegressor)]

    def extra_estimates(self, features: Tensor) -> Tensor:
        """Return the spread, px: (B, K, 2) -> (B, 1)."""
        from_mean = features - features.mean(dim=1, keepdim=True)
        return from_mean.square().sum(dim=-1).mean(dim=1, keepdim=True).sqrt()

    def extra_figures(self, extra: Tensor, xy_pred: Tensor, xy_true: Tensor) -> dict[str, float]:
        """Return what a member reaches alone, and whether the spread tells where errors are.

        ``member_rmse_px`` is the root mean square error of the members by themselves, per axis;
        their squared error is that of their mean plus the squared spread.
        ``spread_error_correlation`` is Spearman's rank correlation of spread and error; left out
        where all spreads or all errors are the same.
        """
        error, spread = errors_px(xy_pred, xy_true).double(), extra[:, 0].double()
        member_mse = (error.square() + spread.square()).mean() / 2
        figures = {"member_rmse_px": member_mse.sqrt().item()}
        if error.min() < error.max() and spread.min() < spread.max():
            correlation = spearmanr(spread.numpy(), error.numpy()).statistic
            figures["spread_error_correlation"] = float(correlation)
        return figures


class EnsembleRegressor(Answers):
    """Members of one kind, trained side by side: the same batches, different first weights.

    Their losses add up, so that each of them is trained as it would be alone.

    Args:
        image_size: side of the square image, or [height, width], px.
        members: how many.
        member: makes a member.
        vectorized: see `Members`.
        optimizer: see `PointRegressor`.
        scheduler: see `PointRegressor`.

    Raises:
        ValueError: if there are fewer than two members.
        UserError: if such a model cannot be an ensemble's member.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        members: int,
        member: Callable[[], PointRegressor],
        vectorized: bool | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(image_size, optimizer, scheduler)
        if type(members) is not int or members < 2:
            raise ValueError(f"model.members must be a whole number of at least 2, got {members!r}")
        made = [member() for _ in range(members)]
        kind = type(made[0])
        if isinstance(made[0], Answers | SolvedRegressor):
            raise UserError(
                f"model.member: {kind.__name__} cannot be an ensemble's member: it is "
                f"{'an ensemble itself' if isinstance(made[0], Answers) else 'solved'}, not "
                f"trained from different first weights"
            )
        hparams = {
            "image_size": image_size,
            "members": members,
            "member_class": kind.class_name(),
            "member_hparams": dict(made[0].hparams),
            "vectorized": vectorized,
        }
        self.save_hyperparameters(hparams, logger=False)
        self.assemble(made, vectorized)

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any]) -> Self:
        """Rebuild from what the members were made of."""
        member = partial(rebuild, hparams["member_class"], hparams["member_hparams"])
        return cls(hparams["image_size"], hparams["members"], member, hparams["vectorized"])

    def training_loss(self, image: Tensor, xy_px: Tensor) -> Tensor:
        """Return the sum of the members' own losses."""
        return self.features.each("training_loss", image, xy_px).sum()


class CheckpointEnsemble(Answers, SolvedRegressor):
    """Models trained before, of any kind, put together.

    Their training positions count as seen: an ensemble of runs with different ``data.seed`` is
    tested on positions that one of them was trained on, and says so.

    Args:
        image_size: side of the square image, or [height, width], px.
        checkpoints: files; or what such files say of their model, without its weights.

    Raises:
        UserError: if a file cannot be used, or is of a model for images of another size.
    """

    def __init__(
        self, image_size: int | Sequence[int], checkpoints: Sequence[str | Mapping[str, Any]]
    ) -> None:
        super().__init__(image_size)
        if isinstance(checkpoints, str) or len(checkpoints) < 2:
            raise ValueError("model.checkpoints must be a list of at least two: [a.ckpt,b.ckpt]")
        loaded = [_load(checkpoint) for checkpoint in checkpoints]
        members = [model for model, _ in loaded]
        described = [
            {
                "model_class": model.class_name(),
                "hyper_parameters": dict(model.hparams),
                "datamodule_hyper_parameters": dict(data.hparams),
            }
            for model, data in loaded
        ]
        hparams = {"image_size": image_size, "checkpoints": described}
        self.save_hyperparameters(hparams, logger=False)
        self.trained_before = [
            trained_on for model, data in loaded for trained_on in (model.trained_before or [data])
        ]
        self.assemble(members, vectorized=False)


class Members(nn.Module):
    """Asks every member for images (B, 1, H, W): their xy_px (B, K, 2).

    Args:
        members: the K models.
        vectorized: whether members of one structure all go through one vectorized pass, or one
            after another; None vectorizes on a GPU, if the structure allows. On two CPU cores,
            one after another is faster (docs/models.md).

    Raises:
        UserError: if a vectorized pass is asked for that these members cannot go through.
    """

    def __init__(self, members: Sequence[PointRegressor], vectorized: bool | None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # Every member has running statistics of its own, and changes them: there is no one pass.
        if any(isinstance(layer, _BatchNorm) for layer in self.members.modules()):
            if vectorized:
                raise UserError(_cannot(members[0]))
            vectorized = False
        self.vectorized = vectorized

    def forward(self, image: Tensor) -> Tensor:
        """Return xy_px (B, K, 2)."""
        return self.each("forward", image).transpose(0, 1)

    def each(self, method: str, image: Tensor, *arguments: Tensor) -> Tensor:
        """Return what the method called so returns, of all members: (K, ...).

        Raises:
            UserError: if a vectorized pass is asked for that these members cannot go through.
        """
        if self.vectorized or (self.vectorized is None and image.is_cuda):
            try:
                return self._all_at_once(method, image, *arguments)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                if self.vectorized:
                    raise UserError(_cannot(self.members[0])) from error
                self.vectorized = False
        return torch.stack([getattr(member, method)(image, *arguments) for member in self.members])

    def _all_at_once(self, method: str, *arguments: Tensor) -> Tensor:
        asked = _Asked(self.members[0], method)
        weights = [dict(_Asked(member, method).named_parameters()) for member in self.members]
        stacked = {name: torch.stack([each[name] for each in weights]) for name in weights[0]}

        def ask(member_weights: dict[str, Tensor]) -> Tensor:
            answer: Tensor = functional_call(asked, member_weights, arguments)
            return answer

        answers: Tensor = vmap(ask, randomness="different")(stacked)
        return answers


def _cannot(member: nn.Module) -> str:
    return (
        f"model.vectorized=true: {type(member).__name__} cannot go through one vectorized pass; "
        f"leave it out"
    )


class _Asked(nn.Module):
    """Makes one of a member's methods what the module is called for."""

    def __init__(self, member: nn.Module, method: str) -> None:
        super().__init__()
        self.member = member
        self.method = method

    def forward(self, *arguments: Tensor) -> Tensor:
        answer: Tensor = getattr(self.member, self.method)(*arguments)
        return answer


class Mean(nn.Module):
    """Averages xy_px (B, K, 2) over the members: (B, 2)."""

    def forward(self, xy_px: Tensor) -> Tensor:
        """Return xy_px (B, 2)."""
        return xy_px.mean(dim=1)


def _load(checkpoint: str | Mapping[str, Any]) -> tuple[PointRegressor, PixelDataModule]:
    if isinstance(checkpoint, str):
        return load_model(Path(checkpoint))
    model = rebuild(checkpoint["model_class"], checkpoint["hyper_parameters"])
    return model, PixelDataModule(**checkpoint["datamodule_hyper_parameters"])
