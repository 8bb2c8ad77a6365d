"""Where data sets, self-supervised weights and runs live."""

import os
from pathlib import Path

from .files import as_folder

REPOSITORY = Path(__file__).resolve().parents[2]


def data_root() -> Path:
    """The data root: ``EMLC_DATA``, else ``data/`` of the repository, else ``./data``.

    Raises:
        ConfigError: it is a file.
    """
    if os.environ.get("EMLC_DATA"):
        return as_folder(os.environ["EMLC_DATA"], "EMLC_DATA")
    return REPOSITORY / "data" if (REPOSITORY / "pyproject.toml").is_file() else Path("data")


def weights_root(given: str | Path | None = None) -> Path:
    """The folder of the weights that were pretrained here: the given one, else ``weights`` below the data root."""
    return data_root() / "weights" if given in (None, "") else as_folder(given, "runs")


def runs_root(given: str | Path | None = None) -> Path:
    """The folder of all runs: the given one, else ``EMLC_RUNS``, else ``runs`` below the data root.

    Raises:
        ConfigError: it is no path, or a file.
    """
    if given in (None, ""):
        given = os.environ.get("EMLC_RUNS")
        return as_folder(given, "EMLC_RUNS") if given else data_root() / "runs"
    return as_folder(given, "runs")
