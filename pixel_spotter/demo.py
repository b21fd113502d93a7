"""Show in a browser how exactly a spot can be found, and what is found in a file.

``python -m pixel_spotter.demo [port=7860]``
"""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("demo")  # before anything slow is imported

import logging
import math
import os
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from pixel_spotter import estimators
from pixel_spotter.arguments import require
from pixel_spotter.cli.mistakes import user_message
from pixel_spotter.cli.start import run_command
from pixel_spotter.coordinates import FLAGS
from pixel_spotter.data.reading import Reading
from pixel_spotter.errors import UserError
from pixel_spotter.locate import DIGITS, located, read_back, read_frame
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.locator import make_locator
from pixel_spotter.models.scene import SIDE, Scene, ask, record, smallest_covariance, standing
from pixel_spotter.reporting import overview, scene
from pixel_spotter.reporting.figures.drawing import colours_of
from pixel_spotter.tables import growing

HOST = "127.0.0.1"
IMAGES = 200
"""So many images are answered each time: the first is shown."""

NAMES = (*estimators.__all__, "spotter")
SHOWN = ("maximum_likelihood", "spotter", "centroid")
"""Those whose answers are shown at first."""

COLOURS = colours_of([*SHOWN, *reversed(NAMES)])

MOST_ROWS = 500
"""So many rows of a table are shown; all can be downloaded."""

_TEMPLATES = Path(scene.__file__).parent / "templates"


class Setting(NamedTuple):
    """A setting of the first page, by which it is called, and what it can be."""

    label: str
    low: float
    high: float
    step: float
    value: float


SETTINGS = {
    "x": Setting("x, px", 0, SIDE - 1, 0.01, 11.3),
    "y": Setting("y, px", 0, SIDE - 1, 0.01, 12.4),
    "photons": Setting("photons", 50, 5000, 10, 1000),
    "background": Setting("background/px", 0.5, 50, 0.5, 10),
    "sigma_px": Setting("width, px", 0.6, 2.5, 0.05, 1.2),
    "read_noise": Setting("read noise, e", 0, 6, 0.1, 1),
    "distance": Setting("distance, px", 0.5, 12, 0.05, 4),
    "angle": Setting("direction, °", 0, 360, 1, 30),
    "neighbour_photons": Setting("its photons", 50, 5000, 10, 700),
}
TOLD = {
    "gain, e per count": "estimated",
    "offset, counts": "estimated",
    "read noise, e": "estimated",
    "width, px": "estimated",
    "false alarms in a frame": "0.01",
}
"""What the second page can be told of a file, and what it is otherwise."""

FALSE_ALARMS = 0.01
_OF_NEIGHBOUR = ("distance", "angle", "neighbour_photons")


def run(cfg: DictConfig) -> None:
    """Show the page until the command is interrupted."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError("the page needs Gradio: pip install 'pixel-spotter[demo]'") from error
    check_port(cfg.port)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    spotter, _ = load_model("spotter")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # what is uploaded is gone in the end
        page = make_page(spotter)
        page.launch(
            server_name=HOST,
            server_port=cfg.port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            theme=theme(),
            head=f"<style>{(_TEMPLATES / 'scene.css').read_text(encoding='utf-8')}</style>",
        )
        try:
            print(f"http://{HOST}:{cfg.port} shows the page; Ctrl-C ends it", flush=True)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def check_port(port: Any) -> None:
    """Refuse a port on which no page can be shown."""
    require(type(port) is int and 0 < port < 65536, "port", "a whole number up to 65535", port)
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port={port} cannot be had ({error.strerror}): give another"
            ) from error


def make_scene(values: Sequence[float], neighbour: bool) -> Scene:
    """Return the scene of the values of `SETTINGS`, in their order."""
    told = dict(zip(SETTINGS, map(float, values), strict=True))
    spots = [[told["x"], told["y"], told["photons"]]]
    if neighbour:
        angle, distance = math.radians(told["angle"]), told["distance"]
        x, y = told["x"] + distance * math.cos(angle), told["y"] + distance * math.sin(angle)
        spots.append([x, y, told["neighbour_photons"]])
    return Scene(torch.tensor(spots), told["background"], told["sigma_px"], told["read_noise"])


def answered(
    values: Sequence[float],
    neighbour: bool,
    seed: int,
    shown: Sequence[str],
    spotter: PointRegressor,
) -> tuple[str, str, str]:
    """Return the camera's picture, the close up and the table of a scene."""
    made = make_scene(values, neighbour)
    images = record(made, IMAGES, seed)
    covariance = smallest_covariance(made).numpy()
    bound = math.sqrt(covariance[0].trace() / 2)
    answers = ask(images, made, {"spotter": spotter})
    standings = {name: standing(answer, made) for name, answer in answers.items()}
    crosses, clouds, rows = {}, {}, []
    for name, one in standings.items():
        if name in shown:
            answer = answers[name]
            crosses[name] = COLOURS[name], np.array([answer["x"][0], answer["y"][0]])
            own = torch.where(one.of[:, None] == 0, one.away, torch.nan)
            clouds[name] = COLOURS[name], own.numpy()
        rows.append(
            scene.Row(
                name,
                COLOURS[name] if name in shown else "",
                float(one.away[0].norm()),
                one.sd,
                one.rmse,
                one.rmse / bound,
                one.others,
                FLAGS[one.flag],
            )
        )
    spots = made.spots[:, :2].numpy()
    return (
        scene.camera(images[0].numpy(), spots, covariance, crosses),
        scene.close_up(covariance[0], clouds),
        scene.table(rows, IMAGES, neighbour),
    )


