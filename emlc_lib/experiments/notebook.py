"""What the notebooks share: checked parameters, an announcement of the run, saved figures, committed tables."""

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from ..methods import METHODS
from ..runtime.files import as_path, writable_folder, write_atomically
from ..runtime.parameters import ConfigError, check_options, refuse_unknown
from ..runtime.places import REPOSITORY
from ..runtime.provenance import provenance
from ..training.config import Config
from ..training.presets import make_config
from .runs import is_finished
from .statistics import told
from .studies import look_ahead
from .sweep import grid, listed
from .tables import caption

# What a parameter of this name, or each one of its list, may be, where a notebook has it; both ends belong to it.
RANGES = {
    "seed": (0, 2**31 - 1), "seeds": (0, 2**31 - 1), "k": (1, 1000), "ks": (1, 1000), "noise": (0, 1),
    "noises": (0, 1), "lrs": (1e-6, 10), "momenta": (0, 0.999), "n": (50, 10**9), "suspicious": (1, 10**6),
    "processes": (1, 10**6), "epochs": (1, 10**6), "jobs": (1, 10**4), "image_size": (4, 1024),
    "patience": (1, 10_000),
}  # fmt: skip

# None, or a folder that is written to.
FOLDERS = ("figures", "runs", "save")

# What of a grid of runs a parameter has several of.
PLURAL = {"noise": "noises", "noise_type": "noises", "method": "methods", "meta_weights": "weights"}

KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "text"}


def check_parameters(**ranges: tuple[float, float]) -> None:
    """Refuses what is wrong with a notebook's parameters, right after the cell that has them.

    That is an injected name that the cell does not have (papermill itself accepts ``-p nosie 0.9``), a value of
    another type than the default there, one out of its range, or a folder that cannot be written to.

    Args:
        ranges: by parameter, the notebook's own where :data:`RANGES` says too little.

    Raises:
        ConfigError: says which, and what is allowed.
    """
    shell = get_ipython()
    variables = shell.user_ns if shell else {}
    # The kernel keeps the source of every executed cell. papermill's own begins with this comment and comes
    # right after the parameters cell, which is otherwise the last one that has assignments alone.
    sources = variables.get("In", [])
    injected = [i for i, source in enumerate(sources) if source.startswith("# Parameters\n")]
    cells = [source for source in sources[: injected[0] if injected else None] if _parameters(source)]
    defaults = _parameters(cells[-1]) if cells else {}
    refuse_unknown([name for i in injected for name in _parameters(sources[i])], defaults)
    values = {name: variables.get(name, default) for name, default in defaults.items()}
    for name, value in values.items():
        _check_value(name, value, defaults[name], RANGES | ranges)
    check_options(variables.get("options"), values.keys() - {"options"})
    if {"csv", "dataset", "preset"} <= values.keys():
        _check_grid(values)


def _check_value(name: str, value: Any, default: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    many = isinstance(default, list)
    if many:
        listed(**{name: value})
    kind = type(default[0] if many else default)
    for one in value if many else [value]:
        allowed = {float: (int, float), str: (str, int, float) if many else (str, type(None))}.get(kind, kind)
        if kind in KINDS and (not isinstance(one, allowed) or (isinstance(one, bool) and kind is not bool)):
            raise ConfigError(f"{name}: must be {'a list of ' if many else ''}{KINDS[kind]} (got {value!r})")
        if default is None and name in ranges and one is not None and type(one) is not int:
            raise ConfigError(f"{name}: must be None or an integer (got {value!r})")
        low, high = ranges.get(name, (-math.inf, math.inf))
        if isinstance(one, int | float) and not low <= one <= high:
            raise ConfigError(f"{name}: must be from {low} to {high} (got {value!r})")
    if name in FOLDERS and default is None and value not in (None, ""):
        writable_folder(value, name)


def _check_grid(values: Mapping[str, Any]) -> None:
    """Whether there are such runs, though a table of finished ones be read in their place."""
    common = {name: values[name] for name in ("dataset", "preset")}
    try:
        noises = listed(noises=values.get("noises", [values.get("noise")]))[0]
        grid(noises, values.get("methods", ["emlc"]), [1], values["seeds"], **common)
        for weights in values.get("weights", []):
            make_config(meta_weights=weights, **common)
        if "equal" in values:
            look_ahead(values["ks"], values["weights"], equal=values["equal"])
    except ConfigError as error:
        name, colon, rest = str(error).partition(":")
        raise ConfigError((name if name in values else PLURAL.get(name, name)) + colon + rest) from None


def announce(config: Config, root: str | Path | None = None) -> None:
    """Prints what will run, at which preset, on which device, and whether it is finished.

    :func:`emlc_lib.run` says how long it takes.

    Args:
        root: the folder of runs, where the run may lie finished.
    """
    noise = config.noise_key or "as crawled"
    k = f" with k = {config.k}" if METHODS[config.method].looks_ahead else ""
    where = provenance(config.device)["hardware"]
    start = {"simclr": "SimCLR weights", "imagenet": "ImageNet weights"}.get(config.start, "random weights")
    start += ", to be pretrained first" if config.awaits_weights else ""
    start += f", {config.start_steps} supervised steps on the clean set" if config.start_steps else ""
    known = config.n_clean if config.noise_type != "file" else None
    device = where.get("gpu") or f"CPU, {where['threads']} threads"
    print(
        f"{config.method}{k} on {config.dataset}, {config.noise_type} noise {noise}, seed {config.seed}\n"
        f"preset {config.preset}: {config.model}, {config.epochs} epochs of batches of {config.batch_size}, "
        f"{known or 'all'} clean labels\nstart: {start}; device: {device}"
    )
    if is_finished(config, root):
        print("finished before: its files are read back", flush=True)


def show_figure(figure: Figure, name: str = "", folder: str | Path | None = None) -> None:
    """Displays a figure and, if ``folder`` is given, saves it there as ``name``.png and .pdf."""
    if folder not in (None, ""):
        folder = as_path(folder, "figures")
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        # Without a date the file depends on its contents alone.
        figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})
    display(figure)
    plt.close(figure)  # or the kernel shows it once more


