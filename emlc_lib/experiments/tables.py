"""The paper's numbers, and tables of runs beside them."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.parameters import RATED
from ..methods import METHODS
from ..runtime.parameters import ConfigError
from ..training.config import Config
from .published import in_paper
from .runs import Run
from .statistics import paired

# Columns of a table of runs, one row a run.
_SETTING = ("dataset", "preset", "noise_type", "noise", "method", "k", "seed")
_FILE = "file "  # begins the type of noise of a run on a noise file; then comes the file's hash
_RESULTS = (
    "test_accuracy", "best_epoch", "last_test_accuracy", "last_teacher_test_accuracy", "last_recovery_all",
    "last_recovery_wrong", "last_confirmed_wrong", "last_gate_right", "last_gate_wrong", "wrong_share",
)  # fmt: skip
RUN_COLUMNS = (
    *_SETTING, "digest", *_RESULTS, "steps", "seconds", "threads", "hardware", "torch", "python", "command",
)  # fmt: skip

BASELINES = ("cross_entropy", "clean_only")


def paper_accuracy(config: Config) -> tuple[float, float | None] | None:
    """Table 1's or 2's (mean, standard deviation or None) in percent for this setting; None if not in them."""
    return in_paper(config.method, getattr(config, "k", 1), (config.dataset, config.noise_type, config.noise))


def run_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: setting, results (accuracies, recovery and gate in [0, 1]), and where they come from.

    The columns are :data:`RUN_COLUMNS`. This is what is committed as CSV beside a figure.
    """
    rows = []
    for run in runs:
        config, result, source = run.config, run.result, run.result["provenance"]
        row = {"k": 1} | config.model_dump()  # methods without look-ahead steps have no k
        row = {name: row[name] for name in _SETTING} | {"digest": run.digest}
        if config.noise_type == "file":  # each file is a noise of its own
            usual = type(config).model_fields["noise"].default
            row |= {"noise_type": f"{_FILE}{config.noise_sha256[:8]}", "noise": usual}
        row |= {name: result.get(name, float("nan")) for name in _RESULTS}
        row |= {"steps": result["steps"], "seconds": result["seconds"], "threads": source["hardware"]["threads"]}
        row["hardware"] = source["hardware"].get("gpu") or source["hardware"]["processor"]
        row |= {name: source["versions"][name] for name in ("torch", "python")} | {"command": result["command"]}
        rows.append(row)
    return pd.DataFrame(rows)


def accuracy_table(runs: Sequence[Run] | pd.DataFrame) -> pd.DataFrame:
    """One row per setting: n seeds, mean and standard deviation (n - 1) of the test accuracy in percent.

    Both the paper's rule (best clean-set epoch) and the last epoch are there, the teacher's accuracy and the
    label recovery at the last epoch and, where Table 1 or 2 has the setting, the paper's number; whether the two
    compare is ``comparable``: only the paper preset does. Where some runs differ from their preset in further
    parameters, these are in a column ``options``, and such runs have rows of their own; so have runs of one seed
    that only differ in their hardware, or in what only their digest tells.

    Args:
        runs: finished runs, or the :func:`run_table` of some.

    Raises:
        ConfigError: two runs of the same setting and seed.
    """
    table = runs if isinstance(runs, pd.DataFrame) else run_table(runs)
    if table.empty:
        return pd.DataFrame()
    table = table.drop_duplicates("digest") if "digest" in table else table  # copies of a run's folder
    k = np.where([METHODS[m].looks_ahead for m in table["method"]], " k=" + table["k"].astype(str), "")
    labelled = table.assign(
        noise=[
            "any" if blind else noise_label(row.noise_type, row.noise, _told(row.command, "human_key"))
            for row, blind in zip(table.itertuples(), is_blind(table), strict=True)
        ],
        method=table["method"] + k,
        options=[_options(command) for command in table["command"]],
        paper=[
            (in_paper(row.method, row.k, (row.dataset, row.noise_type, row.noise)) or [np.nan])[0]
            for row in table.itertuples()
        ],
    )
    setting = ["dataset", "preset", "noise", "method", "options"]
    labelled["comparable"] = (labelled["preset"] == "paper") & (labelled["options"] == "")
    labelled = _told_apart(labelled, setting)
    _one_run_a_seed(labelled, setting)
    percent = ["test_accuracy", "last_test_accuracy", "last_teacher_test_accuracy", "last_recovery_all"]
    labelled[percent] *= 100
    result = labelled.groupby(setting, sort=False).agg(
        n=("test_accuracy", "size"),
        mean=("test_accuracy", "mean"),
        std=("test_accuracy", "std"),
        last_mean=("last_test_accuracy", "mean"),
        last_std=("last_test_accuracy", "std"),
        teacher=("last_teacher_test_accuracy", "mean"),
        recovery=("last_recovery_all", "mean"),
        seconds=("seconds", "mean"),
        paper=("paper", "first"),
        comparable=("comparable", "all"),
    )
    result = result.round(2).reset_index()
    return result if result["options"].any() else result.drop(columns="options")


