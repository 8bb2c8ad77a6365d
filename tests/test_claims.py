"""Verdicts: statistics against scipy's own, and the committed claims against the tables that they come from."""

import ast

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from emlc_lib.experiments.claims import claims
from emlc_lib.experiments.notebook import save_tables, show_claims
from emlc_lib.experiments.statistics import (
    Difference,
    above_chance,
    by_seed,
    decided,
    differences,
    judged,
    paired,
    spread,
    told,
)
from emlc_lib.runtime.places import REPOSITORY

FIGURES = REPOSITORY / "figures"


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_is_that_of_the_paired_t_test(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(1, 1, n), rng.normal(0, 1, n)
    found = paired(pd.Series(a), pd.Series(b))
    reference = stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(0.95)
    # Both are the same formula in float64.
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9)
    assert found.clear == (reference.pvalue < 0.05)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)


def test_seeds_are_paired_by_name_and_not_by_place():
    a, b = pd.Series({0: 5.0, 1: 9.0, 7: 1.0}), pd.Series({1: 8.0, 0: 4.0, 3: 0.0})
    found = paired(a, b)
    assert (found.mean, found.n, found.std) == (1.0, 2, 0.0)
    assert paired(pd.Series({0: 1.0}), pd.Series({1: 1.0})).verdict == "undecided"
    with pytest.raises(ValueError, match=r"^seeds: 0 is there twice"):
        paired(pd.Series([1.0, 2.0], index=[0, 0]), b)


def test_columns_are_chosen_by_value_and_compared_by_name():
    table = pd.DataFrame(
        {"name": ["a", "a", "b", "b", "c"], "seed": [0, 1, 1, 0, 1], "noise": 0.5, "x": [0.5, 0.7, 0.4, 0.3, 0.1]}
    )
    assert by_seed(table, "x", name="b", noise=0.5).to_dict() == {0: 30, 1: 40}
    assert by_seed(table, "x", name="b", noise=0.9).empty
    found = differences(table, "x", "a")
    assert list(found.index) == ["b", "c"]
    assert found["b"].mean == pytest.approx(25)
    assert (found["c"].n, found["c"].verdict) == (1, "undecided")
    shown = spread(table.assign(y=np.nan), {"x": "shown", "y": "nothing"}, digits=1)
    # Standard deviations by hand: 20 and 10 points apart, over the square root of two.
    assert shown["shown"].tolist() == ["60.0 ± 14.1", "35.0 ± 7.1", "10.0"]
    assert shown["n"].tolist() == [2, 2, 1]
    assert set(shown["nothing"]) == {"-"}


def test_claims_are_told_by_a_word_of_what_or_where():
    undecided = judged("k = 5 is above", "Figure 6", Difference(0.5, 1.0, 3, 0.4), "digits", "")
    table = pd.DataFrame([undecided, judged("other", "Table 1", Difference(2, 1, 3, 0.4), "x", "")])
    line = "undecided: k = 5 is above; +0.50 ± 1.00 points, n = 3; digits; about {} seeds would decide"
    assert told(table, "Figure 6") == told(table, "k = 5") == line.format(undecided.seeds)
    assert told(table, "Table 1") == "holds: other; +2.00 ± 1.00 points, n = 3; x"
    assert told(table, "Table 2") == told(table, "Table 1", scale="digits") == ""
    assert told(table, "Table 1", "Figure 6", scale="x") == told(table, "Table 1")


def test_a_notebook_says_that_claims_are_read(capsys, tmp_path):
    show_claims("Table 2")
    assert capsys.readouterr().out.startswith("read, not run: claims.csv\n")
    table = pd.DataFrame({"x": [1]})
    save_tables(None, {"a": table})
    save_tables(tmp_path / "new", {"a": table})
    assert pd.read_csv(tmp_path / "new" / "a.csv").equals(table)


def test_above_chance_is_five_standard_errors():
    error = (0.1 * 0.9 / 100) ** 0.5
    assert above_chance(0.1 + 5.01 * error, 10, 100)
    assert not above_chance(0.1 + 4.99 * error, 10, 100)


