"""Write a checkpoint's model as a file that runs without Pixel Spotter.

``python -m pixel_spotter.export checkpoint=PATH output=FILE.onnx|FILE.pt2``
"""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("export")  # before anything slow is imported

import importlib.util
from pathlib import Path

from omegaconf import DictConfig

from pixel_spotter.cli.start import run_command
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write
from pixel_spotter.models.exporting import FORMATS, export_file, telling_images
from pixel_spotter.models.loading import load_model
from pixel_spotter.tables import check_output

_NEEDED = {".onnx": ("onnx", "onnxruntime", "onnxscript")}


def run(cfg: DictConfig) -> None:
    """Export what the config asks for, hold it against the checkpoint, and only then write it."""
    output = Path(str(cfg.output))
    if output.suffix not in FORMATS:
        raise UserError(f"output={output} must end in {' or '.join(FORMATS)}")
    check_output(output)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED.get(output.suffix, ())):
        raise UserError(
            f"output={output}: ONNX is not installed: pip install 'pixel-spotter[onnx]'"
        )
    model, data = load_model(str(cfg.checkpoint), cfg.trust)
    images = telling_images(model, data)
    content, largest = export_file(model, images, output.suffix)
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)

    size = "any size" if model.any_size else f"{model.size[0]}x{model.size[1]} px"
    told = "photons" if model.in_photons else "0 is black, 1 is white"
    print(f"{output}: {model.name}, for images (batch, 1, height, width) of {size}: {told}")
    count = sum(len(batch) for batch in images)
    words = ", ".join(f"{name} {value:.2g}" for name, value in largest.items())
    print(f"largest differences from the checkpoint, on {count} images: {words}")


if __name__ == "__main__":
    run_command("export", run)
