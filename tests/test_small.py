"""``benchmarks.small``: the tables of preset ``small`` are what it says, and rows are added once."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import small
from emlc_lib.experiments.carry import read
from emlc_lib.experiments.runs import run
from emlc_lib.experiments.sweep import grid
from emlc_lib.training.presets import make_config

FIGURES = Path(__file__).resolve().parents[1] / "figures"
# What its rows were computed in; a machine without instructions for it would take another for the preset.
COMMON = {"device": "cpu", "preset": "small", "precision": "bfloat16"}


@pytest.fixture
def human(tmp_path):
    """A file of the name that rows do not know; which labels it has does not count before they are read."""
    path = tmp_path / "labels.npz"
    np.savez(path, worse_label=np.zeros(50_000, int), aggre_label=np.zeros(50_000, int))
    return path


def test_the_readmes_command_makes_the_committed_rows():
    """By the digests: every row of the tables, and no other run."""
    (words,) = re.findall(r"`python -m benchmarks\.small ([^`]*)`", (FIGURES.parent / "README.md").read_text())
    names = words[: words.index(" --")].split()
    assert names == ["small_cifar10", "small_cifar100"]
    for name in names:
        listed = list(small.table(name, None, **COMMON))
        assert small.missing(listed, [FIGURES]) == []
        rows = list(read(FIGURES / f"{name}.csv")["digest"])
        assert len(rows) == len(set(rows)) == len(listed)
        assert set(rows) <= set().union(*map(small.digests, listed)), "rows that no command makes"


@pytest.mark.parametrize("name", small.TABLES)
def test_tables_name_runs_once(name, human):
    listed = list(small.table(name, human, **COMMON))
    assert listed
    assert len({config.name for config in listed}) == len(listed)
    assert {config.preset for config in listed} == {"small"}


def test_without_their_file_the_labels_of_people_are_left_out(human):
    with_them, without = ([*small.table("small_cifar10_further", file, **COMMON)] for file in (human, None))
    assert {config.noise_type for config in without} == {"symmetric"}
    assert {config.noise_type for config in with_them} == {"symmetric", "human"}


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Two tables of short runs on digits, which have one of them in common, and a store of their own."""
    monkeypatch.setenv("EMLC_RUNS", str(tmp_path / "runs"))
    tables = {"first": ["cross_entropy", "clean_only"], "second": ["cross_entropy", "emlc"]}

    def table(name, human, **common):
        return grid([0.5], tables[name], [1], [0], dataset="digits", preset="smoke", epochs=1, **common)

    monkeypatch.setattr(small, "table", table)
    return list(tables)


def test_a_run_that_has_a_row_is_not_run_again(short, tmp_path, capfd):
    small.work(short[:1], tmp_path, 1, None, device="cpu")
    first = (tmp_path / "first.csv").read_text()
    small.work(short, tmp_path, 1, None, device="cpu")
    assert (tmp_path / "first.csv").read_text() == first
    assert list(read(tmp_path / "second.csv")["method"]) == ["emlc"]
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 3
    (tmp_path / "second.csv").unlink()  # its run is there: it is read back
    before = (next((tmp_path / "runs").glob("*-emlc-*")) / "result.json").stat().st_mtime_ns
    small.work(short, tmp_path, 1, None, device="cpu")
    assert list(read(tmp_path / "second.csv")["method"]) == ["emlc"]
    assert (next((tmp_path / "runs").glob("*-emlc-*")) / "result.json").stat().st_mtime_ns == before
    assert "second: papermill notebooks/03_cifar.ipynb" in capfd.readouterr().err


def test_a_run_that_fails_stops_no_other(short, tmp_path, monkeypatch):
    def broken(config, **_):
        if config.method == "cross_entropy":
            raise FloatingPointError("the loss\nis not finite")
        return run(config, show=False)

    monkeypatch.setattr(small, "run", broken)
    (line,) = small.work(short, tmp_path, 1, None, device="cpu")
    assert re.fullmatch(r"digits-\S+-cross_entropy-\S+: FloatingPointError: the loss is not finite", line)
    assert list(read(tmp_path / "first.csv")["method"]) == ["clean_only"]
    assert list(read(tmp_path / "second.csv")["method"]) == ["emlc"]


def test_epochs_of_equal_time_are_those_of_the_committed_costs():
    of_emlc = pd.read_csv(FIGURES / "step_cost_small_cpu.csv").query("k == 1").set_index("method")["of EMLC's"]
    epochs = make_config(preset="small", device="cpu").epochs
    assert {method: round(epochs / of_emlc[method]) for method in small.EQUAL_TIME} == small.EQUAL_TIME


def test_costs_are_of_every_method_that_is_compared_at_equal_time():
    table = small.costs(device="cpu", dataset="digits", preset="smoke")
    assert set(small.EQUAL_TIME) < set(table["method"])
    assert (table["seconds"] > 0).all()
    of_emlc = table.set_index(["method", "k"])["of EMLC's"]
    assert of_emlc["emlc", 1] == 1
    assert of_emlc["cross_entropy", 1] < 1
