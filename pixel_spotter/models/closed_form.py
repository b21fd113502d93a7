"""An estimator as a model, so that every study can have it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixel_spotter import estimators
from pixel_spotter.arguments import check_arguments, require
from pixel_spotter.coordinates import Columns, Size
from pixel_spotter.errors import UserError
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.maps import read_map
from pixel_spotter.simulation.psf import kept_psf, make_psf


class ClosedForm(SolvedRegressor):
    """Answers with an estimator of `pixel_spotter.estimators`: there is nothing to train.

    Args:
        image_size: side of the square image, or [height, width], px.
        estimator: the function's name.
        settings: of the function: its own arguments, such as ``sigma_px``.
        margin_px: no spot is looked for closer to the image's edge, px, if the estimator looks.
        psf: the arguments of `make_psf`, for estimators that fit one; None is a round Gaussian.
        camera: those of `Camera`, from which estimators get ``saturation`` and ``excess_noise``;
            they are not told its read noise.

    Raises:
        UserError: if there is no such estimator, or it cannot have such settings.
    """

    any_size = True
    takes_gaps = True

    def __init__(
        self,
        image_size: int | Sequence[int],
        estimator: str,
        settings: Mapping[str, Any] | None = None,
        margin_px: float = 0,
        psf: Mapping[str, Any] | None = None,
        camera: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        names = estimators.__all__
        require(estimator in names, "model.estimator", f"one of {', '.join(names)}", estimator)
        self.estimator = getattr(estimators, estimator)
        taken = inspect.signature(self.estimator).parameters
        own = [name for name in taken if name not in ("image", "margin_px", "psf")]
        for name in settings or {}:
            if name not in own:
                has = ", ".join(own) or "no settings"
                raise UserError(f"model.settings.{name}: {estimator} has {has}")
        self.settings = dict(settings or {})
        if isinstance(self.settings.get("read_noise"), str):
            noise = read_map(self.settings["read_noise"], "model.settings.read_noise")
            self.settings["read_noise"] = noise
            self.hparams["settings"] = {**self.settings}  # a checkpoint needs no other file
        check_arguments(self.estimator, self.settings, "model.settings")
        if camera is not None:
            camera = {name: value for name, value in camera.items() if name != "read_noise"}
            check_arguments(Camera, camera, "camera")
            self.hparams["camera"], known = camera, Camera(**camera)
            told = {"saturation": known.saturation, "excess_noise": known.excess_noise}
            self.settings = {k: v for k, v in told.items() if k in taken} | self.settings
        if "margin_px" in taken:
            self.settings["margin_px"] = int(margin_px)
        if psf is not None and "psf" in taken:
            self.settings["psf"] = make_psf(**psf)
            self.hparams["psf"] = kept_psf(psf, self.settings["psf"])
        self.estimator(torch.zeros(1, *self.size), **self.settings)  # refuses what cannot be
        self.features = nn.Identity()

    def search(self, size: Size, margin_px: float = 0) -> None:
        """Look for spots in images of this size no closer to the edge than the margin."""
        if "margin_px" in self.settings:
            self.settings["margin_px"] = int(margin_px)
        self.estimator(torch.zeros(1, *size), **self.settings)  # refuses what cannot be
        super().search(size, margin_px)

    def decode(self, features: Tensor) -> Columns:
        """Return what the estimator makes of images (B, 1, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            columns: Columns = self.estimator(features[:, 0], **self.settings)
        return columns
