"""Measures of classification and of label correction. Shares are in [0, 1]; NaN where undefined."""

import math

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor


def accuracy(logits: Float[Tensor, "n C"], labels: Int64[Tensor, "n"]) -> float:
    """The share of rows whose largest entry is at the label."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def correction_counts(
    soft_labels: Shaped[Tensor, "n C"],
    gate: Shaped[Tensor, "n"] | None,
    given: Int64[Tensor, "n"],
    true: Int64[Tensor, "n"],
) -> Float64[Tensor, "sums"]:
    """Sums from which :func:`correction_rates` makes rates; additive over batches, so without a sync.

    Args:
        soft_labels: corrected labels. given: the possibly wrong ones.
        gate: weights of the given labels, in [0, 1]; None for methods that have none.
        true: -1 where the true label is unknown, which counts apart.

    Returns:
        10: number of samples, of wrong labels, of recovered labels, of recovered wrong labels, of
        confirmed wrong labels; of labels whose truth is unknown, and of those among them that stay as given;
        sum of the gate on right, wrong and unknown labels; without a gate only the first seven.
        A label is recovered if the corrected one is the true one; a wrong one is confirmed if it stays as given.
    """
    known = true >= 0
    wrong = known & (given != true)
    recovered, kept = (soft_labels.argmax(dim=1) == labels for labels in (true, given))
    counted = [known, wrong, recovered, recovered & wrong, wrong & kept, ~known, ~known & kept]
    sums = [which.sum() for which in counted]
    if gate is not None:
        gate = gate.double()
        sums += [torch.where(which, gate, 0.0).sum() for which in (known & ~wrong, wrong, ~known)]
    return torch.stack([s.double() for s in sums])


def correction_rates(counts: Float64[Tensor, "sums"]) -> dict[str, float]:
    """Figure 1's recovery of all and of wrong labels, the share of wrong ones that are confirmed, the mean gate.

    The gate, if there is one, is averaged over right and over wrong labels. Where there are labels whose truth is
    unknown, ``kept`` is the share of them that stay as given, and ``gate`` their mean gate.

    Args:
        counts: a sum of what :func:`correction_counts` returned.
    """
    n, wrong, recovered, recovered_wrong, confirmed_wrong, unknown, kept, *gate = counts.tolist()
    rates = {
        "recovery_all": _ratio(recovered, n),
        "recovery_wrong": _ratio(recovered_wrong, wrong),
        "confirmed_wrong": _ratio(confirmed_wrong, wrong),
    }
    if gate:
        rates |= {"gate_right": _ratio(gate[0], n - wrong), "gate_wrong": _ratio(gate[1], wrong)}
    if unknown:
        rates |= {"kept": kept / unknown} | ({"gate": gate[2] / unknown} if gate else {})
    return rates


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan
