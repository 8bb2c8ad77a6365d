"""The runs of Table 1, and lists of runs as jobs: what is to do, and what it asks for. Nothing runs here."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..methods import METHODS
from ..runtime.parameters import ConfigError
from ..training.config import Config
from .cluster import Resources
from .published import TABLE_1_COLUMNS
from .runs import state
from .sweep import grid
from .tables import noise_label

TABLE_1_DATASETS = tuple(dict.fromkeys(dataset for dataset, _, _ in TABLE_1_COLUMNS))


def table_1(seeds: int = 5, datasets: Sequence[str] = TABLE_1_DATASETS, **common: Any) -> list[Config]:
    """The runs of Table 1, all of seed 0 first: EMLC with k = 1 and 5 and every other method, MLC with k = 1.

    Args:
        seeds: 0 to ``seeds`` - 1. datasets: those of the table to take.
        common: further parameters of :func:`emlc_lib.training.presets.make_config`.

    Raises:
        ConfigError: any value that is not allowed.
    """
    if seeds < 1:
        raise ConfigError(f"seeds: must be at least 1 (got {seeds})")
    unknown = [name for name in datasets if name not in TABLE_1_DATASETS]
    if unknown:
        raise ConfigError(f"dataset: {unknown[0]!r} is not one of Table 1's: {', '.join(TABLE_1_DATASETS)}")
    configs = []
    for dataset in dict.fromkeys(datasets):
        noises = [f"{kind}:{rate}" for name, kind, rate in TABLE_1_COLUMNS if name == dataset]
        others = [name for name, method in METHODS.items() if name != "emlc" and not method.extension]
        for methods, ks in ((["emlc"], [1, 5]), (others, [1])):
            configs += grid(noises, methods, ks, range(seeds), dataset=dataset, **common)
    return sorted(configs, key=lambda config: config.seed)


def job_table(configs: Sequence[Config], resources: Resources, root: str | Path | None = None) -> pd.DataFrame:
    """One row per run: ``job``, its index in the array (NA if finished), its setting, state, resources and name.

    Only looks; it changes no file and needs neither submitit nor a cluster.
    """
    rows = []
    for config in configs:
        method = METHODS[config.method]
        rows.append(
            {
                "state": state(config, root),
                "dataset": config.dataset,
                "noise": "any"
                if config.is_blind
                else noise_label(config.noise_type, config.noise, config.noise_key),
                "method": method.name + (f" k={config.k}" if method.looks_ahead else ""),
                "seed": config.seed,
                "gpus": resources.gpus,
                "cpus": resources.cpus,
                "hours": resources.hours,
                "weights": "to be pretrained" if config.awaits_weights else "there",
                "run": config.name,
            }
        )
    table = pd.DataFrame(rows)
    missing = table["state"] != "finished"
    table.insert(0, "job", (missing.cumsum() - 1).astype("Int64").where(missing))
    return table


def report(table: pd.DataFrame, resources: Resources, estimate: float | None = None) -> str:
    """The job list in words: one line per run of :func:`job_table`, the jobs by setting, and what they sum up to.

    Args:
        estimate: hours that one run takes, for the sum of GPU hours.
    """
    lines = [
        f"{'-' if pd.isna(row.job) else row.job:>5}  {row.state:<8}  {row.gpus} GPU {row.cpus} CPU {row.hours:g} h"
        f"  {row.run}"
        for row in table.itertuples()
    ]
    todo = table[table["job"].notna()]
    if len(todo):
        counts = todo.groupby(["dataset", "method", "noise"], sort=False).size().unstack("noise", fill_value=0)
        lines += ["", "jobs by data set, method and noise:", counts.to_string()]
    states = table["state"].value_counts()
    parts = ", ".join(f"{states.get(name, 0)} {name}" for name in ("finished", "begun", "missing"))
    lines += ["", f"{len(table)} runs: {parts}"]
    lines.append(f"{len(todo)} jobs, {resources.array} at a time, each with a limit of {resources.hours:g} h")
    awaiting = todo[todo["weights"] != "there"]
    if len(awaiting):
        lines.append(
            f"{len(awaiting)} of them start from SimCLR weights that are not there: make them first "
            "(emlc pretrain); the names of these runs will change with their content"
        )
    if estimate is not None:
        total = len(todo) * estimate * resources.gpus
        days = math.ceil(len(todo) / resources.array) * estimate / 24
        lines.append(f"at {estimate:g} h a run: {total:,.0f} GPU hours, {days:.1f} days if none has to wait")
    return "\n".join(lines)
