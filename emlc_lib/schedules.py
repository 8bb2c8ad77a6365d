"""Learning-rate factors as functions of the step."""

from __future__ import annotations

import math


def cosine(done: float) -> float:
    """1 at the beginning (``done`` = 0), 0 at the end (``done`` = 1), half a cosine wave in between."""
    return 0.5 * (1 + math.cos(math.pi * done))


def warmup_cosine(t: int, steps: int, rise: int) -> float:
    """A linear rise over the first ``rise`` of ``steps`` steps, to 1 at step ``rise - 1``, then a cosine to 0."""
    return (t + 1) / rise if t < rise else cosine((t - rise) / (steps - rise))
