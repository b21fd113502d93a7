"""The benchmarks that need no sweep: they run, and their figures are what they must be."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Run, save_checkpoint
from PIL import Image

from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.spotter import SpotterRegressor

PARTICLES = ROOT.parent / "shared/data/stuck_particles.tif"
OURS = ["our phasor", "our maximum_likelihood"]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("peers", monkeypatch)


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


def test_peers_measures_what_is_installed(peers: ModuleType, tmp_path: Path) -> None:
    conditions = ["1,000 photons, 10, 1.0 px", "edge", "4 px"]
    few = ["--spots", "96", "--rounds", "1", "--only", *OURS, "--conditions", *conditions]
    peers.main([*few, "--output", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "peers.csv").set_index(["condition", "program"])
    assert len(rows) == 4 * 5
    alone = rows.loc["1,000 photons, 10, 1.0 px"]
    assert alone.loc["our maximum_likelihood", "ratio"] == pytest.approx(1, abs=0.2)
    assert alone.loc["our maximum_likelihood", "within_68"] == pytest.approx(0.68, abs=0.12)
    assert alone.loc["our phasor", "ratio"] < 1.6
    assert (alone["low"] < alone["ratio"]).all()
    assert (alone["ratio"] < alone["high"]).all()
    for edge in ("edge, to be found", "edge, crop given"):
        assert rows.loc[edge].loc["our maximum_likelihood, width known", "no_answer"] == 0
        assert rows.loc[edge].loc["our maximum_likelihood, width known", "ratio"] < 1.3
    crowded = rows.loc["neighbour at 4 px", "ratio"]
    assert crowded["our maximum_likelihood_pair"] < 1.3 < crowded["our maximum_likelihood"]
    text = (tmp_path / "peers.md").read_text()
    assert text.count("| our phasor |") == 7


@pytest.mark.parametrize("side", [13, 20, 33])
def test_a_checkpoint_gets_images_of_its_own_size(
    peers: ModuleType, tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClosedForm, "any_size", False)
    path = tmp_path / "fit.ckpt"
    settings = {"sigma_px": 1.0, "read_noise": 0.0}
    model = ClosedForm(side, "maximum_likelihood", settings)
    save_checkpoint(path, model, side)
    few = ["--spots", "96", "--rounds", "1", "--only", "model", "--conditions", "edge"]
    few.append("10, 1.0")
    peers.main([*few, "--checkpoint", str(path), "--output", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "peers.csv")
    assert set(rows["program"]) == {"our model fit"}
    assert (rows["no_answer"] == 0).all()
    assert (rows["ratio"] < 1.3).all()


def test_a_checkpoint_of_any_size_is_told_the_pixel_or_not(
    peers: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "net.ckpt"
    save_checkpoint(path, SpotterRegressor(17, margin_px=5), 17)
    asked: list[tuple[tuple[int, int], float]] = []
    with pytest.MonkeyPatch.context() as patch:
        search = SpotterRegressor.search
        patch.setattr(
            SpotterRegressor,
            "search",
            lambda self, *looked: (asked.append(looked), search(self, *looked))[1],
        )
        programs = peers.load_programs([path], ["model"])
        for condition in ("300 photons, 10, 1.0 px", "edge, to be found"):
            for program in programs.values():
                del asked[:]
                peers.answers(program, peers.make_spots(condition, 32, 33))
                middle = ((13, 13), 6) if program is programs["our model net"] else ((17, 17), 5)
                assert asked[0] == (middle if "photons" in condition else ((33, 33), 0))


@pytest.fixture
def stuck_particles(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("stuck_particles", monkeypatch)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Five frames of particles that stay, of 4,000 photons each: 8 photons a count."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:130, :130]
    image = np.full((130, 130), 300.0)
    for at_x, at_y in [(30 + 24 * k % 73, 20 + 18 * (k // 3)) for k in range(15)]:
        away = (x - at_x - rng.uniform(-0.5, 0.5)) ** 2 + (y - at_y - rng.uniform(-0.5, 0.5)) ** 2
        image = image + 4000 / (2 * np.pi * 1.2**2) * np.exp(-away / (2 * 1.2**2))
    frames = (rng.poisson(image, (5, 130, 130)) / 8 + 300).round().astype(np.uint16)
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(tmp_path / "film.tif", save_all=True, append_images=others)
    return tmp_path / "film.tif"


def test_particles_that_stay_scatter_by_the_bound(stuck_particles: ModuleType, film: Path) -> None:
    gain, offset = stuck_particles.calibrate(stuck_particles.read_frames(film))
    assert gain == pytest.approx(8, rel=0.25)
    assert offset == pytest.approx(300, abs=10)
    table = stuck_particles.main([str(film), "--only", "our maximum_likelihood, ", "our centre"])
    fit, mass = table["our maximum_likelihood, width known"], table["our centre_of_mass"]
    assert fit["scatter"] / fit["bound"] == pytest.approx(1, abs=0.2)
    assert fit["within_68"] == pytest.approx(0.68, abs=0.15)
    assert fit["follows"] == pytest.approx(1, abs=0.05)
    assert mass["follows"] < 0.5


@pytest.mark.skipif(not PARTICLES.is_file(), reason="needs the frames of stuck particles")
def test_a_real_camera(stuck_particles: ModuleType) -> None:
    fit = stuck_particles.main([str(PARTICLES), "--only", "our maximum_likelihood, "])
    figures = fit["our maximum_likelihood, width known"]
    assert figures["low"] < 0.083 < figures["high"]
    assert figures["no_answer"] == 0
    assert figures["follows"] == pytest.approx(1, abs=0.02)
    assert figures["within_68"] == pytest.approx(0.68, abs=0.08)


def test_every_spot_of_frames_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = benchmark("frames", monkeypatch)
    few = ["--only", "our locate", "--frames", "3", "--empty", "20", "--output", str(tmp_path)]
    frames.main([*few, "--kinds", "100 spots", "20 at the edge", "10, read noise"])
    rows = pd.read_csv(tmp_path / "frames.csv").set_index(["kind", "program"])
    told = rows.loc["100 spots"].loc["our locate"]
    assert told["recall"] > 0.97
    assert told["precision"] > 0.99
    assert told["ratio"] == pytest.approx(1, abs=0.15)
    assert told["within_68"] == pytest.approx(0.68, abs=0.08)
    assert rows.loc["20 at the edge"].loc["our locate", "ratio_edge"] == pytest.approx(1, abs=0.2)
    empty = pd.read_csv(tmp_path / "empty.csv").set_index(["program", "asked"])
    assert empty.loc[("our locate, 0.1 asked for", 0.1), "false_alarms"] < 0.5
    said = capsys.readouterr().out
    assert said.count("| our locate, width not told |") == 2
    assert "| our locate, 0.01 asked for |" in said


def test_an_answer_is_right_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = benchmark("frames", monkeypatch)
    made = frames.make_frames(20, 2)
    beside = np.array([[0.5, 0], [0.1, 0], [0.2, 0], [5.0, 0]])
    twice = np.repeat(made.xy[:2], 2, axis=0) + beside
    table = frames.Table(np.zeros(4, int), np.pad(twice, ((0, 0), (0, 2))))
    answers, spots = frames.matches(table, made)
    assert answers.tolist() == [1, 2]
    assert spots.tolist() == [0, 1]
    other = frames.Table(np.ones(4, int), table.found)
    assert len(frames.matches(other, made._replace(xy=made.xy + 1e4))[0]) == 0


def test_frames_of_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = benchmark("frames", monkeypatch)
    settings = tuple(sorted({**frames.KINDS["20 spots"], "count": 2}.items()))
    seconds, found = frames.timed("our locate", settings, None)
    assert seconds > 0
    assert found == pytest.approx(40, abs=3)
    written = frames.as_speeds(
        {("20 spots", "our locate"): frames.Timed([2.0], [4.0])}, ["our locate"]
    )
    assert "| our locate | 2 [2, 2] | 4 [4, 4] |" in written


@pytest.mark.skipif(not PARTICLES.is_file(), reason="needs a real camera's frames")
def test_real_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    real = benchmark("real_frames", monkeypatch)
    stars = PARTICLES.with_name("star_field.tiff")
    figures = real.main(["--particles", str(PARTICLES), "--stars", str(stars)])
    for told in ("nothing told", "gain, offset"):
        assert figures[told]["found"] == figures[told]["all"] >= 39
        assert figures[told]["scatter"] < 0.083
        assert figures[told]["within_68"] == pytest.approx(0.68, abs=0.08)
    assert figures["stars"]["stars"] > 250
    assert figures["stars"]["ghosts_corners"] == 0


def test_what_flags_are_worth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["flags.py", "--spots", "32"])
    benchmark("flags", monkeypatch).main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    found = {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}
    assert found["alone"] == ["0.0%", "", "0.0%"]
    assert found["neighbour at 3.0 px, 1.0 as bright"][1:] == ["100%", "100.0%"]


def test_weights_for_the_package_are_all_that_answers_need(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark("package_weights", monkeypatch).main([str(tiny_run.best), "tiny"], tmp_path)
    assert (tmp_path / "tiny.ckpt").stat().st_size < tiny_run.best.stat().st_size
    image = np.zeros((1, 16, 16), np.uint8)
    image[0, 4, 9] = 255
    (model, data), (before, _) = (load_model(p) for p in (tmp_path / "tiny.ckpt", tiny_run.best))
    assert data.size == (16, 16)
    for name, column in before.predict(image).items():
        np.testing.assert_array_equal(model.predict(image)[name], column)


def test_a_step_in_bfloat16_learns_something_else_and_foreach_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = benchmark("step", monkeypatch)
    names = ["default", "bfloat16", "foreach Adam"]
    step.report("heatmap", names, rounds=1, settings=["data.image_size=25"], with_parts=True)
    head, mixed, foreach, flops, _, *parts = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(r"heatmap: [\d.]+ ms a step, and rendering, [\d.]+% of both", head)
    assert mixed.split()[0] == "bfloat16"
    assert mixed.endswith("other weights afterwards")
    assert foreach.split()[0] == "foreach"
    assert foreach.endswith("same weights afterwards")
    # Maps of 31 x 31 and 29 x 29; the head multiplies each of the last's places with its two.
    first, second, head_flops = 2 * 32 * 9 * 8 * 31**2, 2 * 32 * 9 * 8 * 29**2, 2 * 32 * 2 * 29**2
    assert flops.split()[0] == f"{(2 * first + 3 * second + 2 * head_flops) / 1e6:.0f}"
    shares = [float(part.split()[-1].rstrip("%")) for part in parts]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert min(shares[:2]) > 5


def test_a_grid_of_an_earlier_version_and_of_this(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = benchmark("grid", monkeypatch)
    asked: list[tuple[Path, list[str]]] = []

    def run_grid(package: Path, folder: Path, settings: list[str]) -> object:
        asked.append((package, settings))
        now = package == ROOT
        cells = {
            "equal": {"test/mean_error_px": 2.0, "test/hit_rate": 0.5, "threads": 1},
            "not": {"test/mean_error_px": 3.0 + now / 8, "test/hit_rate": 0.5, "threads": 1},
        }
        return grid.Grid(10.0 * len(asked), 4.0 - 3 * now, cells)

    monkeypatch.setattr(grid, "run_grid", run_grid)
    monkeypatch.setattr(grid, "take_out", lambda commit, folder: None)
    grid.main(["--images", "64", "trainer.max_epochs=2"])
    said = capsys.readouterr().out
    settings = ["model=cnn", "trainer.max_epochs=2", "data.train_samples=64"]
    assert [one for _, one in asked] == [settings] * 4
    assert [package == ROOT for package, _ in asked] == [False, True, False, True]
    assert "| wall clock | 10, 30 | 20, 40 | 1.67 [1.33, 2.00] |" in said
    assert "| processor | 4, 4 | 1, 1 | 0.25 [0.25, 0.25] |" in said
    assert "| equal | 2.000000 | 2.000000 | 2 figures equal |" in said
    assert "| not | 3.000000 | 3.125000 | up to 0.12 apart |" in said


@pytest.mark.slow
def test_the_grid_finds_the_same_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = benchmark("grid", monkeypatch)
    small = ["data.image_size=16", "data.train_samples=64", "trainer.max_epochs=1,2", "trainer=cpu"]
    grid.main(["--before", "HEAD", "--rounds", "1", *small])
    assert capsys.readouterr().out.count("figures equal") == 4


def test_a_grid_grows_by_one_thing_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    growth = benchmark("growth", monkeypatch)
    grid = benchmark("grid", monkeypatch)
    asked: list[dict[str, str]] = []

    def run_grid(package: Path, folder: Path, settings: list[str]) -> object:
        asked.append(dict(word.split("=") for word in settings))
        return grid.Grid(0.0, float(len(asked)), {})

    monkeypatch.setattr(growth, "run_grid", run_grid)
    growth.main([])
    assert "| epochs: 4, 8, 16, 32 | 5.0, 6.0, 7.0, 8.0 |" in capsys.readouterr().out
    assert [len(words["optim.lr"].split(",")) for words in asked[:5]] == [1, 2, 4, 8, 1]
    assert asked[0] == asked[4] == asked[9] == asked[13]
    assert [words["data.image_size"] for words in asked[12:]] == ["25", "50", "100", "200"]