def test_one_seed_decides_nothing():
    found = paired(pd.Series({0: 50.0}), pd.Series({0: 1.0}))
    assert found.verdict == "undecided"
    assert found.seeds_to_decide is None
    assert np.isnan(found.p)


def test_corrections_for_many_tests():
    """By hand, sorted: Holm asks for .05 / 4, .05 / 3, .05 / 2 and stops at .03 > .025; Benjamini and Hochberg
    go by the last one that is at most .05 i / 4, which is the third (.03 < .0375)."""
    assert decided([0.03, 0.001, 0.2, 0.014]) == {"tests": 4, "clear": 3, "Benjamini-Hochberg": 3, "Holm": 2}
    assert decided([0.01, 0.02]) == {"tests": 2, "clear": 2, "Benjamini-Hochberg": 2, "Holm": 2}
    assert decided([0.5])["Holm"] == 0


def test_verdicts_go_by_the_column_p():
    table = pd.read_csv(FIGURES / "claims.csv")
    tested = table[table["p"].notna()]
    assert (tested["verdict"].isin(["holds", "fails"]) == (tested["p"] < 0.05)).all()
    assert len(tested) > 150


def test_the_number_of_seeds_that_would_decide():
    found = Difference(mean=0.5, half=np.nan, n=3, std=1.0)
    n = found.seeds_to_decide
    halves = [stats.t.interval(0.95, m - 1, scale=1 / m**0.5)[1] for m in (n - 1, n)]
    assert halves[0] >= 0.5 > halves[1]


@pytest.mark.parametrize(
    ("mean", "above", "verdict"),
    [(2, True, "holds"), (-2, True, "fails"), (-2, False, "holds"), (0.5, True, "undecided")],
)
def test_verdicts(mean, above, verdict):
    claim = judged("", "", Difference(mean, 1.0, 3, 0.4), "", "", above=above)
    assert claim.verdict == verdict
    assert (claim.seeds is not None) == (verdict == "undecided")


def test_the_committed_table_is_what_the_other_tables_say():
    """``python -m emlc_lib.experiments.claims`` makes it again."""
    text = claims(FIGURES).to_csv(index=False)
    assert (FIGURES / "claims.csv").read_text() == text


def test_every_committed_table_of_runs_has_one_run_a_seed():
    """Means and pairs would count a seed twice otherwise."""
    for path in FIGURES.glob("*.csv"):
        table = pd.read_csv(path)
        if "digest" in table and "test_accuracy" in table:
            setting = [name for name in ("name", "digest", "seed") if name in table]
            assert not table.duplicated(setting).any(), path.name


# What is computed from other tables or from labels alone, and further columns of a table of runs.
NOT_MEASURED = {"claims", "noise_files"}
PARTS = {
    "correctors_quick_cifar10_curves", "correctors_small_cifar10_curves", "fidelity_quick_cifar10_gradients",
    "tsne_quick_cifar10_points", "tsne_small_cifar10_points",
}  # fmt: skip


def test_every_measurement_says_where_and_how_it_was_made():
    for path in FIGURES.glob("*.csv"):
        if path.stem in NOT_MEASURED | PARTS:
            continue
        table = pd.read_csv(path)
        needed = ["hardware", "torch", "command"]
        if path.stem != "pretraining_small":  # of a GPU, when threads were not kept
            needed.append("threads")
        assert set(needed) <= set(table), path.name
        assert table[needed].notna().all(axis=None), path.name


def test_claims_that_a_notebook_shows_are_those_of_the_table():
    """Where a claim is new, other notebooks may show it, too, and must be run again."""
    table, calls = pd.read_csv(FIGURES / "claims.csv"), 0
    for path in sorted((FIGURES.parent / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "show_claims(" in cell.source:
                shown = "".join(output.get("text", "") for output in cell.outputs)
                for words, scale in literal_calls(cell.source):
                    assert told(table, *words, scale=scale) in shown, f"{path.name}: {words}"
                    calls += 1
    assert calls > 10


def literal_calls(source):
    """The arguments of calls of show_claims, as far as they can be read without running the cell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show_claims":
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            if all(isinstance(part, ast.Constant) for part in parts):
                yield [part.value for part in node.args], "".join(keyword.value.value for keyword in node.keywords)
