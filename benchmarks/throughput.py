"""Measure training images/s: Pixel Spotter's Trainer beside plain PyTorch loops.

    python benchmarks/throughput.py                # the Trainer, a plain loop, the blog's way
    python benchmarks/throughput.py --variants     # what the Trainer's settings cost or gain

The contestants take turns within each round, so that whatever else the machine does meets them
all; ratios are of figures from the same round, given as median [min, max] over the rounds. A
first round, and the first epoch of each training, are not counted. Where other programs keep the
cores busy, OMP_NUM_THREADS=1 is several times faster than PyTorch's own choice.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.cli.mistakes import instantiate
from pixel_spotter.cli.start import pick_device
from pixel_spotter.coordinates import all_positions, as_size, as_xy
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import train

TRAINERS = {
    "Trainer": "training batches alone, as in the loops",
    "Trainer, whole epochs": "with validation, checkpoints and logs",
}
LOOPS = {
    "plain loop": "images rendered once, held in memory",
    "blog's way": "one PNG file read for each sample, by two workers",
}
VARIANTS = {
    "default": (),
    "contiguous memory": ("+trainer.memory_format=contiguous_format",),
    "precision=bf16-mixed": ("trainer.precision=bf16-mixed",),
    "deterministic=false": ("trainer.deterministic=false",),
}
Rates = dict[str, float]
"""Images/s of each contestant in one round."""


def main() -> None:
    arguments = parse_arguments()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    cfg = composed(arguments)
    print(f"{machine()}\n{arguments.model}, {cfg.data.image_size} px, batches of", end=" ")
    print(f"{cfg.data.batch_size}; {arguments.rounds} rounds of {arguments.epochs} epochs", end=" ")
    print(f"of {cfg.data.train_samples} images\n")

    if arguments.variants:
        rounds = measure_variants(arguments)
        pairs = [(name, "default") for name in VARIANTS if name != "default"]
    else:
        with tempfile.TemporaryDirectory() as folder:
            rounds = measure_side_by_side(arguments, Path(folder))
        pairs = [(trainer, loop) for loop in LOOPS for trainer in TRAINERS]

    for name in rounds[0]:
        what = (TRAINERS | LOOPS).get(name, "")
        print(f"{name:36} {summary([rates[name] for rates in rounds], '6.0f')} images/s  {what}")
    print()
    for name, other in pairs:
        ratios = [rates[name] / rates[other] for rates in rounds]
        print(f"{f'{name} / {other}':36} {summary(ratios, '6.2f')}")


def measure_side_by_side(arguments: argparse.Namespace, folder: Path) -> list[Rates]:
    """Let the Trainer and both loops train in turns."""
    cfg, device, epochs = composed(arguments), pick_device("auto"), arguments.epochs
    size = as_size(cfg.data.image_size)
    positions = all_positions(size)
    positions = positions[torch.arange(cfg.data.train_samples) % len(positions)]
    images, xy_px = render_pixels(positions, size), positions.float()
    save_pngs(images, folder)
    in_memory = InMemory(images.to(device), xy_px.to(device), cfg.data.batch_size)
    files = DataLoader(PNGFiles(folder, xy_px), cfg.data.batch_size, shuffle=True, num_workers=2)
    rounds = []
    for _ in range(arguments.rounds + 1):
        rates = trainer_rates(cfg, epochs)
        rates["plain loop"] = loop_rate(cfg, in_memory, epochs, device)
        rates["blog's way"] = loop_rate(cfg, files, epochs, device)
        rounds.append(rates)
    return rounds[1:]


def measure_variants(arguments: argparse.Namespace) -> list[Rates]:
    """Let the Trainer train in turns with each of the settings."""
    configs = {name: composed(arguments, overrides) for name, overrides in VARIANTS.items()}
    rounds = [
        {name: trainer_rates(cfg, arguments.epochs)["Trainer"] for name, cfg in configs.items()}
        for _ in range(arguments.rounds + 1)
    ]
    return rounds[1:]


def trainer_rates(cfg: DictConfig, epochs: int) -> Rates:
    """Train with the very function behind ``python -m pixel_spotter.train``."""
    with tempfile.TemporaryDirectory() as run_dir:
        train(cfg, Path(run_dir), "benchmark")
    torch.use_deterministic_algorithms(False)  # the Trainer's choice outlives it
    images = epochs * cfg.data.train_samples
    stopwatch = TimedTrainer.stopwatch
    seconds = (stopwatch.batches_s, stopwatch.epochs_s)
    return {name: images / s for name, s in zip(TRAINERS, seconds, strict=True)}


class TimedTrainer(L.Trainer):
    """The Trainer with a stopwatch among its callbacks: the configs' ``trainer._target_``."""

    stopwatch: "Stopwatch"

    def __init__(
        self, callbacks: list[Callback], memory_format: str | None = None, **settings: Any
    ) -> None:
        TimedTrainer.stopwatch = Stopwatch()
        super().__init__(callbacks=[*callbacks, TimedTrainer.stopwatch], **settings)
        self.memory_format = memory_format

    def fit(self, model: L.LightningModule, *arguments: Any, **options: Any) -> None:
        """Fit a model, in another memory format than its own where one is given."""
        if self.memory_format is not None:
            model.to(memory_format=getattr(torch, self.memory_format))
        super().fit(model, *arguments, **options)


