"""Named comparisons: what runs, and what the tables say, against plain NumPy."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from emlc_lib import ConfigError, make_config
from emlc_lib.experiments.studies import (
    ABLATION,
    ARCHITECTURE,
    CORRECTORS,
    FIDELITY,
    clean_losses,
    curve_table,
    look_ahead,
    run_study,
    study_table,
    summarise_study,
)

FAST = {"dataset": "digits", "preset": "smoke", "epochs": 1, "noise": 0.5, "show": False}


@pytest.mark.parametrize(
    "study", [CORRECTORS, ABLATION, ARCHITECTURE, FIDELITY, look_ahead([1, 5], ["paper", "exact"])]
)
@pytest.mark.parametrize("where", [{"dataset": "digits"}, {"dataset": "cifar10", "preset": "quick"}])
def test_every_study_is_made_of_different_allowed_configurations(study, where):
    configs = [make_config(device="cpu", **where | {"noise": 0.9} | dict(changes)) for changes in study.values()]
    names = {config.name for config in configs}
    assert len(names) == len(study)


def test_the_rows_of_table_3_change_one_part_at_a_time():
    """Each of the paper's five rows differs from the row before by the one component that it adds."""
    base = {"method": "emlc", "dataset": "cifar10", "preset": "paper", "device": "cpu"}
    rows = [make_config(**base | dict(changes)).model_dump() for changes in list(ABLATION.values())[:5]]
    added = [{key for key in a if a[key] != b[key]} for a, b in itertools.pairwise(rows)]
    assert added == [{"meta_term"}, {"corruption"}, {"corruption"}, {"autoaugment"}]
    assert rows[4] == make_config(**base).model_dump()


class TestLookAhead:
    def test_one_step_has_one_kind_of_weights(self):
        study = look_ahead([1, 2], ["paper", "momentum"])
        assert list(study) == ["paper, k = 1", "paper, k = 2", "momentum, k = 2"]
        assert study["momentum, k = 2"] == {"k": 2, "meta_weights": "momentum"}

    def test_equal_updates_need_k_times_the_epochs(self):
        study = look_ahead([1, 5], ["paper"], equal="updates", epochs=3)
        assert [changes["epochs"] for changes in study.values()] == [3, 15]


class TestRuns:
    @pytest.fixture(scope="class")
    @classmethod
    def named(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("runs")
        study = {"usual": {}, "the same": {"lr": 0.02}, "no meta term": {"meta_term": False}}
        return run_study(study, [0, 1], root=root, jobs=1, **FAST), root

    def test_names_that_mean_one_configuration_share_a_run(self, named):
        runs, root = named
        assert [(name, run.config.seed) for name, run in runs] == [
            (name, seed) for seed in (0, 1) for name in ("usual", "the same", "no meta term")
        ]
        assert len(list(root.glob("*/result.json"))) == 4
        assert runs[0][1] is runs[1][1]
        assert not runs[2][1].config.meta_term

    def test_the_table_has_the_names_in_front(self, named):
        table = study_table(named[0])
        assert list(table.columns[:2]) == ["name", "meta_weights"]
        assert (table["meta_weights"] == "paper").all()
        assert table["command"].str.startswith("papermill").all()
        assert table.loc[table["name"] == "no meta term", "command"].str.contains("meta_term").all()

    def test_a_mistake_is_found_before_anything_runs(self, tmp_path):
        with pytest.raises(ConfigError, match=r"^lr"):
            run_study({"good": {}, "bad": {"lr": -1}}, [0], root=tmp_path, **FAST)
        assert not list(tmp_path.iterdir())


def table_of(accuracies):
    rows = [
        {"name": name, "seed": seed, "test_accuracy": a, "last_teacher_test_accuracy": a, "last_recovery_all": a}
        for name, values in accuracies.items()
        for seed, a in values.items()
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    table = table_of({"base": {0: 0.5, 1: 0.7, 2: 0.6}, "better": {2: 0.63, 0: 0.52, 1: 0.71}, "few": {1: 0.6}})
    result = summarise_study(table, baseline="base")
    assert list(result.index) == ["base", "better", "few"]
    differences = 100 * np.array([0.02, 0.01, 0.03])
    assert result.loc["better", "difference"] == pytest.approx(differences.mean(), abs=0.005)  # 2 decimals
    assert result.loc["better", "±"] == pytest.approx(4.303 * differences.std(ddof=1) / 3**0.5, abs=0.006)
    assert result.loc["better", "std"] == pytest.approx(np.std([63, 52, 71], ddof=1), abs=0.005)
    assert result.loc["base", ["difference", "±"]].tolist() == [0, 0]
    assert result["n"].tolist() == [3, 3, 1]
    assert result["verdict"].tolist() == ["baseline", "undecided", "undecided"]
    assert result.loc["few", "difference"] == pytest.approx(-10)
    assert np.isnan(result.loc["few", "±"])
    assert result.loc["few", "pairs"] == 1
    assert "difference" not in summarise_study(table)
    own = summarise_study(table, baseline={"base": "base", "better": "better", "few": "better"})
    assert own.loc["better", "difference"] == 0
    assert own.loc["few", "difference"] == pytest.approx(-11)


def fake_run(n, k, **columns):
    steps = pd.DataFrame({"step": np.arange(n)} | columns)
    config = SimpleNamespace(k=k, seed=3, epochs=2, noise=0.9)
    return SimpleNamespace(steps=steps, config=config, digest="d")


def test_curves_are_means_over_windows():
    rng = np.random.default_rng(0)
    recovery, loss = rng.random(103), rng.random(103)
    loss[np.arange(103) % 5 != 4] = np.nan  # one update of the teacher every 5 steps
    table = curve_table([("a", fake_run(103, 5, recovery_all=recovery, meta_loss=loss))], points=10)
    assert table["step"].tolist() == [*range(10, 101, 10), 103]
    for i, row in table.iterrows():
        part = slice(10 * i, min(10 * i + 10, 103))
        assert row["recovery_all"] == pytest.approx(recovery[part].mean(), abs=1e-5)  # 5 decimals
        if i < 10:
            assert row["meta_loss"] == pytest.approx(np.nanmean(loss[part]), abs=1e-5)
    assert table["epoch"].iloc[-1] == 2
    assert table["recovery_wrong"].isna().all()


def test_a_window_is_never_shorter_than_the_look_ahead():
    loss = np.where(np.arange(40) % 20 == 19, 1.0, np.nan)
    table = curve_table([("a", fake_run(40, 20, meta_loss=loss))], points=40)
    assert table["step"].tolist() == [20, 40]
    assert table["meta_loss"].tolist() == [1.0, 1.0]


def test_clean_losses_are_means_of_the_first_window_and_of_two_fifths():
    steps = np.arange(1, 11)
    curves = pd.DataFrame({"name": "a", "seed": 0, "step": steps, "meta_loss": [7.0, 1, 2, 2, 2, 2, 2, 2, 3, 5]})
    without = curves.assign(name="b", meta_loss=np.nan)
    longer = curves.assign(name="c", step=10 * steps)
    rows = clean_losses(pd.concat([curves, without, longer])).to_dict("records")
    expected = {"seed": 0, "first window": 7, "first fifth": 4, "last fifth": 4}  # each of its own steps
    assert rows == [{"name": name} | expected for name in ("a", "c")]
