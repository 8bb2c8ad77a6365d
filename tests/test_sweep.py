"""Grids of runs, in parallel processes, and two processes at the same run."""

import subprocess
import sys

import pandas as pd
import pytest

from emlc_lib import ConfigError, find_runs, make_config, run
from emlc_lib.commands import main
from emlc_lib.experiments.costs import VARIANTS
from emlc_lib.experiments.notebook import announce, committed_table
from emlc_lib.experiments.sweep import grid, product, sweep
from emlc_lib.experiments.tables import accuracy_table, caption, compare, gap_to_best, run_table

FAST = {"dataset": "digits", "preset": "smoke", "epochs": 1}


def test_a_grid_has_every_combination_once():
    methods = ["emlc", "cross_entropy", "clean_only"]
    configs = grid(["symmetric:0.2", "symmetric:0.9"], methods, [1, 5], [0, 1], **FAST)
    # Per seed: EMLC at two rates and two k, cross-entropy at two rates, clean-only once.
    assert len(configs) == 2 * (4 + 2 + 1)
    assert len({config.digest for config in configs}) == len(configs)
    assert {getattr(c, "k", 1) for c in configs if c.method != "emlc"} == {1}


def test_every_parameter_may_be_a_list():
    noises = [0.5, "asymmetric:0.4"]
    configs = product(noise=noises, method=["emlc", "clean_only"], k=[1, 5], batch_size=[32, 64], **FAST)
    # Per batch size: EMLC at two noises and two k, clean-only once.
    assert len(configs) == len({config.digest for config in configs}) == 2 * (4 + 1)
    assert {(c.noise_type, c.noise) for c in configs} == {("symmetric", 0.5), ("asymmetric", 0.4)}
    assert {config.method for config in product(**FAST)} == {"emlc", "cross_entropy", "clean_only"}
    with pytest.raises(ConfigError, match=r"^batch_size: must be a list of one or more values"):
        product(batch_size=[], **FAST)


def test_parallel_runs_are_the_same_runs(tmp_path):
    configs = grid(["symmetric:0.5"], ["emlc", "cross_entropy"], [1], [0, 1], **FAST)
    alone = sweep(configs[:1], root=tmp_path / "alone", show=False)
    together = sweep(configs, root=tmp_path / "together", jobs=2, show=False)
    assert [r.config for r in together] == configs
    assert alone[0].result["test_accuracy"] == together[0].result["test_accuracy"]
    pd.testing.assert_frame_equal(alone[0].steps, together[0].steps)
    # A second time nothing is trained.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "together").rglob("result.json")}
    sweep(configs, root=tmp_path / "together", jobs=2, show=False)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "together").rglob("result.json")}


@pytest.mark.slow
def test_the_command_line_writes_a_row_per_run(tmp_path, capsys):
    arguments = ["-y", "{dataset: digits, noise: 0.5, method: cross_entropy, seed: [0, 1]}"]
    csv = tmp_path / "out" / "runs.csv"
    main(["sweep", *arguments, "--jobs", "1", "--runs", str(tmp_path), "--csv", str(csv)])
    table = pd.read_csv(csv)
    assert len(table) == 2
    assert table["command"].str.startswith("papermill notebooks/03_cifar.ipynb").all()
    assert {"torch", "hardware", "threads", "digest", "seconds"} <= set(table)
    printed = capsys.readouterr().out
    assert "cross_entropy" in printed
    # The CSV carries everything the table is made of.
    pd.testing.assert_frame_equal(accuracy_table(table), accuracy_table(find_runs(tmp_path)))
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "-p", "noise", "symmetric:1.7"])
    assert caught.value.code == 2
    assert "noise" in capsys.readouterr().err
    for options in ('{"k": 3}', "[1]", "lr=0.1"):
        with pytest.raises(SystemExit):
            main(["--options", options])
        assert "options" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "-y", '{"options": {"lrr": 0.1}}'])
    assert "did you mean 'lr'" in capsys.readouterr().err


def test_the_tables_of_no_runs_are_empty():
    assert run_table([]).empty
    assert accuracy_table([]).empty


def rows(method, accuracies, noise=0.5, k=1):
    return [
        {"method": method, "k": k, "noise_type": "symmetric", "noise": noise, "seed": seed, "test_accuracy": value}
        for seed, value in enumerate(accuracies)
    ]


