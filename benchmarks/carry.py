"""What comes back from a machine that is only lent: rows for the tables in ``figures/``.

python -m benchmarks.carry DIR
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from emlc_lib.runtime.files import write_atomically
from emlc_lib.runtime.places import REPOSITORY

COSTS = "step_cost_gpu.csv"
COST_KEY = ["variant", "execution", "hardware", "model", "noisy", "clean"]


def collect(folder: Path, figures: Path) -> dict[str, int]:
    """Adds the rows of runs and of costs in ``folder`` to the tables of the same names in ``figures``.

    Rows of the same digest and name, or variant, stay as they are; costs that could not be measured are left out.

    Returns:
        How many rows are new, by table.
    """
    added = {}
    for file in sorted(folder.glob("*.csv")):
        rows = read(file)
        if file.name == COSTS:
            added[file.name] = merge(figures / file.name, rows[rows["error"] == ""], COST_KEY)
        elif "digest" in rows:
            added[file.name] = merge(figures / file.name, rows, [n for n in ("name", "digest") if n in rows])
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


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m benchmarks.carry DIR, an existing folder")
    for name, rows in collect(Path(sys.argv[1]), REPOSITORY / "figures").items():
        print(f"{name}: {rows} new rows")


if __name__ == "__main__":
    main()
