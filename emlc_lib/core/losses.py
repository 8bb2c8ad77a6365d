"""The terms of the objective (eq. 6 and eq. 12) and the corruption strategies of section 3.6."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, soft_labels: Tensor) -> Tensor:
    """Eq. 6: the mean over samples of CE(q, p), a scalar. Both arguments are (n, C)."""
    return -(soft_labels * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def gate_loss(gate_logits: Tensor, is_clean: Tensor) -> Tensor:
    """L_BCE of eq. 12: how well the gate tells clean from corrupted labels, a scalar.

    Args:
        gate_logits: (n,), logits of w_i.
        is_clean: (n,) bool, whether the given label is the true one.
    """
    return F.binary_cross_entropy_with_logits(gate_logits, is_clean.to(gate_logits.dtype))


def corrupt_half(
    labels: Tensor,
    logits: Tensor,
    strategy: str,
    generator: torch.Generator | None,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Section 3.6: corrupts the first half (rounded down) of a clean batch; batches are shuffled.

    Args:
        labels: (n,) int64 true labels.
        logits: (n, C), the teacher's own prediction for the batch.
        strategy: ``adversarial`` gives the class that the teacher believes in most among the wrong ones;
            ``random`` draws uniformly from all C classes, so that a label can stay clean: the target of the
            BCE term is whether a label *is* right, not whether it was drawn; ``none`` changes nothing.
        generator: a CPU generator; used by ``random`` only.
        share: (rank, world): these are every world-th sample, from the rank-th on, of ``n * world``; what
            is corrupted is that batch's half.

    Returns:
        (n,) int64 labels.
    """
    rank, world = share
    whole_half = len(labels) * world // 2
    half = len(range(whole_half)[rank::world])
    if strategy == "none":
        return labels
    if strategy == "random":
        drawn = torch.randint(logits.shape[1], (whole_half,), generator=generator)[rank::world].to(labels.device)
    elif strategy == "adversarial":
        true = labels[:half].unsqueeze(1)
        drawn = logits[:half].scatter(1, true, -torch.inf).argmax(dim=1)
    else:
        raise ValueError(f"corruption: {strategy!r} is not one of adversarial, random, none")
    return torch.cat([drawn, labels[half:]])
