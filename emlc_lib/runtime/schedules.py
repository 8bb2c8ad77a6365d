"""Learning-rate factors as functions of the step."""

import math
from collections.abc import Callable
from typing import Any


def steps_by(epoch: int, steps_per_epoch: int, period: int = 1) -> int:
    """The steps taken by the end of an epoch (counted from 1), rounded up to a multiple of ``period``."""
    return -(-epoch * steps_per_epoch // period) * period


def lr_factor(config: Any, t: int, last_step: Callable[[int], int]) -> float:
    """What ``config.schedule`` multiplies the learning rates by at step t.

    Args:
        config: with schedule, epochs, lr_step_epoch and lr_step_factor.
        last_step: the steps taken by the end of an epoch, counted from 1.
    """
    if config.schedule == "none":
        return 1.0
    if config.schedule == "lr_step":
        return config.lr_step_factor if t >= last_step(config.lr_step_epoch) else 1.0
    return cosine(t / last_step(config.epochs))


def cosine(done: float) -> float:
    """1 at the beginning (``done`` = 0), 0 at the end (``done`` = 1), half a cosine wave in between."""
    return 0.5 * (1 + math.cos(math.pi * done))


def warmup_cosine(t: int, steps: int, rise: int) -> float:
    """A linear rise over the first ``rise`` of ``steps`` steps, to 1 at step ``rise - 1``, then a cosine to 0."""
    return (t + 1) / rise if t < rise else cosine((t - rise) / (steps - rise))
