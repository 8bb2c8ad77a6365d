"""The paper's numbers, and tables of runs beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .config import Config
from .runs import Run

# Table 1, test accuracy in percent: (mean, standard deviation over 5 seeds or None).
_COLUMNS = [
    ("cifar10", "symmetric", 0.2), ("cifar10", "symmetric", 0.5), ("cifar10", "symmetric", 0.8),
    ("cifar10", "symmetric", 0.9), ("cifar10", "asymmetric", 0.4), ("cifar100", "symmetric", 0.2),
    ("cifar100", "symmetric", 0.5), ("cifar100", "symmetric", 0.8), ("cifar100", "symmetric", 0.9),
]  # fmt: skip
_ROWS: dict[str, list[float | tuple[float, float] | None]] = {
    "cross_entropy": [86.8, 79.4, 62.9, 42.7, 83.2, 62.0, 46.7, 19.9, 10.1],
    "mwnet": [89.76, None, 56.56, None, 88.69, 66.73, None, 19.04, None],
    "mlnt": [92.9, 88.8, 76.1, 58.3, 88.6, 67.7, 58.0, 40.1, 14.3],
    "mlc": [92.6, 88.1, 77.4, 67.9, None, 66.5, 52.4, 18.9, 14.2],
    "mslc": [93.4, 89.9, 69.8, 56.1, 91.6, 72.5, 65.4, 24.3, 16.7],
    "fasten": [91.94, 90.07, 86.78, 79.52, 90.43, 68.75, 63.82, 55.22, None],
    "emlc k=1": [
        (91.8, 0.51), (91.16, 0.25), (90.95, 0.24), (90.71, 0.07), (91.81, 0.05),
        (72.48, 0.44), (67.08, 0.35), (60.37, 0.31), (54.04, 0.57),
    ],
    "emlc k=5": [
        (93.53, 0.21), (92.63, 0.05), (89.89, 0.07), (89.57, 0.30), (91.82, 0.19),
        (73.05, 0.20), (68.61, 0.34), (60.51, 0.19), (52.49, 0.18),
    ],
}  # fmt: skip


def paper_accuracy(config: Config) -> tuple[float, float | None] | None:
    """Table 1's (mean, standard deviation or None) in percent for this setting; None if it has no such cell."""
    row = f"emlc k={config.k}" if config.method == "emlc" else config.method
    column = (config.dataset, config.noise_type, config.noise)
    if row not in _ROWS or column not in _COLUMNS:
        return None
    value = _ROWS[row][_COLUMNS.index(column)]
    return value if isinstance(value, tuple) or value is None else (value, None)


def accuracy_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per setting: n seeds, mean and standard deviation (n - 1) of the test accuracy in percent.

    Both the paper's rule (best clean-set epoch) and the last epoch are there, label recovery at the last
    epoch and, where Table 1 has the setting, the paper's number; whether the two compare is ``comparable``:
    only the paper preset does.
    """
    rows = []
    for run in runs:
        paper = paper_accuracy(run.config)
        rows.append(
            {
                "dataset": run.config.dataset,
                "preset": run.config.preset,
                "noise": f"{run.config.noise_type} {run.config.noise:g}",
                "method": run.config.method + (f" k={run.config.k}" if run.config.method == "emlc" else ""),
                "accuracy": 100 * run.result["test_accuracy"],
                "last": 100 * run.result["last_test_accuracy"],
                "recovery": 100 * run.result.get("last_recovery_all", float("nan")),
                "seconds": run.result["seconds"],
                "paper": paper[0] if paper else float("nan"),
                "comparable": run.config.preset == "paper",
            }
        )
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["dataset", "preset", "noise", "method"], sort=False)
    table = groups.agg(
        n=("accuracy", "size"),
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
        last_mean=("last", "mean"),
        last_std=("last", "std"),
        recovery=("recovery", "mean"),
        seconds=("seconds", "mean"),
        paper=("paper", "first"),
        comparable=("comparable", "first"),
    )
    return table.round(2).reset_index()
