"""The terms of the objective (eq. 6 and eq. 12) and the corruption strategies of section 3.6."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Float[Tensor, "n C"], soft_labels: Float[Tensor, "n C"]) -> Float[Tensor, ""]:
    """Eq. 6: the mean over samples of CE(q, p)."""
    return -(soft_labels * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def gate_loss(gate_logits: Float[Tensor, "n"], is_clean: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """L_BCE of eq. 12: how well the gate, by the logits of w_i, tells clean from corrupted labels."""
    return F.binary_cross_entropy_with_logits(gate_logits, is_clean.to(gate_logits.dtype))


def corrupt_half(
    labels: Int64[Tensor, "n"],
    logits: Float[Tensor, "n C"],
    strategy: str,
    generator: torch.Generator | None,
    share: tuple[int, int] = (0, 1),
) -> Int64[Tensor, "n"]:
    """Section 3.6: corrupts the first half (rounded down) of a clean batch; batches are shuffled.

    Args:
        labels: the true ones. logits: the teacher's own prediction for the batch.
        strategy: ``adversarial`` gives the class that the teacher believes in most among the wrong ones;
            ``random`` draws uniformly from all C classes, so that a label can stay clean: the target of the
            BCE term is whether a label *is* right, not whether it was drawn; ``none`` changes nothing.
        generator: a CPU generator; used by ``random`` only.
        share: (rank, world): these are every world-th sample, from the rank-th on, of ``n * world``; what
            is corrupted is that batch's half.
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