def test_the_comparison_pairs_seeds_and_takes_the_better_k():
    table = pd.DataFrame(
        rows("emlc", [0.60, 0.62, 0.64])
        + rows("emlc", [0.70, 0.71, 0.72], k=5)
        + rows("cross_entropy", [0.50, 0.52, 0.51])
        + rows("clean_only", [0.71, 0.72, 0.73], noise=0.9)  # whatever noise it was run at
        + rows("emlc", [0.30, 0.40, 0.50], noise=0.9)
        + rows("cross_entropy", [0.30, 0.39, 0.52], noise=0.9)
    )
    half, most = compare(table).to_dict("records")
    assert (half["noise"], half["k"], half["emlc"]) == (0.5, 5, 71.0)
    assert half["minus cross_entropy"] == 20.0
    # Differences 20, 19, 21: standard deviation 1 over the root of three seeds, times 4.30, Student's t.
    assert half["± cross_entropy"] == pytest.approx(4.303 * 3**-0.5, abs=0.006)
    assert half["verdict cross_entropy"] == "clear"
    assert half["minus clean_only"] == -1.0
    assert half["± clean_only"] == 0.0
    # Differences 0, 1, -2: nothing to be seen.
    assert most["verdict cross_entropy"] == "undecided"
    assert most["minus clean_only"] == -32.0
    assert gap_to_best(table, k=5).to_dict() == {"symmetric 0.5": -1.0}
    assert gap_to_best(table, k=1)["symmetric 0.9"] == -32.0


def test_two_standard_errors_of_three_seeds_are_not_clear():
    """Differences 0.35, 1.53 and 0.53: t = 2.2, p = 0.16; with the same spread nine seeds are clear."""
    differences = [0.0035, 0.0153, 0.0053]
    for seeds, verdict in ((1, "undecided"), (3, "clear")):
        ours, other = [0.5 + d for d in differences] * seeds, [0.5] * 3 * seeds
        table = pd.DataFrame(rows("emlc", ours) + rows("cross_entropy", other))
        (row,) = compare(table).to_dict("records")
        assert row["verdict cross_entropy"] == verdict
    (row,) = compare(pd.DataFrame(rows("emlc", [0.5]))).to_dict("records")  # no baseline: nothing is claimed
    assert row["verdict cross_entropy"] == "undecided"


def test_tables_are_found_wherever_a_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(committed_table("step_cost_resnet34_cpu.csv")) > 5
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "own.csv", index=False)
    assert committed_table("own.csv")["a"].tolist() == [1]
    rows = {"variant": VARIANTS["steps"]}  # whose names are indented there
    assert len(committed_table("step_cost_resnet34_cpu.csv", ["variant"], rows=rows)) > 5
    with pytest.raises(ConfigError, match=r"has no row whose variant is 'nothing'"):
        committed_table("step_cost_resnet34_cpu.csv", rows={"variant": ["nothing"]})
    with pytest.raises(ConfigError, match=r"nowhere\.csv is neither"):
        committed_table("nowhere.csv")


def test_the_announcement_names_the_start(tmp_path, capsys):
    announce(make_config(dataset="digits", device="cpu"), tmp_path)
    assert "start: random weights; device: CPU" in capsys.readouterr().out
    announce(make_config(dataset="cifar10", preset="quick", device="cpu"), tmp_path)
    assert "start: SimCLR weights, 200 supervised steps" in capsys.readouterr().out


SCRIPT = """
import sys
from pathlib import Path
from emlc_lib import make_config, run
r = run(make_config(dataset="digits", preset="smoke", epochs=4), root=Path(sys.argv[1]), show=True)
print(r.result["test_accuracy"], r.result["seconds"])
"""


@pytest.mark.slow
def test_two_processes_at_the_same_run_train_it_once(tmp_path):
    """Both report the same wall time, so one of them read what the other had trained."""
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path], stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    (folder,) = tmp_path.iterdir()
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix == ".tmp") == []
    alone = run(make_config(dataset="digits", preset="smoke", epochs=4), root=tmp_path, show=False)
    assert outputs[0][0].split()[0] == str(alone.result["test_accuracy"])


def test_a_caption_says_where_the_numbers_are_from():
    table = pd.DataFrame(rows("emlc", [0.5, 0.6]) + rows("cross_entropy", [0.4]))
    table = table.assign(dataset="digits", preset="smoke", hardware="a machine", torch="2.0")
    assert caption(table) == "digits, 50 % symmetric noise, preset smoke, 1 to 2 seeds; a machine, torch 2.0"
    more = pd.concat([table, table.assign(noise=0.9)])
    assert "noise" not in caption(more)
    assert "seeds: 2" in caption(table[table["method"] == "emlc"])