def dragged(spot: int, x: float, y: float, values: Sequence[float]) -> list[float]:
    """Return the values of `SETTINGS` once the spot, 0, or its neighbour, 1, is at x and y."""
    told = dict(zip(SETTINGS, values, strict=True))
    if spot == 0:
        told |= {"x": x, "y": y}
    else:
        along, down = x - told["x"], y - told["y"]
        low, high = SETTINGS["distance"].low, SETTINGS["distance"].high
        told["distance"] = round(min(max(math.hypot(along, down), low), high), 2)
        told["angle"] = round(math.degrees(math.atan2(down, along))) % 360
    return [*told.values()]


def number(label: str, text: str) -> float | None:
    """Return the number that was typed; None if nothing was."""
    try:
        return float(text) if text.strip() else None
    except ValueError as error:
        raise UserError(f"{label.partition(',')[0]} must be a number, got {text!r}") from error


def look_into(
    file: Path,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    sigma_px: float | None = None,
    false_alarms: float | None = None,
) -> tuple[str, pd.DataFrame, Path]:
    """Locate the spots of a file, as the command does.

    Returns:
        What was found, as HTML, the table, and a file of it beside the first one.

    Raises:
        UserError: if nothing can be read, or settings cannot be.
    """
    camera = {"gain": gain, "offset": offset, "read_noise": read_noise}
    accepted = FALSE_ALARMS if false_alarms is None else false_alarms
    locator = make_locator(camera, {"sigma_px": sigma_px}, accepted, None)
    output = file.with_name(f"{file.stem}_spots.csv")
    reading = Reading([file])
    any_read = False
    with reading.progress, growing(output, DIGITS) as growing_table:
        for rows, _ in located(reading, locator, torch.device("cpu")):
            growing_table.add(rows.assign(file=file.name))
            any_read = True
        if not any_read:
            raise UserError("; ".join(reading.said).replace(str(file), file.name))
    table = read_back(output)
    remarks = [
        line.replace(str(file), file.name) for line in [*reading.said, *reading.remarks.lines()]
    ]

    def read(_: str, frame: int) -> np.ndarray:
        return read_frame(str(file), frame)

    sections = [*overview.frames(table, read), *overview.spots(table, read)]
    headline = overview.headline(table) if len(table) else "No spot stands out"
    return scene.found(headline, remarks, sections), table, output


