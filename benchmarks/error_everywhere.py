"""Draw each model's error at all positions, those it was trained on and those it was not.

    python benchmarks/error_everywhere.py outputs/sweeps/compare docs/models

Reads the first seed's checkpoints of ``experiment=compare`` and writes a picture for each model:
a map for each split, the error at every position of the image. Of a model that is exact everywhere
there is nothing to see, and no picture.
"""

import sys
from pathlib import Path

import torch

from pixel_spotter import runs
from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.loading import load_model
from pixel_spotter.reporting.figures.drawing import save
from pixel_spotter.reporting.figures.error_maps import ERROR_RANGE_PX, error_sheet
from pixel_spotter.reporting.groups import SPLITS
from pixel_spotter.simulation.pixels import render_pixels


def main() -> None:
    sweep, output = Path(sys.argv[1]), Path(sys.argv[2])
    cells = [path.parent for path in sweep.glob(f"*seed=0*/{runs.METRICS}")]
    found = {(m["model"], m["split"]): cell for cell in cells for m in [runs.read_metrics(cell)]}
    for model_name in sorted({name for name, _ in found}):
        maps = {}
        for split in SPLITS:
            if (model_name, split) not in found:
                continue
            model, _ = load_model(found[model_name, split] / runs.BEST)
            positions = all_positions(model.size)
            with torch.inference_mode():
                images = render_pixels(positions, model.size)
                xy_px = torch.cat([model(batch) for batch in images.split(250)])
            error = (xy_px - positions).double().norm(dim=1).reshape(model.size)
            maps[f"trained on {split}\nmean {error.mean():.3f} px"] = error.numpy()
        if all(error.max() <= ERROR_RANGE_PX[0] for error in maps.values()):
            print(f"{model_name}: at most {ERROR_RANGE_PX[0]} px everywhere, no picture")
            continue
        save(error_sheet(maps), output / f"{model_name}.png")
        print(output / f"{model_name}.png")


if __name__ == "__main__":
    main()
