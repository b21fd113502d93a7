import math
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import tifffile
from browser import CHROMIUM, Browser
from conftest import CommandServer, compose
from test_locate import movie

from pixel_spotter.demo import NAMES, SETTINGS, SHOWN, answered, dragged, look_into, number, run
from pixel_spotter.errors import UserError
from pixel_spotter.models.loading import load_model

pytest.importorskip("gradio")

VALUES = [setting.value for setting in SETTINGS.values()]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stack") / "a stack.tif"
    tifffile.imwrite(path, movie())
    return path


@pytest.fixture(scope="module")
def located(run_command: CommandServer, stack: Path) -> str:
    """What the command writes of the stack, without the folders in files' names."""
    ended = run_command("locate", f"images={stack}", "output=spots.csv", cwd=stack.parent)
    assert ended.code == 0, ended.stderr
    return (stack.parent / "spots.csv").read_text().replace(str(stack), stack.name)


def test_what_is_dragged() -> None:
    told = dict(zip(SETTINGS, dragged(0, 3.25, 20, VALUES), strict=True))
    assert (told["x"], told["y"]) == (3.25, 20)
    x, y = VALUES[:2]
    told = dict(zip(SETTINGS, dragged(1, x - 3, y - 4, VALUES), strict=True))
    assert (told["x"], told["y"], told["distance"]) == (x, y, 5)
    assert told["angle"] == round(180 + math.degrees(math.atan2(4, 3)))
    told = dict(zip(SETTINGS, dragged(1, x, y, VALUES), strict=True))
    assert told["distance"] == SETTINGS["distance"].low


def test_all_settings_can_be_at_both_ends() -> None:
    spotter, _ = load_model("spotter")
    for side in ("low", "high"):
        values = [getattr(setting, side) for setting in SETTINGS.values()]
        for neighbour in (False, True):
            camera, close_up, table = answered(values, neighbour, 0, NAMES, spotter)
            assert camera.count("data-spot=") == 1 + neighbour
            assert close_up.count("data-cloud=") == len(NAMES)
            assert table.count("data-row=") == len(NAMES)


def test_only_what_is_asked_for_is_shown() -> None:
    spotter, _ = load_model("spotter")
    camera, close_up, table = answered(VALUES, False, 0, SHOWN, spotter)
    assert camera.count("data-answer=") == close_up.count("data-mark=") == len(SHOWN)
    assert table.count("background:#") == len(SHOWN)


def test_a_file_has_the_spots_that_the_command_finds(stack: Path, located: str) -> None:
    words, table, output = look_into(stack)
    assert output.read_text() == located
    assert len(table) == len(located.splitlines()) - 1 > 20
    assert f"{len(table)} spots in" in words
    assert "psf.sigma_px=" in words, "what was estimated is told"
    assert words.count("<img") == 2
    _, told, _ = look_into(stack, gain=1.0, offset=0.0, sigma_px=1.1, false_alarms=0.1)
    assert {*told["sigma_px"]} == {1.1}


def test_files_and_numbers_that_are_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0 and nothing else")
    with pytest.raises(UserError, match=r"^bad\.tif: ") as told:
        look_into(bad)
    assert "\n" not in str(told.value)
    assert {path.name for path in tmp_path.iterdir()} == {"bad.tif"}
    with pytest.raises(UserError, match="go together"):
        look_into(bad, gain=1.0)
    assert (number("width, px", " 1.5"), number("width, px", " ")) == (1.5, None)
    with pytest.raises(UserError, match="width must be a number, got 'wide'"):
        number("width, px", "wide")


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"^the page needs Gradio: pip install .*\[demo\]'$"):
        run(compose(command="demo"))


