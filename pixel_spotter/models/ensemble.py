"""Several models that answer together."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from pixel_spotter.arguments import require, require_whole
from pixel_spotter.coordinates import Columns, as_columns
from pixel_spotter.errors import UserError
from pixel_spotter.models.base import PointRegressor, class_name
from pixel_spotter.models.loading import describe_model, load_described, rebuild_model
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.models.trained import TrainedBefore


class Answers(PointRegressor):
    """What ensembles share: members, whose mean is the answer and whose spread tells of doubt."""

    def assemble(self, members: Sequence[PointRegressor]) -> None:
        """Set the members, all of which must be for images of the ensemble's size."""
        if any(member.size != self.size for member in members):
            own, *others = ("x".join(map(str, one.size)) for one in (self, *members))
            raise UserError(
                f"an ensemble for images of {own} px cannot have members for images of "
                f"{', '.join(others)} px"
            )
        self.members = list(members)
        self.any_size = all(member.any_size for member in members)
        self.features = nn.ModuleDict({"members": nn.ModuleList(members)})

    def estimate(self, image: Tensor) -> Columns:
        """Estimate the members' mean, and their root mean square distance from it, px."""
        xy_px = torch.stack([member(image) for member in self.members], dim=1)
        mean = xy_px.mean(dim=1)
        spread = (xy_px - mean[:, None]).square().sum(dim=-1).mean(dim=1).sqrt()
        return {**as_columns(mean), "spread_px": spread}


class EnsembleRegressor(Answers):
    """Members of one kind, trained side by side: the same batches, different first weights.

    Their losses add up, so that each of them is trained as it would be alone.

    Args:
        image_size: side of the square image, or [height, width], px.
        members: how many.
        member: makes a member.
    """

    def __init__(
        self, image_size: int | Sequence[int], members: int, member: Callable[[], PointRegressor]
    ) -> None:
        super().__init__(image_size)
        require_whole("model.members", members, 2)
        made = [member() for _ in range(members)]
        kind = type(made[0])
        if issubclass(kind, Answers | SolvedRegressor):
            what = "an ensemble itself" if issubclass(kind, Answers) else "solved"
            raise UserError(
                f"model.member: {kind.__name__} cannot be an ensemble's member: it is {what}, not "
                f"trained from different first weights"
            )
        hparams: dict[str, Any] = {"image_size": image_size, "members": members}
        hparams |= {"member_class": class_name(kind), "member_hparams": dict(made[0].hparams)}
        self.save_hyperparameters(hparams, logger=False)
        self.assemble(made)

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any], trust: Sequence[str] = ()) -> Self:
        member = partial(rebuild_model, hparams["member_class"], hparams["member_hparams"], trust)
        return cls(hparams["image_size"], hparams["members"], member)

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return the sum of the members' own losses."""
        return torch.stack([member.training_loss(image, truth) for member in self.members]).sum()


class CheckpointEnsemble(Answers, TrainedBefore):
    """Models trained before, of any kind, put together.

    Their training positions count as seen: an ensemble of runs with different ``data.seed`` is
    tested on positions that one of them was trained on, and says so.

    Args:
        image_size: side of the square image, or [height, width], px.
        checkpoints: files; or what such files say of their model, without its weights.
        trust: modules of the user's own that the members may come from.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        checkpoints: Sequence[str | Mapping[str, Any]],
        trust: Sequence[str] = (),
    ) -> None:
        super().__init__(image_size)
        several = not isinstance(checkpoints, str) and len(checkpoints) > 1
        require(several, "model.checkpoints", "two at least: [a.ckpt,b.ckpt]", checkpoints)
        loaded = [load_described(checkpoint, trust) for checkpoint in checkpoints]
        described = [describe_model(model, trained_on) for model, trained_on in loaded]
        hparams = {"image_size": image_size, "checkpoints": described}
        self.save_hyperparameters(hparams, logger=False)
        self.trained_on = [data for _, trained_on in loaded for data in trained_on]
        self.assemble([model for model, _ in loaded])
