"""What the tables of ``benchmarks.step_cost`` and ``benchmarks.data_throughput`` say of time and memory."""

import pandas as pd
from scipy import stats

# Columns of the tables of benchmarks.step_cost and benchmarks.data_throughput.
COST_COLUMNS = (
    "variant", "seconds", "ratio", "low", "high", "peak_MiB", "model", "noisy", "clean", "repeats", "hardware",
    "threads", "torch", "command",
)  # fmt: skip
RATE_COLUMNS = (
    "pipeline", "how", "batch", "images_per_second", "repeats", "hardware", "threads", "torch", "command",
)  # fmt: skip
# What a table of :func:`records` must have.
RECORD_COLUMNS = ("target", "record", "test_accuracy", "seconds", "hardware", "threads", "command")

# What is looked at in those of step_cost, by the parameter of 12_cost that names the table.
_BFLOAT16 = ("plain SGD, bfloat16", "EMLC k=1, bfloat16")
_K = [f"EMLC{how} k={k}" for how in ("", ", teacher recomputed") for k in (1, 5)]
VARIANTS = {
    "steps": ["plain SGD", "EMLC k=1", "EMLC k=5", "EMLC k=5, primal shared", "forward mode, primal shared",
              "through the update by autograd, k=1", "forward mode, torch.func.jvp", "double backward instead"],
    "methods": ["plain SGD", "EMLC k=1", "EMLC k=5", "MLC, double backward", "MLC, forward mode"],
    "narrow": ["plain SGD", "EMLC k=1", *_BFLOAT16],
    "growth": [*_K, "through the updates k=1"],
}  # fmt: skip


def by_variant(cost: pd.DataFrame, column: str) -> pd.Series:
    """A column of a table of costs by the name of what was measured."""
    return cost.set_index(cost["variant"].str.strip())[column]


def over_k(growth: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``benchmarks.step_cost --ks`` that have a k, with the columns ``how`` and ``k``."""
    parts = growth["variant"].str.extract(r"^(?P<how>.*?),? ?k=(?P<k>\d+)$")
    return growth.assign(how=parts["how"].str.strip(), k=parts["k"].astype(float)).dropna(subset="k")


def memory_growth(growth: pd.DataFrame) -> pd.DataFrame:
    """Peak memory in MiB at each k, by how the meta-gradient is computed, and the last as a multiple of the first.

    Args:
        growth: the table of ``benchmarks.step_cost --ks``.
    """
    memory = over_k(growth).pivot(index="how", columns="k", values="peak_MiB")
    memory.columns = [f"k = {k:g}" for k in memory.columns]
    return memory.astype(int).assign(factor=(memory.iloc[:, -1] / memory.iloc[:, 0]).round(1))


def share_of_time(cost: pd.DataFrame, what: str, other: str) -> float:
    """The time of one variant over that of another."""
    seconds = by_variant(cost, "seconds")
    return float(seconds[what] / seconds[other])


def speedups(rates: pd.DataFrame) -> pd.DataFrame:
    """How many times as many images a second whole batches make as images one by one, by pipeline and batch size.

    Args:
        rates: the table of ``benchmarks.data_throughput``.
    """
    speed = rates.pivot(index=["pipeline", "batch"], columns="how", values="images_per_second")
    batched = speed.columns.str.startswith("batched")
    return (speed.loc[:, batched].squeeze(axis=1) / speed.loc[:, ~batched].squeeze(axis=1)).unstack("batch")


def records(runs: pd.DataFrame) -> pd.DataFrame:
    """How long a training takes to a test accuracy: a row per target and ``record``.

    Args:
        runs: :func:`emlc_lib.experiments.tables.run_table` with ``target``, an accuracy in [0, 1], and ``record``,
            what the runs of all seeds of one training are called.

    Returns:
        ``n`` seeds; ``accuracy`` and ``std`` in percent; ``p``, the one-sided t-test's of a mean accuracy that is
        not above the target; ``seconds`` of wall time and ``std of seconds``; ``hardware``, ``threads``.
    """
    rows = []
    for (target, name), part in runs.groupby(["target", "record"], sort=False):
        accuracy, seconds = part["test_accuracy"], part["seconds"]
        rows.append(
            {"target": f"{100 * target:g} %", "record": name, "n": len(part), "accuracy": 100 * accuracy.mean()}
            | {"std": 100 * accuracy.std(), "p": stats.ttest_1samp(accuracy, target, alternative="greater").pvalue}
            | {"seconds": seconds.mean(), "std of seconds": seconds.std()}
            | {name: part[name].iloc[0] for name in ("hardware", "threads")}
        )
    return pd.DataFrame(rows).round({"accuracy": 2, "std": 2, "p": 4, "seconds": 1, "std of seconds": 1})
