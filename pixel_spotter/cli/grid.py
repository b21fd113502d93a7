"""What happens around a grid: the report at its end."""

import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pixel_spotter import runs
from pixel_spotter.cli.start import user_message


class CompareGrid(Callback):
    """Writes the report when a grid ends, and ends the command in an error if cells failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the time: failures of earlier commands are shown, but are not this one's."""
        self.start_s = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the grid's cells."""
        folder = Path(config.hydra.sweep.dir)
        problem: list[str] = []
        # Hydra turns exceptions of callbacks into warnings; SystemExit goes through.
        try:
            # Every training command makes this callback; only a grid's end needs these.
            from pixel_spotter.report import print_report, write_report
            from pixel_spotter.reporting.cells import failures

            since_s = self.start_s - 1  # files have coarser times
            failed = [
                f"  {cell}: {reason}"
                for cell, reason in failures(folder).items()
                if (folder / cell / runs.FAILURE).stat().st_mtime >= since_s
            ]
            problem = [f"{len(failed)} cells failed:", *failed] if failed else []
            print_report(write_report(folder), folder)
        except Exception as error:
            message = user_message(error) or repr(error)
            problem = [f"no report: {message}", *problem]
        if problem:
            raise SystemExit("error: " + "\n".join(problem))
