"""``benchmarks.small``: the tables of preset ``small`` are what it says, and rows are added once."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks import small, small_tables
from benchmarks.carry import read
from emlc_lib.experiments.command_line import command
from emlc_lib.experiments.runs import run
from emlc_lib.experiments.studies import STUDY_COLUMNS
from emlc_lib.experiments.sweep import grid
from emlc_lib.networks.weights import shipped_weights_file
from emlc_lib.runtime.parameters import ConfigError
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
    data = ("cifar10", "cifar100")
    assert names == [f"small{time}_{of}" for time in ("", "_equal_time") for of in data]
    for name in names:
        configs = list(small_tables.plain(name, None, **COMMON))
        rows = list(read(FIGURES / f"{name}.csv")["digest"])
        assert len(rows) == len(set(rows)) == len(configs)
        assert set(rows) == {config.digest for config in configs}


@pytest.fixture
def starts(monkeypatch, tmp_path):
    """A folder of SimCLR weights, of which "pretraining" makes copies of those that are shipped."""
    made = []

    def store(config, images, folder):
        made.append((config.epochs, config.warmup_epochs))
        shipped = shipped_weights_file(config.dataset, config.model)
        values = load_file(shipped)
        values = {name: value + config.epochs for name, value in values.items()}  # each other contents
        with safe_open(shipped, "pt") as file:
            save_file(values, folder / shipped.name, metadata=file.metadata())

    monkeypatch.setattr(small_tables, "pretrain_and_store", store)
    monkeypatch.setattr(small_tables, "load_dataset", lambda _: None)
    return tmp_path / "starts", made


@pytest.mark.parametrize("name", small.TABLES)
def test_tables_name_runs_once(name, human, starts, tmp_path):
    runs = small.listed(name, [tmp_path], human, **COMMON)
    assert runs
    assert len({(label, config.name) for label, config in runs}) == len(runs)
    assert {config.preset for _, config in runs} == {"small"}
    assert all(bool(label) == (name in small_tables.NAMED) for label, _ in runs)


def test_without_their_file_the_labels_of_people_are_left_out(human):
    with_them, without = ([*small_tables.plain("small_cifar10_further", file, **COMMON)] for file in (human, None))
    assert {config.noise_type for config in without} == {"symmetric"}
    assert {config.noise_type for config in with_them} == {"symmetric", "human"}


def test_starts_are_pretrained_once_and_their_path_is_in_no_command(starts):
    folder, made = starts
    for _ in range(2):
        runs = list(small_tables.named(small_tables.STARTS_TABLE, folder, pd.DataFrame(), **COMMON))
    assert made == [(5, 0.1), (25, 0.5), (100, 2.0)]  # a fiftieth of it warms up, as of the 200
    of_emlc = {label: config for label, config in runs if config.method == "emlc" and config.seed == 0}
    assert len({config.digest for config in of_emlc.values()}) == len(of_emlc) == 6
    said = command(of_emlc["SimCLR, 25 epochs"])
    assert str(folder) not in said
    assert '"start_weights": "FILE.safetensors"' in said
    assert "start_weights" not in command(of_emlc["random start"])


def test_a_start_is_not_made_again_for_rows_that_are_there(starts, tmp_path):
    """Other bits of it would be another start."""
    folder, made = starts
    listed = small_tables.named(small_tables.STARTS_TABLE, folder, pd.DataFrame(), **COMMON)
    whole = pd.DataFrame({"name": [label for label, _ in listed if label == "SimCLR, 5 epochs"]})
    assert len(whole) == 9  # at 90 % alone
    made.clear()
    left = list(small_tables.named(small_tables.STARTS_TABLE, tmp_path / "other", whole, **COMMON))
    assert [epochs for epochs, _ in made] == [25, 100]
    assert not [label for label, _ in left if label == "SimCLR, 5 epochs"]
    with pytest.raises(ConfigError, match=r"^--out: .*/third/5/\S+ is not there"):
        list(small_tables.named(small_tables.STARTS_TABLE, tmp_path / "third", whole[:3], **COMMON))


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Three tables of short runs on digits, of which the last has names, and a store of their own."""
    monkeypatch.setenv("EMLC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(small, "cores", lambda: 1)  # two threads would wait for each other beside other tests
    tables = {"first": ["cross_entropy", "clean_only"], "second": ["cross_entropy", "emlc"]}
    options = {"dataset": "digits", "preset": "smoke", "epochs": 1}

    def plain(name, human, searched, **common):
        return grid([0.5], tables[name], [1], [0], **options, **common)

    def named(name, starts, begun, searched, **common):
        for label, changes in {"as it is": {}, "the same": {}, "no meta term": {"meta_term": False}}.items():
            yield from (
                (label, config) for config in grid([0.5], ["emlc"], [1], [0], **options, **changes, **common)
            )

    monkeypatch.setattr(small, "plain", plain)
    monkeypatch.setattr(small, "named", named)
    monkeypatch.setattr(small, "PLAIN", tuple(tables))
    return list(tables)


def work(names, folders):
    errors = []
    small.work({name: small.listed(name, folders, None, device="cpu") for name in names}, folders, 1, errors)
    return errors


def test_tables_have_copies_of_rows_that_others_have(short, tmp_path):
    """Of what was there before, and of what is run for another table at the same time."""
    for out in (tmp_path / "together", tmp_path / "after"):
        out.mkdir()
    work([*short, "named"], [tmp_path / "together"])
    work(short, [tmp_path / "after"])
    work(["named"], [tmp_path / "after"])
    plain, one, other = (
        read(tmp_path / name) for name in ("after/second.csv", "together/named.csv", "after/named.csv")
    )
    assert sorted(one["name"]) == sorted(other["name"]) == ["as it is", "no meta term", "the same"]
    assert one.sort_values("name").to_dict("list") == other.sort_values("name").to_dict("list")
    copied = other[other["name"] == "as it is"].drop(columns=["name", "meta_weights"])
    assert copied.to_dict("records") == plain[plain["method"] == "emlc"].to_dict("records")
    assert list(one) == list(STUDY_COLUMNS)
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 4


def test_a_run_that_has_a_row_is_not_run_again(short, tmp_path, capfd):
    work(short[:1], [tmp_path])
    first = (tmp_path / "first.csv").read_text()
    work(short, [tmp_path])
    assert (tmp_path / "first.csv").read_text() == first
    assert sorted(read(tmp_path / "second.csv")["method"]) == ["cross_entropy", "emlc"]
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 3
    (tmp_path / "second.csv").unlink()  # its run is there: it is read back
    before = (next((tmp_path / "runs").glob("*-emlc-*")) / "result.json").stat().st_mtime_ns
    work(short, [tmp_path])
    assert sorted(read(tmp_path / "second.csv")["method"]) == ["cross_entropy", "emlc"]
    assert (next((tmp_path / "runs").glob("*-emlc-*")) / "result.json").stat().st_mtime_ns == before
    assert "second: papermill notebooks/03_cifar.ipynb" in capfd.readouterr().err


def test_what_another_folder_has_is_not_run_again_unless_asked_for(short, tmp_path):
    figures, first, second = (tmp_path / name for name in ("figures", "first", "second"))
    for folder in (figures, first, second):
        folder.mkdir()
    work(short[:1], [figures])
    work(short[:1], [figures, first])
    assert not list(first.iterdir())
    work(short[1:], [figures, first])
    assert sorted(read(first / "second.csv")["method"]) == ["cross_entropy", "emlc"]  # one is a copy
    work(short[:1], [second])
    assert len(read(second / "first.csv")) == 2


def test_a_run_that_fails_stops_no_other(short, tmp_path, monkeypatch):
    def broken(config, **_):
        if config.method == "cross_entropy":
            raise FloatingPointError("the loss\nis not finite")
        return run(config, show=False)

    monkeypatch.setattr(small, "run", broken)
    (line,) = work(short, [tmp_path])
    assert re.fullmatch(r"digits-\S+-cross_entropy-\S+: FloatingPointError: the loss is not finite", line)
    assert list(read(tmp_path / "first.csv")["method"]) == ["clean_only"]
    assert list(read(tmp_path / "second.csv")["method"]) == ["emlc"]


def dies_once(name, label, config, workers):
    """A job of a process that dies with one configuration the first time."""
    if config.seed == 1 and not (mark := Path(label)).exists():
        mark.touch()
        os._exit(1)
    return name, label, config, "done"


@pytest.mark.slow
def test_where_a_process_dies_the_rest_is_done_by_others(tmp_path, capfd):
    configs = grid([0.5], ["cross_entropy"], [1], range(4), dataset="digits", preset="smoke", device="cpu")
    jobs = [("table", str(tmp_path / "mark"), config) for config in configs]
    done = [config.seed for _, _, config, _ in small.all_of(jobs, dies_once, 2)]
    assert sorted(done) == [0, 1, 2, 3]
    assert "a process has died" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "no such table: nonsense"),
        (["--out", "o", "--jobs", "0"], "--jobs: must be at least 1 (got 0)"),
        ([], "--out: must name a folder"),
        (["--out", "/dev/null/x"], "--out: /dev/null is a file"),
        (["--out", "o", "--device", "cuda:77"], "device:"),
        (["--costs", "/dev/null/x.csv"], "--costs: /dev/null/x.csv"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(words, message, here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["small", *words])
    with pytest.raises(SystemExit):
        small.main()
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_epochs_of_equal_time_are_those_of_the_committed_costs():
    of_emlc = pd.read_csv(FIGURES / "step_cost_small_cpu.csv").query("k == 1").set_index("method")["of EMLC's"]
    epochs = make_config(preset="small", device="cpu").epochs
    assert {method: round(epochs / of_emlc[method]) for method in small.EQUAL_TIME} == small.EQUAL_TIME
    # And one epoch of EMLC takes no more than four of any that it is compared with.
    assert all(epochs * of_emlc[method] >= 1 for method in ("cross_entropy", "clean_only", "fixmatch"))


def test_costs_are_of_every_method_that_is_compared_at_equal_time():
    table = small.costs(device="cpu", dataset="digits", preset="smoke")
    assert set(small.EQUAL_TIME) < set(table["method"])
    assert (table["seconds"] > 0).all()
    of_emlc = table.set_index(["method", "k"])["of EMLC's"]
    assert of_emlc["emlc", 1] == 1
    assert of_emlc["cross_entropy", 1] < 1


def test_what_a_search_has_found_is_found_in_every_folder(tmp_path):
    """Rows that two folders have count once; of fewer rows than there are settings nothing is chosen."""
    rows = [
        {
            "name": f"{method}, {name} {value}",
            "digest": f"{method}{i}{noise}",
            "test_accuracy": 0.5 + 0.1 * (i == 2),
        }
        for method, settings in small_tables.SEARCH.items()
        for i, (name, value) in enumerate(settings)
        for noise in ((0.5,) if method == "fixmatch" else (0.5, 0.9))
    ]
    found = small_tables.chosen(pd.DataFrame(rows))
    assert found == {method: dict([settings[2]]) for method, settings in small_tables.SEARCH.items()}
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        pd.DataFrame(rows).to_csv(folder / "search.csv", index=False)
    assert small_tables.chosen(small._begun("search", [tmp_path / "first", tmp_path / "second"])) == found
    usual = {method: dict([settings[0]]) for method, settings in small_tables.SEARCH.items()}
    assert small_tables.chosen(pd.DataFrame(rows[:-1]))["emlc_consistent"] == usual["emlc_consistent"]
    assert small_tables.chosen(pd.DataFrame()) == usual


def test_the_committed_search_decides_what_is_run():
    """The rows of the extension that are there are those of the settings that the search found."""
    runs = small.listed("small_extension_cifar10", [FIGURES], None, **COMMON)
    rows = set(read(FIGURES / "small_extension_cifar10.csv")["digest"])
    assert {config.digest for _, config in runs} == rows
    assert len(rows) == len(runs)
