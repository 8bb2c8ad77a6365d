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
README_LINE = " ".join(README.split())
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

RATES = [("symmetric", rate) for rate in (0.2, 0.5, 0.8, 0.9)]
COLUMNS = [("cifar10", *column) for column in (*RATES, ("asymmetric", 0.4))]
COLUMNS += [("cifar100", *column) for column in RATES]
EPOCH = 382
# k = 1
ROWS = [
    ("cross_entropy", 4 * EPOCH), ("cross_entropy", 15 * EPOCH), ("clean_only", 4 * EPOCH),
    ("fixmatch", 4 * EPOCH), ("fixmatch", 6 * EPOCH), ("emlc", 4 * EPOCH),
]  # fmt: skip


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), ("CONTRIBUTING.md", 50)])
def test_it_is_short(page, most):
    assert len(PAGES[page].splitlines()) <= most


def runs():
    """(method, steps, seed) x column: test accuracies in percent. Not every method sees the noise."""
    names = [f"small{time}_{data}" for time in ("", "_equal_time") for data in ("cifar10", "cifar100")]
    table = pd.concat(pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in names).query("k == 1")
    index = ["method", "steps", "seed"]
    wide = table.pivot_table("test_accuracy", index, ["dataset", "noise_type", "noise"]) * 100
    sees = wide.index.get_level_values("method").map(lambda name: METHODS[name].sees_noise)
    clean = [wide.loc[~sees, [name]].bfill(axis=1).ffill(axis=1) for name in ("cifar10", "cifar100")]
    return pd.concat([wide[sees], pd.concat(clean, axis=1)])[COLUMNS].sort_index()


def main_table():
    """The cells of the first rows of the table that begins with a column of 20 %."""
    lines = README.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| | 20 %")) + 2
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first : first + len(ROWS) + 2]]


def test_the_main_table_is_that_of_the_committed_runs():
    table, known = main_table(), runs()
    for row, method in zip(table, ROWS, strict=False):
        values = known.loc[method]
        assert len(values) == 3  # seeds
        shown = [f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(), values.std(), strict=True)]
        assert [cell.strip("*") for cell in row[1:]] == shown
        epochs = method[1] // EPOCH
        assert re.search(rf"\b{epochs}\b", row[0]), f"{row[0]} does not say {epochs}"


def test_the_labels_are_those_of_the_committed_runs():
    names = ("small_cifar10", "small_cifar100")
    table = pd.concat(pd.read_csv(ROOT / "figures" / f"{name}.csv") for name in names)
    table = table.query("k == 1 and method == 'emlc'").assign(right=lambda rows: 1 - rows["wrong_share"])
    for row, column in zip(main_table()[len(ROWS) :], ["right", "last_recovery_all"], strict=True):
        means = 100 * table.groupby(["dataset", "noise_type", "noise"])[column].mean()[COLUMNS]
        assert row[1:] == [f"{mean:.1f}" for mean in means]


def test_bold_is_what_is_clearly_above_every_other_method():
    known, shown = runs(), main_table()
    for i, column in enumerate(COLUMNS):
        values = {row: known.loc[row, column] for row in ROWS}
        clear = [
            row
            for row in ROWS
            if all(
                stats.ttest_rel(values[row], values[other], alternative="greater").pvalue < 0.025
                for other in ROWS
                if other[0] != row[0]
            )
        ]
        assert [row for row, cells in zip(ROWS, shown, strict=False) if cells[i + 1].startswith("**")] == clear


def test_every_difference_it_quotes_is_in_the_table_of_claims():
    known = "\n".join(pd.read_csv(ROOT / "figures" / "claims.csv")["statistic"].dropna())
    quoted = re.findall(r"[+-]\d+\.\d\d ± \d+\.\d\d", README)
    assert len(quoted) >= 5
    assert not [difference for difference in quoted if difference not in known]


def test_what_it_says_of_many_comparisons():
    claims = pd.read_csv(ROOT / "figures" / "claims.csv").dropna(subset="p")
    small = claims[claims["scale"].str.contains(", small")]
    of, clear, by_rate, by_holm = decided(small["p"]).values()
    assert f"of {of} verdicts at `small` {clear} are clear, {by_rate} by Benjamini and Hochberg" in README_LINE
    assert f"{by_holm} by Holm" in README
    # The least certain of what the advice about noise of 80 and 90 % goes by.
    fixmatch, cross_entropy = "EMLC (k = 1) is above FixMatch", "in equal time EMLC (k = 1) is above cross-entropy"
    found = [
        small[small["claim"].str.startswith(claim) & small["scale"].str.startswith(scale)]["p"].item()
        for claim, scale in (
            (fixmatch, "CIFAR-10, small, 90 %"),
            (cross_entropy, "CIFAR-100, small, 90 %"),
            (cross_entropy, "CIFAR-100, small, 80 %"),
        )
    ]
    words = "FixMatch of four epochs at 90 %, p = {}; cross-entropy for 15 epochs at 90 and 80 % of CIFAR-100, {}"
    assert f"{words} and {{}})".format(*(round(p, 2) for p in found)) in README_LINE
    assert max(found) <= small["p"].sort_values().iloc[by_rate - 1]  # they are among those that are left


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