def committed_table(
    name: str, needed: Sequence[str] = (), parameter: str = "csv", rows: Mapping[str, Iterable[str]] | None = None
) -> pd.DataFrame:
    """Reads a CSV: the file of that path or, wherever the notebook runs, the committed one in ``figures/``.

    Args:
        needed: columns that it must have. parameter: the name's own, for messages.
        rows: by column, what must be there in some row.

    Raises:
        ConfigError: there is neither, it is no table, has no rows, or lacks a column or a row.
    """
    for path in (as_path(name, parameter), REPOSITORY / "figures" / name):
        if path.is_file():
            try:
                table = pd.read_csv(path)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"{parameter}: {path} cannot be read as CSV ({reason})") from None
            if missing := [column for column in needed if column not in table]:
                raise ConfigError(f"{parameter}: {path} has no column {missing[0]!r}; it needs {','.join(needed)}")
            if table.empty:
                raise ConfigError(f"{parameter}: {path} has no rows")
            for column, values in (rows or {}).items():
                there = set(table[column].astype(str).str.strip())
                if lacking := [value for value in values if value not in there]:
                    raise ConfigError(f"{parameter}: {path} has no row whose {column} is {lacking[0]!r}")
            return table
    raise ConfigError(f"{parameter}: {name} is neither a file nor a table in the repository's figures/")


def origin(name: str, table: pd.DataFrame) -> str:
    """Whether runs were read or made here, and what they are: the line with which a notebook shows a table.

    Args:
        name: of the committed table; empty if the notebook made it.
        table: :func:`emlc_lib.experiments.tables.run_table`, whole or with further columns.
    """
    how = f"read, not run: {name}" if name else "run here, or read back where finished before"
    minutes = table["seconds"].sum() / 60
    return f"{how}; {len(table)} runs of {minutes:.0f} minutes in all: {caption(table)}"


def show_claims(*words: str, scale: str = "") -> None:
    """Prints the committed claims with one of the words (:func:`emlc_lib.experiments.statistics.told`)."""
    print("read, not run: claims.csv\n" + told(committed_table("claims.csv"), *words, scale=scale))


def save_tables(folder: str | Path | None, tables: Mapping[str, pd.DataFrame]) -> None:
    """Writes each table as ``folder``/NAME.csv, if a folder is given."""
    if folder in (None, ""):
        return
    for name, table in tables.items():
        file = as_path(folder, "save") / f"{name}.csv"
        write_atomically(file, lambda path, table=table: table.to_csv(path, index=False))


def _parameters(source: str) -> dict[str, Any]:
    """The values that a cell assigns to names, if that is all it does."""
    try:
        nodes = ast.parse(source).body
        return {node.targets[0].id: ast.literal_eval(node.value) for node in nodes}
    except (SyntaxError, ValueError, AttributeError):  # a magic; no literal; no assignment to a name
        return {}
