"""A network that finds a camera's spot, and says how exactly: made for what breaks fits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from pixel_spotter.coordinates import Columns, Size, as_xy
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import Windows, find, windows
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.simulation.psf import PSF, kept_psf, make_psf

_FAR = 6.0
"""Residuals of more predicted deviations than this count linearly, not squared."""

_BRIGHTEST = 8.0
"""What a window's pixel is at most, in heights of the spot."""

_UNLIKE = 0.2
"""By so much, of its logarithm, height, background or spread may be beyond a training batch's."""

_SD_PX = (1e-3, 10.0)
"""The smallest and the largest deviation that is predicted."""


class Look(NamedTuple):
    """What a window looks like, whatever its brightness.

    Args:
        image: (B, w, w), about 0 in the background and 1 on the spot, with about the same noise
            everywhere: a square root of photons.
        height: of the spot above the background, photons per pixel, (B,).
        background: photons per pixel, (B,).
        spread: of the background's pixels, photons, (B,); both from quantiles of the window's two
            outermost rings.
    """

    image: Tensor
    height: Tensor
    background: Tensor
    spread: Tensor


class SpotterRegressor(PointRegressor):
    """Looks where a spot stands out most, and with a perceptron at a window around it.

    The perceptron sees the window as `look` shows it, which of its pixels were seen, and the
    logarithms of height, background and spread. It answers along x only; what it says of the
    transposed window is its answer along y. A mirror image moves its answer to the other side by
    construction: that is half the difference of what it says of the window and of its mirror image.
    Spots of a point-spread function that is not its own mirror image, or looks else when
    transposed, are not so: told such a one, it answers along both axes, of the window as it is.

    It learns by the likelihood of a Gaussian that has the deviations which it predicts. Of two
    spots it answers for the one that is closer to the pixel that stands out most. It flags windows
    whose height, background or spread lies outside what it was trained on.

    Args:
        image_size: side of the square image, or [height, width], px, that it is trained on; it
            takes any other that its window fits in.
        window: side of the window, px, odd.
        widths: of the hidden layers.
        margin_px: in images of the size that it is trained on, no spot is looked for closer to
            the edge, px.
        psf: the arguments of `make_psf` that its spots are made with; None is a round Gaussian.
    """

    any_size = True
    takes_gaps = True
    learns_in_bfloat16 = True

    def __init__(
        self,
        image_size: int | Sequence[int],
        window: int = 13,
        widths: Sequence[int] = (256, 256, 128),
        margin_px: float = 0,
        psf: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        if window < 5 or window % 2 == 0:
            raise ValueError(f"model.window must be an odd number of at least 5 px, got {window}")
        if min(widths, default=0) < 1:
            raise ValueError(f"model.widths must be widths of at least 1, got {list(widths)}")
        self.window = window
        self.search(self.size, margin_px)
        layers: list[nn.Module] = []
        inputs = [2 * window**2 + 3, *widths]
        for before, after in zip(inputs, widths, strict=False):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.features = nn.Sequential(*layers)
        self.symmetric = True
        if psf is not None:
            made = make_psf(**psf)
            self.hparams["psf"], self.symmetric = kept_psf(psf, made), _is_symmetric(made, window)
        # Where it is, the logarithm of its deviation, and those of photons and background; where
        # the answer along x is not also that along y, there are two of the first two.
        self.head = nn.Linear(inputs[-1], 4 if self.symmetric else 6)
        # Where the inputs stand in the window, its mirror image, and both transposed.
        place = torch.arange(window**2).view(window, window)
        ways = torch.stack([place, place.flip(1), place.mT, place.mT.flip(1)]).flatten(1)
        logs = torch.arange(2 * window**2, inputs[0]).expand(4, -1)
        self.ways = nn.Buffer(torch.cat([ways, ways + window**2, logs], dim=1), persistent=False)
        # The lowest and the highest logarithms of a batch that it was trained on, on average.
        self.met = nn.Buffer(torch.full((2, 3), torch.nan))
        # Deviations that start too small end at the largest: nothing would be learned any more.
        start = [0.0, 2.0, 0.0, 0.0] if self.symmetric else [0.0, 0.0, 2.0, 2.0, 0.0, 0.0]
        self.head.bias.data = torch.tensor(start)

    def search(self, size: Size, margin_px: float = 0) -> None:
        """Look for spots in images of this size no closer to the edge than the margin."""
        if not 0 <= 2 * margin_px < min(size):
            raise ValueError(
                f"model.margin_px must leave a part of {size[0]}x{size[1]} px, got {margin_px}"
            )
        if self.window > min(size):
            raise ValueError(
                f"model.window={self.window} px is larger than images of {size[0]}x{size[1]} px"
            )
        self.size, self.margin_px = size, int(margin_px)

    def estimate(self, image: Tensor) -> Columns:
        """Estimate ``x, y, sd_x, sd_y``, px, ``photons, background`` and ``flag``, (B,) each.

        Args:
            image: (B, 1, H, W), photons, of any size; pixels without a value are nan.
        """
        if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[2:]) < self.window:
            raise ValueError(
                f"expected images (B, 1, H, W) of at least {self.window} px, got "
                f"{tuple(image.shape)}"
            )
        parts, logs, xy, others = self._read(image[:, 0])
        beyond = torch.maximum(self.met[0] - logs, logs - self.met[1]).amax(dim=1)
        unlike = ~(beyond < _UNLIKE)  # before any training, all is
        return answers(parts, image[:, 0], xy, {"unlike training": unlike}, **others)

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return minus the logarithm of the position's likelihood, and a little of the light's.

        Where there are two spots, the position is that of the one closer to where it looked.
        """
        parts, logs, xy, others = self._read(image[:, 0])
        extremes = _over_devices(torch.stack([*logs.detach().aminmax(dim=0)]))
        self.met.copy_(torch.where(self.met.isnan(), extremes, self.met.lerp(extremes, 0.01)))
        meant = _meant(truth, parts.corner + self.window // 2)
        sd = torch.stack([others["sd_x"], others["sd_y"]], dim=1)
        far = (xy + parts.corner - as_xy(meant, "_true")).abs() / sd
        loss = torch.where(far < _FAR, far.square() / 2, _FAR * far - _FAR**2 / 2) + sd.log()
        light = [
            (others[name] / meant[f"{name}_true"]).log().abs().mean()
            for name in ("photons", "background")
            if f"{name}_true" in meant
        ]
        return loss.mean() + 0.1 * sum(light)

    def _read(self, image: Tensor) -> tuple[Windows, Tensor, Tensor, Columns]:
        """Return where it looked in images (B, H, W), and what it read there.

        That are the logarithms of height, background and spread, (B, 3), the spots' places, (B, 2),
        and the other columns.
        """
        same = (image.shape[1] == self.size[0]) & (image.shape[2] == self.size[1])
        margin = torch.sym_ite(same, self.margin_px, 0)  # which exports as what it is
        with torch.autocast(image.device.type, enabled=False):
            parts = windows(image, find(image, margin), self.window)
        seen = look(parts)
        logs = torch.stack([seen.height, seen.background, seen.spread], dim=1).log()
        shown = torch.cat([seen.image.flatten(1), parts.seen.flatten(1).to(image), logs], dim=1)
        offset, log_sd, light = self._perceive(shown)
        # For a Gaussian of 1.2 px, about: the perceptron says what is different.
        usual = ((1 / seen.height + 4 * (seen.spread / seen.height).square()).sqrt() / 2).log()
        sd = (usual[:, None] + log_sd).clamp(*map(math.log, _SD_PX)).exp()
        photons, background = light.exp().unbind(dim=1)
        return (
            parts,
            logs,
            offset + self.window // 2,
            {
                "sd_x": sd[:, 0],
                "sd_y": sd[:, 1],
                "photons": photons * seen.height * 9,
                "background": background * seen.background,
            },
        )

    def _perceive(self, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return offset, log deviations, log photons and background, (B, 2) each."""
        if self.symmetric:
            shown = shown[:, self.ways].flatten(0, 1)
        features = self.features(shown).float()
        with torch.autocast(features.device.type, enabled=False):
            said = self.head(features)
        if not self.symmetric:
            return said[:, :2], said[:, 2:4], said[:, 4:]
        said = said.view(-1, 2, 2, 4)  # along x and y, straight and mirrored
        along, log_sd = said[..., 0], said[..., 1].mean(dim=2)
        return (along[..., 0] - along[..., 1]) / 2, log_sd, said[..., 2:].mean(dim=(1, 2))


