"""Whether an answer is one: what can be told from the image and from what a model has seen."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pixel_spotter.coordinates import FLAGS, Columns, as_xy, pixel_of, sides_px
from pixel_spotter.data.base import PointData
from pixel_spotter.estimators.finder import WIDTH_PX

_SAMPLES = 256
"""So many training samples tell what images look like."""

_SLACK = 0.02
"""By so much, of the brightest value of training, and by a tenth of its range, looks may differ."""


def looks(image: Tensor) -> Tensor:
    """Return what images (B, 1, H, W) look like, wherever their point is: (B, 4).

    That are the darkest value, the median, the distance between the 10% and the 90% quantile,
    which is the background's spread, and the brightest value.
    """
    ordered = image.flatten(1).sort(dim=1).values
    last = ordered.shape[1] - 1
    darkest, low, median, high, brightest = (
        ordered[:, round(share * last)] for share in (0, 0.1, 0.5, 0.9, 1)
    )
    return torch.stack([darkest, median, high - low, brightest], dim=1)


def familiar_looks(trained_on: Iterable[PointData]) -> Tensor:
    """Return the lowest and the highest `looks` that pass for those of training data: (2, 4)."""
    seen = torch.cat(
        [
            looks(data.batch("train", 0, torch.arange(min(_SAMPLES, data.counts["train"]))).image)
            for data in trained_on
        ]
    )
    low, high = seen.amin(dim=0), seen.amax(dim=0)
    slack = _SLACK * high[-1].abs() + 0.1 * (high - low)
    return torch.stack([low - slack, high + slack])


def score(columns: Columns, image: Tensor) -> Tensor:
    """Return how many standard deviations what is at the answers stands out of the noise.

    Whatever the model: the brightness there of a pixel, or of a Gaussian of `WIDTH_PX`, whichever
    stands out more, over the deviation that noise gives it. Noise and background are the whole
    image's; see `noise`.

    Args:
        columns: ``x`` and ``y``, px, (B,) each; answers outside belong to the nearest pixel.
        image: what they were estimated from, (B, 1, H, W); pixels without a value are nan.

    Returns:
        (B,), finite: below 0 where it is darker than the background; 0 where there is no answer, or
        no difference in the image.
    """
    image = image[:, 0].float()
    size = (image.shape[1], image.shape[2])
    xy_px = as_xy(columns).float()
    answered = xy_px.isfinite().all(dim=1)
    xy_px = torch.where(answered[:, None], xy_px, 0)
    xy_px = xy_px.clamp(min=0).minimum(sides_px(size, xy_px) - 1)
    background, deviation = noise(image)
    seen = image.isfinite().to(image)
    above = (image - background[:, None, None]).nan_to_num()

    def along(axis: int) -> Tensor:
        place = torch.arange(size[1 - axis], device=image.device)
        return torch.exp(-((place - xy_px[:, axis, None]) / WIDTH_PX).square() / 2)

    def total(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
        return (down[:, None] @ pixels @ across[:, :, None])[:, 0, 0]

    across, down = along(0), along(1)
    energy = total(seen, across.square(), down.square()).clamp(min=1e-12)
    spot = total(above, across, down) / energy.sqrt()
    column, row = pixel_of(xy_px, size).T
    pixel = above[torch.arange(len(above), device=image.device), row, column]
    stands_out = torch.maximum(pixel, spot) / deviation
    return torch.where(answered & (deviation > 0), stands_out, 0)


def noise(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of images (B, H, W) without what lies far off, (B,) each.

    What lies more than three deviations off is left out, again and again, as long as what is left
    differs: where all pixels but few are equal, as in clean images, the few count as noise.
    """
    pixels = image.flatten(1)
    kept = pixels.isfinite()
    mean = deviation = torch.zeros_like(pixels[:, 0])
    for _ in range(10):
        count = kept.sum(dim=1).clamp(min=1)
        dark = torch.where(kept, pixels, torch.inf).amin(dim=1)
        bright = torch.where(kept, pixels, -torch.inf).amax(dim=1)
        above = torch.where(kept, pixels - dark[:, None], 0)  # of which sums are more exact
        closer = above.sum(dim=1) / count
        square = torch.where(kept, above - closer[:, None], 0).square().sum(dim=1) / count
        mean = torch.where(dark < bright, dark + closer, mean)
        deviation = torch.where(dark < bright, square.sqrt(), deviation)
        before, kept = kept, (pixels - mean[:, None]).abs() <= 3 * deviation[:, None]
        if torch.equal(kept, before):
            break
    return mean, deviation


def with_flag(columns: Columns, image: Tensor, familiar: Tensor | None) -> Columns:
    """Add the column ``flag`` to a model's answers, and take back those that are none.

    Args:
        columns: ``x``, ``y``, px, and others, (B,) each.
        image: what they were estimated from, (B, 1, H, W).
        familiar: the looks that images had in training, as `familiar_looks` has them, if known.

    Returns:
        The columns, nan for images without any difference, and an index of `FLAGS`.
    """
    look = looks(image)
    xy_px = as_xy(columns)
    sides = sides_px((image.shape[2], image.shape[3]), xy_px)
    outside = ((xy_px < -0.5) | (xy_px > sides - 0.5)).any(dim=1)
    nothing = (look[:, 3] <= look[:, 0]) | ~xy_px.isfinite().all(dim=1)
    unlike = torch.zeros_like(nothing)
    if familiar is not None:
        low, high = familiar.to(look)
        unlike = ((look < low) | (look > high)).any(dim=1)
    flag = torch.zeros_like(xy_px[:, 0])
    for name, where in {
        "unlike training": unlike,
        "outside": outside,
        "nothing found": nothing,
    }.items():
        flag = torch.where(where, float(FLAGS.index(name)), flag)
    kept = {name: torch.where(nothing, torch.nan, column) for name, column in columns.items()}
    return {**kept, "flag": flag}