def test_ports_that_cannot_be_had(run_command: CommandServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run_command("demo", f"port={port}")
        assert ended.error() == f"port={port} cannot be had (Address already in use): give another"
    for wrong in ("0", "65536", "web"):
        assert "port must be a whole number" in run_command("demo", f"port={wrong}").error()


@pytest.fixture(scope="module")
def address(run_command: CommandServer) -> Iterator[str]:
    """Where a command shows its page, until it is interrupted."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begun = run_command.begin("demo", f"port={port}")
    begun.wait_for(lambda: "shows the page" in begun.stdout.read_text())
    yield f"http://127.0.0.1:{port}"
    begun.kill(signal.SIGINT)
    ended = begun.finish()
    assert ended.code == 130
    assert ended.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


READY = "document.querySelector('#camera image') && document.querySelector('#x input')"
WORDS = "document.querySelector('#found').textContent"


def cell(row: str, column: int) -> str:
    return f"document.querySelector('[data-row={row}]').cells[{column}].textContent"


def open_file_tab(browser: Browser) -> None:
    tab = "[...document.querySelectorAll('button[role=tab]')].find(b => /file/.test(b.textContent))"
    browser.run(f"{tab}.click()")
    browser.wait_for("document.querySelector('#file input[type=file]')")


def test_a_spot_is_dragged_in_the_page(address: str, browser: Browser) -> None:
    browser.open(address, 1400, 900)
    browser.wait_for(READY)
    x, y = VALUES[0] + 4, VALUES[1] - 8
    number = "Number(document.querySelector('#{} input[type=number]').value)"
    there = f"Math.hypot({number.format('x')} - {x}, {number.format('y')} - {y}) < 0.1"
    said = browser.run(cell("spotter", 1))
    for _ in range(3):  # a page that still settles moves away under the mouse
        left, top, side = browser.run(
            "(box => [box.left, box.top, box.width / 25])"
            "(document.querySelector('#camera image').getBoundingClientRect())"
        )
        pixels = [(VALUES[0] + step / 2, VALUES[1] - step) for step in range(9)]
        places = [(left + (x + 0.5) * side, top + (y + 0.5) * side) for x, y in pixels]
        browser.mouse("Pressed", *places[0])
        for place in places[1:]:
            browser.mouse("Moved", *place)
        browser.mouse("Released", *places[-1])
        with suppress(AssertionError):
            browser.wait_until(lambda: bool(browser.run(f"Boolean({there})")), there, end_s=10)
            break
    assert browser.run(f"Boolean({there})")
    browser.wait_for(f"{cell('spotter', 1)} != {said!r}")
    marked = "document.querySelector('[data-answer=spotter]').getAttribute('transform')"
    answer = [float(word) for word in browser.run(f"{marked}.match(/[\\d.]+/g)")]
    assert math.dist(answer, (x, y)) < 0.4
    browser.mouse("Moved", left + 2.5 * side, top + 2.5 * side)
    assert abs(browser.run(number.format("x")) - x) < 0.1, "it was let go"


def test_settings_of_the_page(address: str, browser: Browser) -> None:
    browser.open(address, 1400, 900)
    browser.wait_for(READY)
    rmse = float(browser.run(cell("maximum_likelihood", 3)))
    browser.run(
        "(slider => { slider.value = 5000; "
        "slider.dispatchEvent(new Event('input', {bubbles: true})) })"
        "(document.querySelector('#photons input[type=range]'))"
    )
    browser.wait_for(f"Number({cell('maximum_likelihood', 3)}) < {rmse / 1.8}")
    errors = [browser.run(cell("maximum_likelihood", 1))]
    button = (
        "[...document.querySelectorAll('button')].find(b => b.textContent.trim() == 'New noise')"
    )
    for _ in range(2):
        browser.run(f"{button}.click()")
        browser.wait_for(f"!{errors}.includes({cell('maximum_likelihood', 1)})")
        errors.append(browser.run(cell("maximum_likelihood", 1)))
    browser.run("document.querySelector('#controls input[type=checkbox]').click()")
    browser.wait_for("document.querySelectorAll('#camera [data-spot]').length == 2")
    browser.wait_for("document.querySelector('#distance')?.checkVisibility()")


def test_a_file_in_the_page(address: str, browser: Browser, stack: Path, located: str) -> None:
    browser.open(address, 1400, 900)
    browser.wait_for(READY)
    open_file_tab(browser)
    browser.upload("#file input[type=file]", stack)
    count = len(located.splitlines()) - 1
    browser.wait_for(f"/{count} spots in 6 frames/.test({WORDS})")
    browser.wait_for(f"document.querySelectorAll('#rows tbody tr').length == {count}")
    browser.wait_for("document.querySelector('#download')?.checkVisibility()")
    browser.run("document.querySelector('#download').click()")
    saved = browser.downloads / "a stack_spots.csv"
    browser.wait_until(saved.is_file)
    assert saved.read_text() == located
    assert list(pd.read_csv(saved)["file"].unique()) == [stack.name]
    bad = browser.downloads / "notes.txt"
    bad.write_text("no image")
    browser.run("document.querySelector('#file button[aria-label=Clear]').click()")
    browser.wait_for("document.querySelector('#file input[type=file]')")
    browser.upload("#file input[type=file]", bad)
    browser.wait_for("document.querySelector('#found [role=alert]')")
    assert browser.run(WORDS).strip().startswith("notes.txt: ")
    browser.wait_for("!document.querySelector('#rows td')")


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_page_fits_and_asks_nobody_else(
    width: int, height: int, address: str, browser: Browser, stack: Path
) -> None:
    browser.requests.clear()
    browser.open(address, width, height)
    browser.wait_for(READY)
    wide = "document.documentElement.scrollWidth"
    assert browser.run(wide) <= width
    open_file_tab(browser)
    browser.upload("#file input[type=file]", stack)
    browser.wait_for("document.querySelector('#rows td') && document.querySelector('#found img')")
    assert browser.run(wide) <= width
    asked = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith(address)] == []
    assert browser.errors == []
