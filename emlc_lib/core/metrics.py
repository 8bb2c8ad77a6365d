"""Measures of classification and of label correction. Shares are in [0, 1]; NaN where undefined."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of rows of (n, C) scores whose largest entry is at the label (n,)."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def correction_counts(soft_labels: Tensor, gate: Tensor | None, given: Tensor, true: Tensor) -> Tensor:
    """Sums from which :func:`correction_rates` makes rates; additive over batches, so without a sync.

    Args:
        soft_labels: (n, C) corrected labels.
        gate: (n,) weights of the given labels, in [0, 1]; None for methods that have none.
        given: (n,) int64, the possibly wrong labels.
        true: (n,) int64; samples whose true label is unknown, -1, do not count.

    Returns:
        (7,) float64: number of samples, of wrong labels, of recovered labels, of recovered wrong labels, of
        confirmed wrong labels, sum of the gate on right and on wrong labels; without a gate only the first five.
        A label is recovered if the corrected one is the true one; a wrong one is confirmed if it stays as given.
    """
    known = true >= 0
    wrong = known & (given != true)
    recovered = soft_labels.argmax(dim=1) == true
    confirmed = wrong & (soft_labels.argmax(dim=1) == given)
    sums = [known.sum(), wrong.sum(), recovered.sum(), (recovered & wrong).sum(), confirmed.sum()]
    if gate is not None:
        gate = gate.double()
        sums += [torch.where(known & ~wrong, gate, 0.0).sum(), torch.where(wrong, gate, 0.0).sum()]
    return torch.stack([s.double() for s in sums])


def correction_rates(counts: Tensor) -> dict[str, float]:
    """Figure 1's recovery of all and of wrong labels, the share of wrong ones that are confirmed, the mean gate.

    The gate, if there is one, is averaged over right and over wrong labels.

    Args:
        counts: (7,) or (5,), a sum of what :func:`correction_counts` returned.
    """
    n, wrong, recovered, recovered_wrong, confirmed_wrong, *gate = counts.tolist()
    rates = {
        "recovery_all": _ratio(recovered, n),
        "recovery_wrong": _ratio(recovered_wrong, wrong),
        "confirmed_wrong": _ratio(confirmed_wrong, wrong),
    }
    if gate:
        rates |= {"gate_right": _ratio(gate[0], n - wrong), "gate_wrong": _ratio(gate[1], wrong)}
    return rates


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan
