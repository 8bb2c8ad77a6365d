"""What comes back from a machine that is only lent: rows for the tables in ``figures/``."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from emlc_lib.runtime.files import write_atomically
from emlc_lib.runtime.parameters import ConfigError

COSTS = "step_cost_gpu.csv"
COST_KEY = ["variant", "execution", "hardware", "model", "noisy", "clean"]


def collect(folder: Path, figures: Path) -> dict[str, int]:
    """Adds the rows that came back in ``folder`` to the tables in ``figures``; how many are new, by table.

    Runs go to ``PRESET_DATASET.csv``, steps to :data:`COSTS`. Rows of the same digest or variant stay as they are,
    and what failed is left out.

    Raises:
        ConfigError: the folder is not one that :mod:`benchmarks.gpu` has filled.
    """
    _report(folder)
    runs, costs = read(folder / "runs.csv"), read(folder / COSTS)
    added = {}
    if len(runs):
        for (preset, dataset), rows in runs.groupby(["preset", "dataset"]):
            added[f"{preset}_{dataset}.csv"] = merge(figures / f"{preset}_{dataset}.csv", rows, ["digest"])
    if len(costs):
        good = costs[costs["error"] == ""].drop(columns="error")
        added[COSTS] = merge(figures / COSTS, good, COST_KEY)
    return added


def merge(path: Path, rows: pd.DataFrame, key: Sequence[str], *, replace: bool = False) -> int:
    """Adds rows to a CSV file, which may be yet to come; of the same key the old row stays, unless ``replace``.

    Returns:
        The number of rows more than before.
    """
    old, new = read(path), rows.astype(object).where(rows.notna(), "").astype(str)
    both = pd.concat([old, new]).fillna("").drop_duplicates(key, keep="last" if replace else "first")
    if not both.equals(old):
        write_atomically(path, lambda p: both.to_csv(p, index=False))
    return len(both) - len(old)


def read(path: Path) -> pd.DataFrame:
    """A CSV file as text, so that what is written back is unchanged to the letter; empty where there is none."""
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()


def _report(folder: Path) -> dict:
    try:
        return json.loads((folder / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"DIR: {folder} has no readable report.json of benchmarks.gpu ({error})") from None
