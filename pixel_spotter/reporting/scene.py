"""Pictures of a spot before a camera, as pages hold them: SVG and HTML, without a script."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from pixel_spotter.reporting.groups import Section
from pixel_spotter.reporting.overview import inlined
from pixel_spotter.reporting.page import environment

_REACHES_PX = (0.02, 0.04, 0.06, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0, 4.0)
"""How far a picture of answers may reach from the spot, along each axis."""


class Ellipse(NamedTuple):
    """One standard deviation of a Gaussian: half axes, px, and the angle of the first, degrees."""

    a: float
    b: float
    angle: float


class Row(NamedTuple):
    """How an estimator does.

    Args:
        name: of the estimator.
        colour: that its answers have in pictures; empty if they are not.
        error: distance of the answer for this image from the spot, px.
        sd: the deviation that it claims, px.
        rmse: root mean square over all images, px.
        over: that, over the bound.
        others: the share of answers that are for the neighbour.
        flag: why to doubt the answer, in words.
    """

    name: str
    colour: str
    error: float
    sd: float
    rmse: float
    over: float
    others: float
    flag: str


def camera(
    image: np.ndarray,
    spots: np.ndarray,
    covariances: np.ndarray,
    answers: Mapping[str, tuple[str, np.ndarray]],
) -> str:
    """Draw a camera's image, where its spots truly are, their bounds, and what is answered.

    Args:
        image: photons, (H, W).
        spots: ``x`` and ``y``, px, (K, 2): the spot, and its neighbour if there is one.
        covariances: of the bound, (K, 2, 2), or nan.
        answers: by estimator, its colour and position (2,).
    """
    height, width = image.shape
    low, high = image.min(), max(image.max(), image.min() + 1e-9)
    grey = Image.fromarray(((image - low) / (high - low) * 255).astype(np.uint8))
    file = io.BytesIO()
    grey.save(file, format="png")
    return _draw(
        "camera",
        png=base64.b64encode(file.getvalue()).decode(),
        width=width,
        height=height,
        spots=[(*map(float, xy), ellipse(c)) for xy, c in zip(spots, covariances, strict=True)],
        answers=[(name, colour, *map(float, xy)) for name, (colour, xy) in answers.items()],
        ticks_x=range(0, width, 6),
        ticks_y=range(0, height, 6),
    )


def close_up(
    covariance: np.ndarray, away: Mapping[str, tuple[str, np.ndarray]], side: float = 280
) -> str:
    """Draw answers around a spot, for many images, beside the bound.

    Args:
        covariance: of the bound, (2, 2), or nan.
        away: by estimator, its colour, and answers less the spot's position, px, (N, 2), nan if
            they are for another; the first is that for the image that is shown.
        side: of the picture, in its own units.
    """
    bound = ellipse(covariance)
    wanted = 3.5 * bound.a if bound else 1.0
    reach = next((r for r in _REACHES_PX if r >= wanted), _REACHES_PX[-1])
    scale = side / 2 / reach
    clouds = []
    for name, (colour, px) in away.items():
        at = px * scale
        inside = at[(np.abs(at) <= side / 2).all(axis=1)]
        first, edge = at[0], side / 2 - 7
        beyond = bool((np.abs(first) > side / 2).any())
        angle = math.degrees(math.atan2(first[1], first[0])) if beyond else None
        first = first * (edge / np.abs(first).max()) if beyond else first
        mark = (*first.tolist(), angle) if np.isfinite(first).all() else None
        clouds.append((name, colour, inside.round(1).tolist(), mark))
    drawn = bound and Ellipse(bound.a * scale, bound.b * scale, bound.angle)
    tops = [k * math.sqrt(covariance[1, 1]) * scale for k in (1, 2)] if bound else []
    return _draw(
        "close_up",
        side=side,
        ticks=[(t * side / 4, f"{t * reach / 2:g}") for t in range(-2, 3)],
        bound=drawn,
        tops=tops,
        sd=[math.sqrt(covariance[k, k]) for k in (0, 1)] if bound else None,
        clouds=clouds,
    )


def table(rows: Sequence[Row], count: int, neighbour: bool) -> str:
    """Write how estimators do, with so many images; and whose answers, if there is a neighbour."""
    unsure = 1.96 / math.sqrt(4 * count)  # of an rmse of so many answers along two axes
    return _draw("table", rows=rows, count=count, neighbour=neighbour, unsure=unsure)


def found(headline: str, remarks: Sequence[str], sections: Sequence[Section]) -> str:
    """Write what was found in a file, what is to be remarked on it, and its pictures."""
    return _draw("found", headline=headline, remarks=remarks, sections=sections, inlined=inlined)


def rows(first: pd.DataFrame, count: int) -> str:
    """Write the first of so many rows of a table of spots."""
    lines = [
        [f"{value:.3f}" if isinstance(value, float) else value for value in line]
        for line in first.itertuples(index=False)
    ]
    return _draw("rows", names=[*first.columns], lines=lines, count=count)


def mistake(message: str) -> str:
    """Write what went wrong."""
    return _draw("mistake", message=message)


def ellipse(covariance: np.ndarray) -> Ellipse | None:
    """Return one standard deviation of a covariance (2, 2); None if it is nan."""
    if not np.isfinite(covariance).all():
        return None
    variances, axes = np.linalg.eigh(covariance)
    (b, a), long = np.sqrt(variances.clip(min=0)), axes[:, 1]
    return Ellipse(float(a), float(b), math.degrees(math.atan2(long[1], long[0])))


def _draw(part: str, **values: Any) -> str:
    return str(getattr(environment.get_template("scene.html").module, part)(**values)).strip()