def theme() -> Any:
    """Return how the page looks: with the fonts that the system has, which none need be sent."""
    import gradio as gr

    return gr.themes.Base(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def make_page(spotter: PointRegressor) -> Any:
    """Return the page, to be launched."""
    import gradio as gr

    with gr.Blocks(title="Pixel Spotter", analytics_enabled=False) as page:
        gr.HTML(
            "<h1>Pixel Spotter</h1>\n"
            "<p>How exactly can a spot be found, and who comes how close?</p>",
            elem_id="title",
        )
        with gr.Tab("One spot"):
            one_spot(spotter)
        with gr.Tab("Your file"):
            your_file()
    return page


def one_spot(spotter: PointRegressor) -> None:
    """Lay out the first tab: a spot to drag, and what everyone answers."""
    import gradio as gr

    values = [setting.value for setting in SETTINGS.values()]
    first = answered(values, False, 0, SHOWN, spotter)
    with gr.Row(elem_id="spot"):
        script = (_TEMPLATES / "scene.js").read_text(encoding="utf-8")
        camera = gr.HTML(first[0], js_on_load=script, elem_id="camera")
        close_up = gr.HTML(first[1], elem_id="close-up")
        with gr.Column(elem_id="shown"):
            shown = gr.CheckboxGroup([*NAMES], value=[*SHOWN], label="answers shown")
        table = gr.HTML(first[2], elem_id="table")
        with gr.Column(elem_id="controls"):
            again = gr.Button("New noise", variant="primary")
            sliders = [slider(name) for name in SETTINGS if name not in _OF_NEIGHBOUR]
            neighbour = gr.Checkbox(label="a neighbour", value=False)
            with gr.Group(visible=False) as beside:
                sliders += [slider(name) for name in _OF_NEIGHBOUR]
    seed = gr.State(0)
    told, pictures = [neighbour, seed, shown, *sliders], [camera, close_up, table]

    def answer(neighbour: bool, seed: int, shown: list[str], *values: float) -> Any:
        return answered(values, neighbour, seed, shown, spotter)

    def noise(neighbour: bool, seed: int, shown: list[str], *values: float) -> Any:
        return seed + 1, *answered(values, neighbour, seed + 1, shown, spotter)

    def drag(event: gr.EventData, neighbour: bool, seed: int, shown: list[str], *old: float) -> Any:
        values = dragged(event.spot, event.x, event.y, old)
        picture, *others = answered(values, neighbour, seed, shown, spotter)
        return *values, f"{picture}<!-- {event.count} -->", *others

    live: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
    # The script tells one place at a time: Gradio would repeat the first instead of the last.
    camera.select(
        drag, told, [*sliders, *pictures], trigger_mode="multiple", show_progress="hidden"
    )
    for one in sliders:
        one.input(answer, told, pictures, **live)
    shown.input(answer, told, pictures, **live)
    again.click(noise, told, [seed, *pictures], **live)
    neighbour.input(answer, told, pictures, **live)
    neighbour.input(lambda there: gr.Group(visible=there), neighbour, beside, **live)


def slider(name: str) -> Any:
    """Return what a setting is set with."""
    import gradio as gr

    label, low, high, step, value = SETTINGS[name]
    return gr.Slider(low, high, value, step=step, label=label, elem_id=name, buttons=[])


def your_file() -> None:
    """Lay out the second tab: a file, its spots, their table."""
    import gradio as gr

    with gr.Row():
        file = gr.File(label="images, as a camera wrote them", elem_id="file")
        with gr.Column():
            with gr.Row():
                told = [
                    gr.Textbox(label=label, placeholder=otherwise, min_width=150)
                    for label, otherwise in TOLD.items()
                ]
            again = gr.Button("Find its spots", variant="primary")
    found = gr.HTML(elem_id="found")
    download = gr.DownloadButton("Download the table", visible=False, elem_id="download")
    table = gr.HTML(elem_id="rows")

    def answer(file: str | None, *told: str) -> Any:
        nothing = gr.DownloadButton(visible=False), ""
        if file is None:
            return scene.mistake("Choose a file first."), *nothing
        try:
            words, rows, output = look_into(Path(file), *map(number, TOLD, told))
        except Exception as error:
            message = user_message(error, "locate")
            if message is None:
                raise
            return scene.mistake(message), *nothing
        label = f"Download the table: {len(rows):,} rows"
        least = rows.drop(columns=["file", "corr_xy"]).head(MOST_ROWS)
        return (
            words,
            gr.DownloadButton(label, value=output, visible=True),
            scene.rows(least, len(rows)),
        )

    for begun in (file.upload, again.click):
        begun(answer, [file, *told], [found, download, table])


if __name__ == "__main__":
    run_command("demo", run)
