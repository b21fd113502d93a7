"""Put a trained model's weights into the package, without what only its training needs.

python benchmarks/package_weights.py outputs/runs/spotter/checkpoints/last.ckpt spotter
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from pixel_spotter.files import atomic_write, read_tensors
from pixel_spotter.models.loading import WEIGHTS, load_model

KEPT = (
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "model_class"),
    *("model_name", "data_class", "trained_before", "pytorch-lightning_version"),
)


def main(arguments: Sequence[str] | None = None, folder: Path = WEIGHTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name", help="that it is asked for by")
    options = parser.parse_args(arguments)
    checkpoint = read_tensors(options.checkpoint)
    path = folder / f"{options.name}.ckpt"
    with atomic_write(path) as temporary:
        torch.save({key: checkpoint[key] for key in KEPT if key in checkpoint}, temporary)
    model, data = load_model(path)
    size = path.stat().st_size / 1000
    print(f"{path}: {model.name}, of {type(data).__name__}, {size:,.0f} kB")


if __name__ == "__main__":
    main()
