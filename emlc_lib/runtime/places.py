"""Where data sets, self-supervised weights and runs live."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def data_root() -> Path:
    """The data root: ``EMLC_DATA``, else ``data/`` of the repository, else ``./data``."""
    if os.environ.get("EMLC_DATA"):
        return Path(os.environ["EMLC_DATA"]).expanduser()
    return REPOSITORY / "data" if (REPOSITORY / "pyproject.toml").is_file() else Path("data")


def weights_root() -> Path:
    """The folder of the weights that were pretrained here: ``weights`` below the data root."""
    return data_root() / "weights"


def runs_root() -> Path:
    """The folder of all runs: ``EMLC_RUNS``, else ``runs`` below the data root."""
    return Path(os.environ["EMLC_RUNS"]) if os.environ.get("EMLC_RUNS") else data_root() / "runs"
