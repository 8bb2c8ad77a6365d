"""Differences between runs, paired by seed, with their 95 % confidence interval (Student's t), and claims."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from scipy import stats

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
    def seeds_to_decide(self) -> int | None:
        """The seeds with which this mean and spread would be clear; None where there is no spread to go by."""
        if self.n < 2 or not self.mean:
            return None
        return next((n for n in range(2, 10_000) if abs(self.mean) > _half(self.std, n)), None)

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f} (n = {self.n}, {self.verdict})"


def paired(a: pd.Series, b: pd.Series) -> Difference:
    """a - b over the seeds that both have, which may be none; both are indexed by seed.

    Raises:
        ValueError: a seed is there twice.
    """
    for values in (a, b):
        if values.index.has_duplicates:
            raise ValueError(f"seeds: {values.index[values.index.duplicated()][0]} is there twice")
    difference = (a - b).dropna()
    n = len(difference)
    std = float(difference.std())
    return Difference(float(difference.mean()), _half(std, n), n, std)


def _half(std: float, n: int) -> float:
    if n < 2:
        return float("nan")
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std / n**0.5)


class Claim(NamedTuple):
    """One row of the table.

    Attributes:
        claim: what is claimed. where: in the paper, or "here" for a question that it leaves out.
        statistic: in words, with interval and n.
        scale: data, preset and noise. source: the table in ``figures/``.
        verdict: holds, fails, undecided, or not run.
        seeds: with how many an undecided one would be decided, going by its mean and spread.
    """

    claim: str
    where: str
    statistic: str
    scale: str
    source: str
    verdict: str
    seeds: int | None = None


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
    verdict = "undecided"
    if difference.clear:
        verdict = "holds" if (difference.mean > 0) == above else "fails"
    seeds = difference.seeds_to_decide if verdict == "undecided" else None
    half = f" ± {difference.half:.2f}" if difference.n > 1 else ""
    words = f"{difference.mean:+.2f}{half} {unit}, n = {difference.n}"
    return Claim(claim, where, words, scale, source, verdict, seeds)


def told(table: pd.DataFrame, *words: str) -> str:
    """The claims of :func:`claims` that have one of the words in ``claim`` or ``where``, a line each."""
    text = table["claim"] + " " + table["where"]
    rows = table[[any(word in line for word in words) for line in text]]
    lines = [f"{row.verdict}: {row.claim}; {row.statistic}; {row.scale}" for row in rows.itertuples()]
    return "\n".join(lines)
