"""Means over seeds, differences paired by seed with their 95 % confidence interval (Student's t), and claims."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ..runtime.parameters import ConfigError

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """A mean difference, paired by seed.

    Attributes:
        mean: in the unit of what is compared.
        half: half the width of its confidence interval; NaN for one seed, which decides nothing.
        n: pairs. std: their standard deviation (n - 1).
    """

    mean: float
    half: float
    n: int
    std: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return bool(abs(self.mean) > self.half)

    @property
    def verdict(self) -> str:
        """``clear`` or ``undecided``."""
        return "clear" if self.clear else "undecided"

    @property
    def p(self) -> float:
        """The two-sided t-test's, below 0.05 where the interval leaves out 0; NaN where there is no spread."""
        if self.n < 2 or not self.std:
            return float("nan")
        return float(2 * stats.t.sf(abs(self.mean) / (self.std / self.n**0.5), self.n - 1))

    @property
    def seeds_to_decide(self) -> int | None:
        """The seeds with which this mean and spread would be clear; None where there is no spread to go by."""
        if self.n < 2 or not self.mean:
            return None
        n = np.arange(2, 10_000)
        enough = abs(self.mean) > _half(self.std, n)
        return int(n[enough][0]) if enough.any() else None

    @property
    def interval(self) -> str:
        """Mean and half of the interval, in words."""
        return f"{self.mean:+.2f}" + (f" ± {self.half:.2f}" if self.n > 1 else "")

    def __str__(self) -> str:
        return f"{self.interval} (n = {self.n}, {self.verdict})"


def paired(a: pd.Series, b: pd.Series) -> Difference:
    """a - b over the seeds that both have, which may be none; both are indexed by seed.

    Raises:
        ConfigError: a seed is there twice.
    """
    for values in (a, b):
        if values.index.has_duplicates:
            raise ConfigError(f"seeds: {values.index[values.index.duplicated()][0]} is there twice")
    difference = (a - b).dropna()
    n = len(difference)
    std = float(difference.std())
    return Difference(float(difference.mean()), float(_half(std, n)) if n > 1 else float("nan"), n, std)


def by_seed(table: pd.DataFrame, column: str, /, **where: object) -> pd.Series:
    """A column in percent, indexed by seed, of the rows that have these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    return 100 * table.set_index("seed")[column]


def differences(table: pd.DataFrame, column: str, name: str, *, factor: float = 100) -> pd.Series:
    """A column of ``name`` minus that of each other name, paired by seed: :class:`Difference` by the other's name.

    Args:
        table: with ``name`` and ``seed``, one row of both.
        factor: from the column's unit to that of the differences; 100 for points of what is in [0, 1].
    """
    values = factor * table.set_index(["name", "seed"])[column]
    others = [other for other in dict.fromkeys(table["name"]) if other != name]
    return pd.Series({other: paired(values[name], values[other]) for other in others}, dtype=object)


def spread(
    table: pd.DataFrame, columns: Mapping[str, str], by: str = "name", *, factor: float = 100, digits: int = 2
) -> pd.DataFrame:
    """Means and, of several seeds, standard deviations (n - 1) as text, a row per value of ``by``, and ``n``.

    Args:
        columns: what is shown, with the name to show it under. factor: from its unit; 100 for percent.
    """
    grouped = table.groupby(by, sort=False)
    result = {"n": grouped.size()}
    for column, shown in columns.items():
        mean, std = factor * grouped[column].mean(), factor * grouped[column].std()
        result[shown] = [_mean_and_std(m, s, digits) for m, s in zip(mean, std, strict=True)]
    return pd.DataFrame(result)


def above_chance(accuracy: float, classes: int, n: int) -> bool:
    """Whether an accuracy on n images is more than five standard errors above that of guessing a class."""
    chance = 1 / classes
    return accuracy > chance + 5 * (chance * (1 - chance) / n) ** 0.5


def _mean_and_std(mean: float, std: float, digits: int) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if pd.isna(std) else f" ± {std:.{digits}f}")


def _half(std: float, n: int | np.ndarray) -> float | np.ndarray:
    return stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std / n**0.5


class Claim(NamedTuple):
    """One row of the table.

    Attributes:
        claim: what is claimed. where: in the paper, or "here" for a question that it leaves out.
        statistic: in words, with interval and n.
        scale: data, preset and noise. source: the tables in ``figures/``.
        verdict: holds, fails, undecided, or not run.
        seeds: with how many an undecided one would be decided, going by its mean and spread.
        p: of its difference, :attr:`Difference.p`; NaN where a bound decides.
    """

    claim: str
    where: str
    statistic: str
    scale: str
    source: str
    verdict: str
    seeds: int | None = None
    p: float = float("nan")


def judged(
    claim: str,
    where: str,
    difference: Difference,
    scale: str,
    source: str,
    *,
    unit: str = "points",
    above: bool = True,
) -> Claim:
    """A claim that a difference is positive, or negative unless ``above``."""
    if not difference.n:
        return Claim(claim, where, "", scale, source, "not run")
    verdict = "undecided"
    if difference.clear:
        verdict = "holds" if (difference.mean > 0) == above else "fails"
    seeds = difference.seeds_to_decide if verdict == "undecided" else None
    words = f"{difference.interval} {unit}, n = {difference.n}"
    return Claim(claim, where, words, scale, source, verdict, seeds, float(f"{difference.p:.3g}"))


def decided(p: Sequence[float]) -> dict[str, int]:
    """How many of several tests reject: as they are, and corrected for their number, at :data:`CONFIDENCE`.

    By Benjamini and Hochberg's procedure 5 % of what it rejects is false, on average, if the tests depend on each
    other positively or not at all; by Holm's something of it is in 5 % of cases, however they depend.
    """
    p, level = np.sort(p), 1 - CONFIDENCE
    passed = p <= level / np.arange(len(p), 0, -1)
    return {
        "tests": len(p),
        "clear": int((p < level).sum()),
        "Benjamini-Hochberg": int((stats.false_discovery_control(p) <= level).sum()),
        "Holm": len(p) if passed.all() else int(passed.argmin()),
    }


def told(table: pd.DataFrame, *words: str, scale: str = "") -> str:
    """The claims that have one of the words in ``claim`` or ``where``, a line each.

    Args:
        table: :func:`emlc_lib.experiments.claims.claims`, as it is or read from its file.
        scale: a part of their ``scale``.
    """
    table = table[table["scale"].fillna("").str.contains(scale, regex=False)]
    text = table["claim"] + " " + table["where"]
    return "\n".join(_line(row) for row in table[[any(w in line for w in words) for line in text]].itertuples())


def _line(row) -> str:
    parts = [f"{row.verdict}: {row.claim}", row.statistic, row.scale]
    parts += [] if pd.isna(row.seeds) else [f"about {int(row.seeds)} seeds would decide"]
    return "; ".join(part for part in parts if isinstance(part, str) and part)
