"""The README is short, its main table is that of the committed runs, and its map names everything there is."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from scipy import stats

from emlc_lib.experiments.statistics import decided
from emlc_lib.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

RATES = [("symmetric", rate) for rate in (0.2, 0.5, 0.8, 0.9)]
COLUMNS = [("cifar10", *column) for column in (*RATES, ("asymmetric", 0.4))]
COLUMNS += [("cifar100", *column) for column in RATES]
ROWS = ["cross_entropy", "clean_only", "fixmatch", "emlc"]  # k = 1


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), ("CONTRIBUTING.md", 50)])
def test_it_is_short(page, most):
    assert len(PAGES[page].splitlines()) <= most


def runs():
    """(method, seed) x column: test accuracies in percent. Not every method sees the noise."""
    names = ("small_cifar10", "small_cifar100")
    table = pd.concat(pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in names).query("k == 1")
    wide = table.pivot_table("test_accuracy", ["method", "seed"], ["dataset", "noise_type", "noise"]) * 100
    blind = [name for name, method in METHODS.items() if not method.sees_noise and name in wide.index]
    clean = [wide.loc[blind, [name]].bfill(axis=1).ffill(axis=1) for name in ("cifar10", "cifar100")]
    return pd.concat([wide.drop(blind), pd.concat(clean, axis=1)])[COLUMNS].sort_index()


def main_table():
    """The cells of the first rows of the table that begins with a column of 20 %."""
    lines = README.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| | 20 %")) + 2
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first : first + 6]]


def test_the_main_table_is_that_of_the_committed_runs():
    table, known = main_table(), runs()
    for row, method in zip(table, ROWS, strict=False):
        values = known.loc[method]
        assert len(values) == 3  # seeds
        shown = [f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(), values.std(), strict=True)]
        assert [cell.strip("*") for cell in row[1:]] == shown


def test_the_labels_are_those_of_the_committed_runs():
    names = ("small_cifar10", "small_cifar100")
    table = pd.concat(pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in names)
    table = table.query("k == 1 and method == 'emlc'").assign(right=lambda rows: 1 - rows["wrong_share"])
    for row, column in zip(main_table()[4:], ["right", "last_recovery_all"], strict=True):
        means = 100 * table.groupby(["dataset", "noise_type", "noise"])[column].mean()[COLUMNS]
        assert row[1:] == [f"{mean:.1f}" for mean in means]


def test_bold_is_what_is_clearly_best():
    known, shown = runs(), main_table()
    for i, column in enumerate(COLUMNS):
        values = {row: known.loc[row, column] for row in ROWS}
        best, second = sorted(values, key=lambda row: values[row].mean(), reverse=True)[:2]
        clear = stats.ttest_rel(values[best], values[second]).pvalue < 0.05
        bold = [row for row, cells in zip(ROWS, shown, strict=False) if cells[i + 1].startswith("**")]
        assert bold == ([best] if clear else [])


def test_every_difference_it_quotes_is_in_the_table_of_claims():
    known = "\n".join(pd.read_csv(ROOT / "figures" / "claims.csv")["statistic"].dropna())
    quoted = re.findall(r"[+-]\d+\.\d\d ± \d+\.\d\d", README)
    assert len(quoted) >= 5
    assert not [difference for difference in quoted if difference not in known]


def test_what_it_says_of_many_comparisons():
    claims = pd.read_csv(ROOT / "figures" / "claims.csv").dropna(subset="p")
    small = claims[claims["scale"].str.contains(", small")]
    of, clear, by_rate, by_holm = decided(small["p"]).values()
    assert f"of {of} verdicts at `small` {clear} are clear, {by_rate} by Benjamini and Hochberg" in " ".join(
        README.split()
    )
    assert f"{by_holm} by Holm" in README
    # The advice is about these three rivals; what it goes by is ranked here by how close it is.
    rivals = r"EMLC \(k = 1\) is above (?:cross-entropy|FixMatch)"
    advice = small[small["claim"].str.match(rivals) & small["scale"].str.contains("80 %|90 %")]
    advice = advice.assign(p=advice["p"].round(2))
    at = {"FixMatch": "CIFAR-10, small, 90 % symmetric", "cross-entropy": "CIFAR-100, small, 80 % symmetric"}
    found = {name: advice[advice["claim"].str.contains(name) & (advice["scale"] == at[name])] for name in at}
    assert f"EMLC against FixMatch at 90 % (p = {found['FixMatch']['p'].item()})" in README
    assert f"cross-entropy at 80 % of CIFAR-100 (p = {found['cross-entropy']['p'].item()})" in README
    assert set(advice.nlargest(2, "p").index) == {int(rows.index[0]) for rows in found.values()}


def test_the_times_of_a_step_are_those_that_were_measured():
    costs = (
        pd.read_csv(ROOT / "figures" / "step_cost_small_cpu.csv").query("k == 1").set_index("method")["of EMLC's"]
    )
    times = {name: f"{1 / costs[name]:.1f} times" for name in ("cross_entropy", "fixmatch")}
    words = f"takes {times['cross_entropy']} cross-entropy's time and {times['fixmatch']} FixMatch's"
    assert words in " ".join(README.split())


def test_every_notebook_is_on_the_map():
    assert len(NOTEBOOKS) >= 13
    assert {path.stem for path in NOTEBOOKS} == set(re.findall(r"\]\(notebooks/(\w+)\.ipynb\)", README))


def test_every_room_is_on_the_map():
    rooms = set(re.findall(r"^\| `emlc_lib/(\w+)/` \|", README, flags=re.M))
    assert rooms == {path.parent.name for path in (ROOT / "emlc_lib").glob("*/__init__.py")} | {"weights"}


def named(text):
    """The paths that a text names, links and notebooks in it."""
    folders = r"\b(?:emlc_lib|notebooks|figures|tests|benchmarks|data)/[\w./-]*"
    paths = {path.rstrip(".") for path in re.findall(folders, text)} | set(re.findall(r"\]\(([\w./-]+)\)", text))
    return paths | {f"notebooks/{name}.ipynb" for name in re.findall(r"`(\d\d_\w+)`", text)}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_it_names_exists(page):
    assert len(named(PAGES[page])) >= 10
    assert not [path for path in sorted(named(PAGES[page])) if not (ROOT / path).exists()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_path_in_the_text_of_a_notebook_exists(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert named(text)
    assert not [name for name in sorted(named(text)) if not (ROOT / name).exists()]
