"""Count what the flag ``crowded`` tells of single fits: wrong answers, and false alarms.

    python benchmarks/flags.py

13x13 pixels around spots of 1,000 photons on a background of 10, 1 px wide, unless the row says
otherwise; maximum likelihood with the width and the read noise fitted. An answer is wrong that is
more than 4 of its deviations off along x.
"""

import argparse
from typing import Any

import torch

from pixel_spotter import estimators
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.coordinates import FLAGS
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.simulation.camera import Camera

COMA = {"name": "measured", "file": str(CONF_DIR / "psf/coma.npy"), "oversampling": 5}
CONDITIONS: dict[str, dict[str, Any]] = {
    "alone": {},
    "alone, 4 e of read noise untold": {"camera": {"read_noise": 4.0}},
    "alone, EMCCD": {"camera": {"read_noise": 50.0, "em_gain": 300.0}},
    "coma, fitted with a round Gaussian": {"psf": COMA, "sigma_px": None},
    "the same, 10,000 photons": {"psf": COMA, "sigma_px": None, "photons": 10_000},
} | {
    f"neighbour at {distance} px, {ratio} as bright": {
        "neighbour_probability": 1.0, "neighbour_px": distance, "neighbour_ratio": ratio,
    }
    for distance in (2.0, 3.0, 4.0, 6.0)
    for ratio in (0.2, 0.5, 1.0, 2.0)
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--spots", type=int, default=4096, help="of each condition")
    samples = torch.arange(parser.parse_args().spots)
    print("| | wrong | of these flagged | flagged |\n|---|---|---|---|")
    for name, settings in CONDITIONS.items():
        data = SpotDataModule(13, margin_px=6, **settings)
        truth = data.truth("test", 0, samples)
        image = data.render(truth, "test", 0, samples)[:, 0]
        excess = Camera(**settings.get("camera", {})).excess_noise
        found = estimators.maximum_likelihood(image, margin_px=6, excess_noise=excess)
        wrong = (found["x"] - truth["x_true"]).abs() > 4 * found["sd_x"]
        flagged = found["flag"] == FLAGS.index("crowded")
        caught = f"{flagged[wrong].double().mean():.0%}" if wrong.any() else ""
        shares = [f"{one.double().mean():.1%}" for one in (wrong, flagged)]
        print(f"| {name} | {shares[0]} | {caught} | {shares[1]} |", flush=True)


if __name__ == "__main__":
    main()
