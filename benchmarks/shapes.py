"""Measure what locate makes of spots of another shape than is told, and of structured backgrounds.

    python benchmarks/shapes.py

Shapes: 180 spots in six frames of 200x200 px, anywhere but in the outermost 10 px, on 10 photons a
pixel, camera told. A spot is found if a row lies within 1 px of it; all other rows are too many.
Backgrounds: ten empty frames of 256x256 px with 50 photons a pixel and more where it says so, 0.1
false alarms accepted in each, camera and width told, or nothing. Prints Markdown tables.
"""

from typing import Any

import numpy as np
import torch
from scipy.special import j1
from torch import Tensor

from pixel_spotter.models.locator import Locator
from pixel_spotter.simulation.psf import PSF, GaussianPSF, MeasuredPSF

WIDTH_PX = 1.1
CAMERA = {"gain": 1.0, "offset": 100.0, "read_noise": 0.0}
FRAMES, SPOTS, SIDE, MARGIN_PX = 6, 30, 200, 10
PHOTONS = (1e3, 1e4, 1e5)


def main() -> None:
    torch.set_num_threads(1)
    titles = [f"{photons:,.0f} photons" for photons in PHOTONS]
    print(f"| found, too many (flagged) | {' | '.join(titles)} |")
    print("|---" * (1 + len(PHOTONS)) + "|")
    for name, psf, told in shapes():
        print(f"| {name} | " + " | ".join(found(psf, told, much) for much in PHOTONS), "|")
    print("\n| false alarms in a frame (flagged) | camera and width told | nothing told |")
    print("|---|---|---|")
    for name, more in backgrounds():
        print(f"| {name} | {alarms(more, True)} | {alarms(more, False)} |")


def shapes() -> list[tuple[str, PSF, dict[str, Any]]]:
    """Return shapes, what makes them, and what is told of them."""
    round_one, told = GaussianPSF(), {"sigma_px": WIDTH_PX}
    y, x = torch.from_numpy(np.mgrid[-60:61, -60:61] / 5.0)
    diagonal = torch.exp(-((x + y) ** 2) / 4 / 1.3**2 - (x - y) ** 2 / 4 / 0.9**2)
    radius = np.pi / 2.6 * torch.hypot(x, y).numpy() + 1e-9
    airy = torch.from_numpy((2 * j1(radius) / radius) ** 2)
    return [
        ("width told", round_one, told),
        *(
            (f"told {one:.0%} of it", round_one, {"sigma_px": one * 1.1})
            for one in (0.8, 0.9, 0.95)
        ),
        *(
            (f"told {one:.0%} of it", round_one, {"sigma_px": one * 1.1})
            for one in (1.05, 1.1, 1.3)
        ),
        *((f"ratio {one}", GaussianPSF(one), told) for one in (0.6, 0.8, 1.1, 1.3)),
        ("ratio 1.3, width not told", GaussianPSF(1.3), {}),
        ("ratio 1.4, diagonal", MeasuredPSF(diagonal, 5), {}),
        ("Airy's rings", MeasuredPSF(airy, 5), {}),
    ]


def found(psf: PSF, told: dict[str, Any], photons: float) -> str:
    """Return how many spots are found, and how many rows are too many."""
    generator = torch.Generator().manual_seed(5)
    xy = torch.rand(FRAMES, SPOTS, 2, generator=generator) * (SIDE - 2 * MARGIN_PX) + MARGIN_PX
    wide = torch.full((FRAMES, SPOTS), WIDTH_PX)
    light = photons * psf.share(xy, wide, (SIDE, SIDE)).sum(dim=1)
    columns = located(10 + light, generator, {**CAMERA, **told}, 0.01)
    place = torch.stack([columns["x"], columns["y"]], dim=1)
    right = torch.zeros(len(place), dtype=torch.bool)
    there = 0
    for frame in range(FRAMES):
        rows = (columns["frame"] == frame).nonzero()[:, 0]
        away, nearest = torch.cdist(xy[frame], place[rows]).min(dim=1)
        there += int((away < 1).sum())
        right[rows[nearest[away < 1]]] = True
    flagged = int((columns["flag"][~right] > 0).sum())
    return f"{there}, {int((~right).sum())} ({flagged})"


def backgrounds() -> list[tuple[str, Tensor]]:
    """Return structured backgrounds, photons beside 50: (256, 256) each."""
    generator = torch.Generator().manual_seed(7)
    centre = torch.rand(12, 2, generator=generator) * 256
    place = torch.stack(torch.meshgrid(*[torch.arange(256.0)] * 2, indexing="xy"), dim=-1)
    away = (place - centre[:, None, None]).norm(dim=-1)
    around = torch.linspace(-1, 1, 256)
    found = [
        ("even", torch.zeros(256, 256)),
        ("vignetting to 30%", -17.5 * (around.square() + around[:, None].square())),
        ("a ramp to 130", place[..., 0] * 80 / 256),
    ]
    for width in (20, 12, 8):
        bumps = 50 * torch.exp(-(away / width).square() / 2).sum(dim=0)
        found.append((f"12 bumps of 50 photons, {width} px wide", bumps))
    for soft in (3.0, 1.0, 0.3):
        discs = 50 * torch.sigmoid((30 - away[:6]) / soft).amax(dim=0)
        found.append((f"6 discs of 50 photons, edges {soft:g} px wide", discs))
    return found


def alarms(more: Tensor, told: bool) -> str:
    """Return how many spots are found where there are none, and how many of them are flagged."""
    settings = {**CAMERA, "sigma_px": WIDTH_PX} if told else {}
    generator = torch.Generator().manual_seed(1)
    flag = located((50 + more).expand(10, -1, -1), generator, settings, 0.1)["flag"]
    return f"{len(flag) / 10:.1f} ({int((flag > 0).sum()) / 10:.1f})"


def located(
    expected: Tensor, generator: torch.Generator, told: dict[str, Any], false_alarms: float
) -> dict[str, Tensor]:
    """Expose frames of expected photons, and locate their spots."""
    counts = torch.poisson(expected, generator=generator) + CAMERA["offset"]
    locator = Locator(**told, false_alarms=false_alarms)
    locator.learn(counts)
    return locator(counts)


if __name__ == "__main__":
    main()
