"""Measure what a training step's parts cost, and what single changes to it gain, on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/step.py cnn heatmap spotter
    OMP_NUM_THREADS=1 python benchmarks/step.py blog --parts --only

The variants take turns on the same batches, from the same first weights; a first round is not
counted. What counts is the processor's time, not the clock's: other programs disturb it less, but
still do. Ratios are of the default to a variant, from the same round: median [min, max]. Beside
the step, matrices of 2048 x 2048 are multiplied: how far it is from what the hardware can do.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.data.base import Batch
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.train import make
from pixel_spotter.training.memory import keep_freed_memory

MODELS = {
    "spotter": (["experiment=spotter"], 4),
    "blog": (["experiment=blog", "model=cnn"], 8),
    "resnet18_scratch": (["model=resnet18_scratch", "data.batch_size=128"], 2),
}
"""What chooses a model, and how many batches are a round: of others, ``model=NAME`` and 16."""
PARTS = {
    "convolutions, forward": ("aten::mkldnn_convolution",),
    "convolutions, backward": ("aten::convolution_backward",),
    "pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "ReLU": ("aten::clamp_min", "aten::threshold_backward", "aten::clamp_min_"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "linear layers": ("aten::addmm", "aten::mm"),
    "fills": ("aten::fill_", "aten::zero_"),
}
"""What the profiler calls a step's parts."""
MATRIX = 2048

Change = Callable[[PointRegressor], Optimizer]
"""Changes a model, and makes what it is trained with."""


def _in_memory(layout: torch.memory_format, model: PointRegressor) -> Optimizer:
    return Adam(model.to(memory_format=layout).parameters())


def _compiled(model: PointRegressor) -> Optimizer:
    model.features.compile()
    return Adam(model.parameters())


def _relu_first(model: PointRegressor) -> Optimizer:
    layers: Any = model.features
    for place in range(len(layers) - 1):
        if isinstance(layers[place], nn.MaxPool2d) and isinstance(layers[place + 1], nn.ReLU):
            layers[place], layers[place + 1] = layers[place + 1], layers[place]
    return Adam(model.parameters())


VARIANTS: dict[str, Change] = {
    "default": lambda model: Adam(model.parameters()),
    "bfloat16": lambda model: Adam(model.parameters()),
    "fused Adam": lambda model: Adam(model.parameters(), fused=True),
    "foreach Adam": lambda model: Adam(model.parameters(), foreach=True),
    "no deterministic fills": lambda model: Adam(model.parameters()),
    "contiguous": partial(_in_memory, torch.contiguous_format),
    "channels last": partial(_in_memory, torch.channels_last),
    "ReLU before pooling": _relu_first,
    "compiled": _compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=[*VARIANTS][1:], nargs="*", help="default: all")
    parser.add_argument("--size", type=int, help="side of the images, px")
    parser.add_argument("--parts", action="store_true", help="profile the step as well")
    parser.add_argument("--give-back", action="store_true", help="freed memory to the system")
    arguments = parser.parse_args()
    if not arguments.give_back:
        keep_freed_memory()
    torch.use_deterministic_algorithms(True)  # as the Trainer does
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in arguments.models:
        names = [*VARIANTS] if arguments.only is None else ["default", *arguments.only]
        size = [] if arguments.size is None else [f"data.image_size={arguments.size}"]
        report(name, names, arguments.rounds, size, arguments.parts)


def report(
    name: str,
    names: Sequence[str],
    rounds: int,
    settings: Sequence[str] = (),
    with_parts: bool = False,
) -> None:
    """Measure a model's step, and print what came of it."""
    choice, count = MODELS.get(name, ([f"model={name}"], 16))
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", [*choice, *settings])
    L.seed_everything(0, verbose=False)
    data, first = make(cfg, name)
    batches, rendering_s = [], 0.0
    for index in range(count + 1):
        samples = torch.arange(index * data.batch_size, (index + 1) * data.batch_size)
        start_s = time.process_time()
        batches.append(data.batch("train", 0, samples))
        rendering_s += time.process_time() - start_s if index else 0
    models: dict[str, PointRegressor] = {one: copy.deepcopy(first).train() for one in names}
    optimizers = {one: VARIANTS[one](model) for one, model in models.items()}
    seconds: dict[str, list[float]] = {one: [] for one in names}
    products_s: list[float] = []
    # Kept, as freeing them changes how memory is given back.
    matrices = torch.ones(2, MATRIX, MATRIX)
    for number in range(rounds + 1):
        for one in names if number % 2 else reversed(names):
            torch.utils.deterministic.fill_uninitialized_memory = one != "no deterministic fills"
            torch.manual_seed(number)  # dropout's
            taken = train(models[one], optimizers[one], batches[1:], one == "bfloat16")
            if number:
                seconds[one].append(taken)
        products_s.append(multiply(*matrices))
    torch.utils.deterministic.fill_uninitialized_memory = True
    print(
        f"\n{name}: {statistics.median(seconds['default']) / count * 1e3:.1f} ms a step, and",
        end="",
    )
    shares = [rendering_s / (rendering_s + taken) for taken in seconds["default"]]
    print(f" rendering, {statistics.median(shares):.1%} of both")
    for one in names[1:]:
        ratios = [a / b for a, b in zip(seconds["default"], seconds[one], strict=True)]
        gain = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        print(
            f"  {one:24}{gain}  {'same' if same(models['default'], models[one]) else 'other'}",
            end="",
        )
        print(" weights afterwards")
    with FlopCounterMode(display=False) as counter:
        train(models["default"], optimizers["default"], batches[1:2], False)
    flops = counter.get_total_flops()
    done, can = flops * count / statistics.median(seconds["default"]), 2 * MATRIX**3
    peak = can / statistics.median(products_s)
    print(f"  {flops / 1e6:.0f} MFLOP a step, {done / 1e9:.0f} GFLOP/s of the processor's time,")
    print(f"  {done / peak:.0%} of the {peak / 1e9:.0f} GFLOP/s that a product of matrices has")
    if with_parts:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            train(models["default"], optimizers["default"], batches[1:], False)
        for part, share in parts(profiled).items():
            print(f"  {part:24}{share:.1%}")


def multiply(matrix: Tensor, product: Tensor) -> float:
    """Multiply a matrix with itself; return the processor's time that it took, s."""
    start_s = time.process_time()
    torch.mm(matrix, matrix, out=product)
    return time.process_time() - start_s


def parts(profiled: profile) -> dict[str, float]:
    """Return which share of the profiled time each of a step's parts took."""
    events = profiled.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    named = {name: part for part, names in PARTS.items() for name in names}
    shares = dict.fromkeys([*PARTS, "optimizer", "the rest"], 0.0)
    for event in events:
        if event.key.startswith("Optimizer.step"):
            shares["optimizer"] += event.cpu_time_total / whole
        elif event.key in named:
            shares[named[event.key]] += event.self_cpu_time_total / whole
    shares["the rest"] = 1 - sum(shares.values())
    return shares


def train(
    model: PointRegressor, optimizer: Optimizer, batches: Sequence[Batch], mixed: bool
) -> float:
    """Train on batches; return the processor's time that it took, s."""
    start_s = time.process_time()
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
            loss = model.training_loss(batch.image, batch.truth)
        loss.backward()
        optimizer.step()
    return time.process_time() - start_s


def same(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models have become the same, to the last bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


if __name__ == "__main__":
    main()
