"""The benchmarks that need no sweep: they run, and their figures are what they must be."""

import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from conftest import ROOT

OURS = ["our phasor", "our maximum_likelihood"]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("threadpoolctl")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("peers")


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
    assert text.count("| our phasor |") == 4