class Stopwatch(Callback):
    """Measures all epochs of a training but the first.

    ``batches_s`` are the seconds from each epoch's start to the end of its last training batch,
    ``epochs_s`` those from the second epoch's start to the end of the training.
    """

    def __init__(self) -> None:
        self.batches_s = 0.0
        self.epochs_s = 0.0
        self._second_epoch_s = 0.0
        self._epoch_s = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start."""
        self._epoch_s = now_s()
        if trainer.current_epoch == 1:
            self._second_epoch_s = self._epoch_s

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop after an epoch's last batch."""
        if trainer.is_last_batch and trainer.current_epoch >= 1:
            self.batches_s += now_s() - self._epoch_s

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop."""
        self.epochs_s = now_s() - self._second_epoch_s


def loop_rate(
    cfg: DictConfig, batches: Iterable[tuple[Tensor, Tensor]], epochs: int, device: torch.device
) -> float:
    """Train the same layers, in PyTorch's default memory format, with a loop written by hand."""
    model = instantiate(cfg.model, "model")
    network = nn.Sequential(model.features, model.head).train()
    network.to(device, memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters(), lr=cfg.optim.lr)
    start_s = 0.0
    for epoch in range(epochs + 1):
        if epoch == 1:
            start_s = now_s()
        for image, xy_px in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(as_xy(network(image.to(device))), xy_px.to(device))
            loss.backward()
            optimizer.step()
    return epochs * cfg.data.train_samples / (now_s() - start_s)


class InMemory:
    """Batches, newly shuffled every epoch, of images that stay on the device that trains."""

    def __init__(self, images: Tensor, xy_px: Tensor, batch_size: int) -> None:
        self.images = images
        self.xy_px = xy_px
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(self.images)).split(self.batch_size):
            yield self.images[index], self.xy_px[index]


class PNGFiles(Dataset[tuple[Tensor, Tensor]]):
    """One PNG file for each sample: Pillow -> numpy -> tensor."""

    def __init__(self, folder: Path, xy_px: Tensor) -> None:
        self.folder = folder
        self.xy_px = xy_px

    def __len__(self) -> int:
        return len(self.xy_px)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = np.asarray(Image.open(self.folder / f"{index}.png"), dtype=np.float32) / 255
        return torch.from_numpy(pixels)[None], self.xy_px[index]


def save_pngs(images: Tensor, folder: Path) -> None:
    for index, image in enumerate((images[:, 0] * 255).byte().numpy()):
        Image.fromarray(image).save(folder / f"{index}.png")


def composed(arguments: argparse.Namespace, overrides: Iterable[str] = ()) -> DictConfig:
    """Compose what ``python -m pixel_spotter.train`` would, for one epoch more than is counted."""
    settings = [
        f"model={arguments.model}",
        f"trainer._target_={__name__}.TimedTrainer",
        f"trainer.max_epochs={arguments.epochs + 1}",
        "trainer.enable_progress_bar=false",
        *overrides,
    ]
    if arguments.batch_size is not None:
        settings.append(f"data.batch_size={arguments.batch_size}")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", settings)


def now_s() -> float:
    """Return the time at which the GPU, where there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def summary(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    return f"{gpu}{processor}, {threads}, torch {torch.__version__}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--variants", action="store_true", help="compare the Trainer's settings")
    parser.add_argument("--model", default="cnn", choices=["cnn", "resnet18_scratch"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="counted epochs of a training")
    parser.add_argument("--batch-size", type=int, help="default: that of conf/data/pixel.yaml")
    return parser.parse_args()


if __name__ == "__main__":
    main()