def caption(table: pd.DataFrame) -> str:
    """What a figure of these runs must say of them: data, noise, preset, seeds, hardware and torch's version.

    Args:
        table: :func:`run_table`, whole or with further columns. Noise is left out where runs differ in it.
    """
    first = table.iloc[0]
    parts = [first["dataset"]]
    if len(table[["noise_type", "noise"]].drop_duplicates()) == 1:
        rate = f"{100 * first['noise']:g} % " if first["noise_type"] in RATED else ""
        parts.append(f"{rate}{first['noise_type']} noise")
    by = [column for column in ("name", "method", "k", "noise_type", "noise") if column in table]
    counts = table.groupby(by)["seed"].nunique()
    low, high = counts.min(), counts.max()
    parts += [f"preset {first['preset']}", f"{low} to {high} seeds" if low < high else f"seeds: {low}"]
    return ", ".join(parts) + f"; {' and '.join(dict.fromkeys(table['hardware']))}, torch {first['torch']}"


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """EMLC at the better of its k, as the paper reports it, against :data:`BASELINES`, per noise setting.

    Args:
        table: :func:`run_table` with EMLC, the baselines and the same seeds for all. Clean-only training does
            not see the noise; its runs serve every setting.

    Raises:
        ConfigError: two runs of the same method, k, noise and seed, which differ in something else.

    Returns:
        One row per noise setting: ``emlc`` (mean test accuracy, percent), ``k``, and per baseline ``minus``
        (mean difference, paired by seed, in points), ``±`` (half of its 95 % interval) and ``verdict``
        (:mod:`emlc_lib.experiments.statistics`).
    """
    rows = []
    _one_run_a_seed(table, ["method", "k", "noise_type", "noise"])
    emlc = table[table["method"] == "emlc"]
    for (kind, noise), part in emlc.groupby(["noise_type", "noise"], sort=False):
        k = part.groupby("k")["test_accuracy"].mean().idxmax()
        best = 100 * part[part["k"] == k].set_index("seed")["test_accuracy"]
        row = {"noise_type": kind, "noise": noise, "emlc": best.mean(), "k": k}
        for name in BASELINES:
            other = table[table["method"] == name]
            own = (other["noise_type"] == kind) & (other["noise"] == noise)
            other = other[own | (is_blind(other) & (not kind.startswith(_FILE)))]
            found = paired(best, 100 * other.set_index("seed")["test_accuracy"])
            row |= {f"minus {name}": found.mean, f"± {name}": found.half, f"verdict {name}": found.verdict}
        rows.append(row)
    columns = [f"{what}{name}" for name in BASELINES for what in ("minus ", "± ", "verdict ")]
    return pd.DataFrame(rows, columns=["noise_type", "noise", "emlc", "k", *columns]).round(2)


def is_blind(table: pd.DataFrame) -> pd.Series:
    """Which runs of a :func:`run_table` serve every noise: their method does not see it, nor have they a file."""
    sees = table["method"].map(lambda name: METHODS[name].sees_noise).astype(bool)
    return ~sees & ~table["noise_type"].str.startswith(_FILE)


def gap_to_best(table: pd.DataFrame, k: int) -> pd.Series:
    """EMLC's mean test accuracy minus the best baseline's, in points, by noise setting; see :func:`compare`.

    Settings without any baseline are left out.
    """
    emlc = table[(table["method"] == "emlc") & (table["k"] == k)]
    others = table[table["method"].isin(BASELINES)]
    compared = compare(pd.concat([emlc, others]))
    gaps = compared[[f"minus {name}" for name in BASELINES]].min(axis=1)
    return gaps.set_axis([noise_label(row.noise_type, row.noise) for row in compared.itertuples()]).dropna()


def noise_label(kind: str, rate: float, key: str = "") -> str:
    """E.g. ``symmetric 0.9``; human labels have their ``key`` for a rate, other noise has neither."""
    return f"{kind} {rate:g}" if kind in RATED else f"{kind} {key}".strip()


def _told(command: str, name: str) -> str:
    """The value of a parameter in a run's command, or nothing."""
    found = re.search(rf"-p {name} (\S+)", command)
    return found.group(1) if found else ""


def _options(command: str) -> str:
    """What a run's command changes in its preset: epochs, processes, and what is under ``options``."""
    parts = [f"{name} {_told(command, name)}" for name in ("epochs", "processes") if _told(command, name)]
    more = re.search(r"-y '(.*)'$", command)
    if more:
        parts += [f"{name} {value}" for name, value in json.loads(more.group(1))["options"].items()]
    return ", ".join(parts)


def _told_apart(table: pd.DataFrame, setting: list[str]) -> pd.DataFrame:
    """With more ``options`` where a setting has two runs of a seed."""
    for column, text in (("hardware", "on"), ("digest", "run")):
        twice = table[table.duplicated([*setting, "seed"])][setting].agg(tuple, axis=1)
        rows = table[setting].agg(tuple, axis=1).isin(set(twice))
        if column in table and table[rows][column].nunique() > 1:
            more = (table["options"] + f", {text} " + table[column]).str.removeprefix(", ")
            table = table.assign(options=np.where(rows, more, table["options"]))
    return table


def _one_run_a_seed(table: pd.DataFrame, setting: list[str]) -> None:
    twice = table[table.duplicated([*setting, "seed"])]
    if len(twice):
        what = ", ".join(f"{name} {twice.iloc[0][name]}" for name in [*setting, "seed"])
        raise ConfigError(f"runs: two of them are of {what}; choose runs that differ in their seed alone")