def look(parts: Windows) -> Look:
    """Scale windows so that spots of all brightnesses look alike; see `Look`."""
    side = parts.image.shape[-1]
    border = torch.ones(side, side, dtype=torch.bool, device=parts.seen.device)
    border[2:-2, 2:-2] = False
    seen = parts.seen[:, border]
    ordered = torch.where(seen, parts.image[:, border], torch.inf).sort(dim=1).values
    last = (seen.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    low, middle = (
        ordered.gather(1, (share * last).long())[:, :, None].nan_to_num(posinf=0)
        for share in (0.1, 0.4)
    )
    background, spread = middle.clamp(min=0.1), (middle - low).clamp(min=0.1)
    inner = slice(side // 2 - 1, side // 2 + 2)
    lit = parts.seen[:, inner, inner]
    peak = (parts.image[:, inner, inner] * lit).sum(dim=(1, 2), keepdim=True)
    height = peak / lit.sum(dim=(1, 2), keepdim=True).clamp(min=1) - background
    height = torch.maximum(height, spread)
    # Anscombe's square root, with the variance beyond shot noise that the spread tells of.
    more = (spread.square() - background).clamp(min=0) + 3 / 8
    root = (parts.image + more).clamp(min=0).sqrt()
    black, white = (background + more).sqrt(), (background + height + more).sqrt()
    # A neighbour far brighter than the spot would otherwise be all that is seen.
    image = ((root - black) / (white - black)).clamp(-_BRIGHTEST, _BRIGHTEST) * parts.seen
    return Look(image, height[:, 0, 0], background[:, 0, 0], spread[:, 0, 0])


def _over_devices(extremes: Tensor) -> Tensor:
    """Return the least and the greatest, (2, ...), of the batch that devices share."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return extremes
    extremes = torch.stack([-extremes[0], extremes[1]])
    distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
    return torch.stack([-extremes[0], extremes[1]])


def _is_symmetric(psf: PSF, window: int) -> bool:
    """Tell whether a spot in the middle is its own mirror image, and the same when transposed."""
    share = psf.share(torch.full((2,), window // 2).float(), torch.ones(()), (window, window))
    others = torch.stack([share.flip(0), share.flip(1), share.mT])
    return bool((others - share).abs().max() <= 1e-3 * share.max())


def _meant(truth: Columns, centre: Tensor) -> Columns:
    """Return the truth of the spot that is closer to pixels (B, 2): of it, or of its neighbour."""
    if "neighbour_x_true" not in truth:
        return truth
    names = ("x_true", "y_true", "photons_true")
    other = {name: truth[f"neighbour_{name}"] for name in names}
    first, second = ((as_xy(one, "_true") - centre).square().sum(dim=1) for one in (truth, other))
    swap = (second < first) & (other["photons_true"] > 0)
    return {**truth, **{name: torch.where(swap, other[name], truth[name]) for name in names}}
