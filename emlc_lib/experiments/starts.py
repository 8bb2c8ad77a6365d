"""What EMLC gains over the quality of its start, from random weights to all epochs of SimCLR."""

import itertools

import pandas as pd

from .committed import Tables
from .statistics import by_seed, paired

RANDOM_START, NARROW, ALL_EPOCHS = "random start", "resnet_narrow", "SimCLR, 200 epochs"
OTHERS = ("cross_entropy", "clean_only")


def of_epochs(epochs: int) -> str:
    """The name of the runs that begin with so many epochs of SimCLR."""
    return f"SimCLR, {epochs} epochs"


def gains(table: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """The test accuracy of EMLC minus that of cross-entropy and of the clean labels alone, paired by seed.

    Args:
        table: the rows of ``figures/small_starts_cifar10.csv``, with the ``name`` of their start; what looks at no
            noisy label is there once.
        probes: a row per start, its ``linear`` probe's accuracy in [0, 1] and ``model``, by ``name``.

    Returns:
        A row per start, ``noise`` and ``other`` that has pairs, by the probe: ``linear`` in percent; ``emlc``, the
        mean of those pairs' accuracies in percent; ``difference`` in points, ``±``, half of its 95 % interval,
        ``n`` and ``verdict``.
    """
    rows = []
    probes = probes.set_index("name").sort_values("linear")
    noises = sorted(table.loc[table["method"] == "emlc", "noise"].unique())
    for name, noise, other in itertools.product(probes.index, noises, OTHERS):
        ours, theirs = (accuracy(table, name, method, noise) for method in ("emlc", other))
        found = paired(ours, theirs)
        if found.n:
            start = {"name": name, "model": probes["model"][name], "linear": 100 * probes["linear"][name]}
            start |= {"noise": noise, "other": other, "emlc": ours.reindex(theirs.index).mean()}
            rows.append(
                start | {"difference": found.mean, "±": found.half, "n": found.n, "verdict": found.verdict}
            )
    return pd.DataFrame(rows)


def accuracy(table: pd.DataFrame, name: str, method: str, noise: float) -> pd.Series:
    """Test accuracies in percent by seed, of a start's rows; what looks at no noisy label serves every rate."""
    return by_seed(table, "test_accuracy", name=name, method=method, **Tables.setting(method, "symmetric", noise))
