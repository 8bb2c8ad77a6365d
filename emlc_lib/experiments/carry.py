"""What comes back from a machine that is only lent: rows for the tables in ``figures/``, large files in pieces."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..runtime.files import write_atomically
from ..runtime.parameters import ConfigError

COSTS = "step_cost_gpu.csv"
COST_KEY = ["variant", "execution", "hardware", "model", "noisy", "clean"]


def pack(files: Sequence[Path], root: Path, out: Path, piece_mb: float | None) -> dict:
    """Writes files below ``root`` as one tar archive, in pieces of ``piece_mb`` MB (10^6 bytes), into ``out``.

    Without a size it is one piece. Pieces of an earlier archive are removed.

    Returns:
        What :func:`join` needs: ``sha256`` of the archive and the names of its ``pieces``, in order.
    """
    digest, pieces = hashlib.sha256(), []
    for old in out.glob("carried.tar.*"):
        old.unlink()
    size = max(1, int(piece_mb * 1e6)) if piece_mb else -1
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for file in files:
                tar.add(file, file.relative_to(root))
        archive.seek(0)
        while piece := archive.read(size):
            digest.update(piece)
            pieces.append(f"carried.tar.{len(pieces):03d}")
            (out / pieces[-1]).write_bytes(piece)
    return {"sha256": digest.hexdigest(), "pieces": pieces}


def join(folder: Path, root: Path) -> list[str]:
    """Puts the files of :func:`pack` back below ``root``; returns their names.

    Raises:
        ConfigError: there are none, a piece is missing or damaged, or a file is there with other content.
    """
    carried = _report(folder)["carried"]
    missing = [name for name in carried["pieces"] if not (folder / name).is_file()]
    if missing or not carried["pieces"]:
        raise ConfigError(f"DIR: {folder} lacks {', '.join(missing) or 'files in pieces (--piece-mb)'}")
    with tempfile.TemporaryFile() as archive:
        archive.writelines((folder / name).read_bytes() for name in carried["pieces"])
        archive.seek(0)
        if hashlib.file_digest(archive, "sha256").hexdigest() != carried["sha256"]:
            raise ConfigError(f"DIR: the pieces in {folder} are not what was written (SHA-256 differs)")
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    for name, content in contents.items():
        if (root / name).is_file() and (root / name).read_bytes() != content:
            raise ConfigError(f"DIR: {root / name} is there with other content; move it away first")
    for name, content in contents.items():
        write_atomically(root / name, lambda path, content=content: path.write_bytes(content))
    return list(contents)


def collect(folder: Path, figures: Path) -> dict[str, int]:
    """Adds the rows that came back in ``folder`` to the tables in ``figures``; how many are new, by table.

    Runs go to ``PRESET_DATASET.csv``, steps to :data:`COSTS`. Rows of the same digest or variant stay as they are,
    and what failed is left out.

    Raises:
        ConfigError: the folder is not one that :mod:`emlc_lib.experiments.gpu` has filled.
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
        raise ConfigError(
            f"DIR: {folder} has no readable report.json of emlc_lib.experiments.gpu ({error})"
        ) from None
