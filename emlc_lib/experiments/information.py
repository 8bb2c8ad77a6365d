"""What each kind of information is worth over the rate of symmetric noise: what no publication reports."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..methods import METHODS
from .statistics import paired

# What a training knows, and the method and k that stand for it.
KINDS: Mapping[str, tuple[str, int]] = {
    "noisy labels as they are": ("cross_entropy", 1),
    "clean labels alone": ("clean_only", 1),
    "clean labels, and images without labels": ("fixmatch", 1),
    "clean labels, and noisy ones corrected": ("emlc", 1),
}

# Steps of an epoch of preset ``small``, and of the runs there that take the time of EMLC's four epochs with k = 1,
# by the costs of a step on one core (figures/step_cost_small_cpu.csv).
EPOCH = 382
IN_EMLCS_TIME: Mapping[str, int] = {
    "emlc": 4 * EPOCH, "cross_entropy": 15 * EPOCH, "clean_only": 15 * EPOCH, "fixmatch": 6 * EPOCH,
    "emlc_consistent": 3 * EPOCH, "dividemix": 2 * EPOCH,
}  # fmt: skip


def in_emlcs_time(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of preset ``small`` that take the time of EMLC's four epochs, of a table with their ``steps``."""
    return table[(table["steps"] == table["method"].map(IN_EMLCS_TIME)) & (table["k"] == 1)]


def by_information(table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracies in percent: a row per noise rate and seed, a column per kind of information, else NaN.

    Args:
        table: :func:`emlc_lib.experiments.tables.run_table`, with one run of a method, k, rate and seed. What sees
            no noisy label serves every rate.
    """
    table = table[table["noise_type"] == "symmetric"]
    seeing = table[table["method"].map(lambda method: METHODS[method].sees_noise)]
    index = pd.MultiIndex.from_frame(seeing[["noise", "seed"]].drop_duplicates()).sort_values()
    columns = {}
    for kind, (method, k) in KINDS.items():
        own = table[(table["method"] == method) & (table["k"] == k)]
        level, wanted = ["noise", "seed"], index
        if not METHODS[method].sees_noise:
            level, wanted = ["seed"], index.get_level_values("seed")
        columns[kind] = 100 * own.set_index(level)["test_accuracy"].reindex(wanted).to_numpy()
    return pd.DataFrame(columns, index=index)


def best_information(table: pd.DataFrame) -> pd.DataFrame:
    """By noise rate, the kind of the highest mean, the next, and their difference paired by seed.

    Returns:
        One row per rate that has two of them: ``best``, ``next``, ``difference`` in points, ``±`` half of its
        95 % interval, ``pairs`` and ``verdict``.
    """
    rows = []
    for noise, part in by_information(table).groupby(level="noise"):
        part = part.droplevel("noise").dropna(axis=1, how="all")
        if len(part.columns) < 2:
            continue
        best, second = part.mean().sort_values(ascending=False).index[:2]
        found = paired(part[best], part[second])
        rows.append(
            {"noise": noise, "best": best, "next": second, "difference": found.mean, "±": found.half}
            | {"pairs": found.n, "verdict": found.verdict}
        )
    return pd.DataFrame(rows).round(2)


def crossings(table: pd.DataFrame) -> pd.DataFrame:
    """Between which noise rates the means of two kinds of information change places.

    Returns:
        One row per change: ``first``, which is above at the lower rate, ``second``, above at the higher rate,
        ``from`` and ``to``, and ``at``, the rate where straight lines between the means cross.
    """
    means = by_information(table).groupby(level="noise").mean()
    rows = []
    for a, b in itertools.combinations(means.columns, 2):
        apart = (means[a] - means[b]).dropna()
        for (low, before), (high, after) in itertools.pairwise(apart.items()):
            if np.sign(before) * np.sign(after) < 0:
                first, second = (a, b) if before > 0 else (b, a)
                at = low + (high - low) * before / (before - after)
                rows.append({"first": first, "second": second, "from": low, "to": high, "at": round(at, 2)})
    return pd.DataFrame(rows, columns=["first", "second", "from", "to", "at"])
