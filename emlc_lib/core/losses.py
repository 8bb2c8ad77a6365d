"""The terms of the objective (eq. 6 and eq. 12) and the corruption strategies of section 3.6."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime.randomness import WHOLE, Share


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
    labels: Tensor, logits: Tensor, strategy: str, generator: torch.Generator | None, share: Share = WHOLE
) -> Tensor:
    """Section 3.6: corrupts the first half (rounded down) of a clean batch; batches are shuffled.

    Args:
        labels: (n,) int64 true labels.
        logits: (n, C), the teacher's own prediction for the batch.
        strategy: ``adversarial`` gives the class that the teacher believes in most among the wrong ones;
            ``random`` draws uniformly from all C classes, so that a label can stay clean: the target of the
            BCE term is whether a label *is* right, not whether it was drawn; ``none`` changes nothing.
        generator: a CPU generator; used by ``random`` only.
        share: which samples of a batch of ``n * share.world`` these are; what is corrupted is that batch's half.

    Returns:
        (n,) int64 labels.
    """
    whole_half = len(labels) * share.world // 2
    half = len(share.of(range(whole_half)))
    if strategy == "none":
        return labels
    if strategy == "random":
        drawn = share.of(torch.randint(logits.shape[1], (whole_half,), generator=generator)).to(labels.device)
    elif strategy == "adversarial":
        true = labels[:half].unsqueeze(1)
        drawn = logits[:half].scatter(1, true, -torch.inf).argmax(dim=1)
    else:
        raise ValueError(f"corruption: {strategy!r} is not one of adversarial, random, none")
    return torch.cat([drawn, labels[half:]])
