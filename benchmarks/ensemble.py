"""Time a training step of an ensemble: one vectorized pass against one member after another.

    python benchmarks/ensemble.py [members]

Prints, for each kind of member, the seconds of a step with either, and their ratio, from rounds
that alternate.
"""

import statistics
import sys
import time

import torch
from hydra import compose, initialize_config_dir

from pixel_spotter.cli.start import CONF_DIR, instantiate
from pixel_spotter.simulation.pixels import render_pixels

BATCH, ROUNDS, STEPS = 32, 5, 10


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{count} members, batches of {BATCH}, {device}, {torch.get_num_threads()} threads")
    xy = torch.randint(50, (BATCH, 2), generator=torch.Generator().manual_seed(0)).to(device)
    image = render_pixels(xy, (50, 50))
    for member in ("cnn", "simcc", "heatmap", "coordconv"):
        overrides = ["model=ensemble", f"model.members={count}", f"model@model.member={member}"]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("train", overrides)
        ensemble = instantiate(cfg.model).to(device)
        (optimizer,), _ = ensemble.configure_optimizers()
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            for vectorized, taken in seconds.items():
                ensemble.features.vectorized = vectorized
                start_s = time.perf_counter()
                for _ in range(STEPS):
                    optimizer.zero_grad()
                    loss = ensemble.training_loss(image, xy.float())
                    loss.backward()
                    optimizer.step()
                loss.item()
                taken.append((time.perf_counter() - start_s) / STEPS)
        ratios = [slow / fast for fast, slow in zip(seconds[True], seconds[False], strict=True)]
        at_once, in_turn = (1000 * statistics.median(taken) for taken in seconds.values())
        print(
            f"{member:10} vectorized {at_once:6.1f} ms, one after another {in_turn:6.1f} ms, "
            f"speed-up {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    main()
