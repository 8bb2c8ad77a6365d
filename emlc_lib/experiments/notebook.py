"""What the notebooks share: checked parameters, an announcement of the run, saved figures, committed tables."""

from __future__ import annotations

import ast
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from ..methods import METHODS
from ..runtime.files import as_path
from ..runtime.parameters import ConfigError, refuse_unknown
from ..runtime.places import REPOSITORY
from ..runtime.provenance import provenance
from ..runtime.user_tables import read_table
from ..training.config import Config
from .runs import is_finished
from .statistics import told
from .tables import caption


def check_parameters() -> None:
    """Refuses a parameter that papermill injected under a name that the notebook's parameters cell does not have.

    papermill itself accepts ``-p nosie 0.9`` and goes on. Without injected parameters every name is right.

    Raises:
        ConfigError: an injected name is not known, or the parameter ``options`` is no dictionary.
    """
    shell = get_ipython()
    variables = shell.user_ns if shell else {}
    # The kernel keeps the source of every executed cell. papermill's own begins with this comment and comes
    # right after the parameters cell.
    sources = variables.get("In", [])
    injected = [i for i, source in enumerate(sources) if source.startswith("# Parameters\n")]
    if injected:
        known = _assigned(sources[injected[0] - 1])
        refuse_unknown([name for i in injected for name in _assigned(sources[i])], known)
    options = variables.get("options", {})
    if not isinstance(options, dict):
        # papermill's -p makes no dictionaries.
        example = """papermill ... -y '{"options": {"lr": 0.1}}'"""
        raise ConfigError(f"options: must be a dictionary, as in {example} (got {options!r})")


def describe(config: Config) -> str:
    """One paragraph: what will run, at which preset, on which device."""
    noise = {"human": config.human_key, "real": "as crawled"}.get(config.noise_type, f"{config.noise:g}")
    k = f" with k = {config.k}" if METHODS[config.method].looks_ahead else ""
    where = provenance(config.device)["hardware"]
    start = {"simclr": "SimCLR weights", "imagenet": "ImageNet weights"}.get(config.start, "random weights")
    start += ", to be pretrained first" if config.awaits_weights else ""
    start += f", {config.start_steps} supervised steps on the clean set" if config.start_steps else ""
    device = where.get("gpu") or f"CPU, {where['threads']} threads"
    return (
        f"{config.method}{k} on {config.dataset}, {config.noise_type} noise {noise}, seed {config.seed}\n"
        f"preset {config.preset}: {config.model}, {config.epochs} epochs of batches of {config.batch_size}, "
        f"{config.n_clean or 'all'} clean labels\nstart: {start}; device: {device}"
    )


def announce(config: Config, root: str | Path | None = None) -> None:
    """Prints :func:`describe`, and whether the run is finished; :func:`emlc_lib.run` says how long it takes.

    Args:
        root: the folder of runs, where the run may lie finished.
    """
    print(describe(config))
    if is_finished(config, root):
        print("finished before: its files are read back", flush=True)


def show_figure(figure: Figure, name: str = "", folder: str | Path | None = None) -> None:
    """Displays a figure and, if ``folder`` is given, saves it there as ``name``.png and .pdf."""
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        # Without a date the file depends on its contents alone.
        figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})
    display(figure)
    plt.close(figure)  # or the kernel shows it once more


def committed_table(name: str, needed: Sequence[str] = (), parameter: str = "csv") -> pd.DataFrame:
    """Reads a CSV: the file of that path or, wherever the notebook runs, the committed one in ``figures/``.

    Args:
        needed: columns that it must have. parameter: the name's own, for messages.

    Raises:
        FileNotFoundError: there is neither.
        ConfigError: it is no table, has no rows, or lacks a column.
    """
    for path in (as_path(name, parameter), REPOSITORY / "figures" / name):
        if path.is_file():
            table = read_table(path, parameter, needed)
            if table.empty:
                raise ConfigError(f"{parameter}: {path} has no rows")
            return pd.read_csv(io.StringIO(table.to_csv(index=False)))
    raise FileNotFoundError(f"{parameter}: {name} is neither a file nor a table in the repository's figures/")


def origin(name: str, table: pd.DataFrame) -> str:
    """Whether runs were read or made here, and what they are: the line with which a notebook shows a table.

    Args:
        name: of the committed table; empty if the notebook made it.
        table: :func:`emlc_lib.experiments.tables.run_table`, whole or with further columns.
    """
    how = f"read, not run: {name}" if name else "run here, or read back where finished before"
    minutes = table["seconds"].sum() / 60
    return f"{how}; {len(table)} runs of {minutes:.0f} minutes in all: {caption(table)}"


def show_claims(*words: str) -> None:
    """Prints the committed claims with one of the words (:func:`emlc_lib.experiments.statistics.told`)."""
    print("read, not run: claims.csv\n" + told(committed_table("claims.csv"), *words))


def save_tables(folder: str | Path | None, tables: Mapping[str, pd.DataFrame]) -> None:
    """Writes each table as ``folder``/NAME.csv, if a folder is given."""
    if folder is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(Path(folder) / f"{name}.csv", index=False)


def _assigned(source: str) -> list[str]:
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
