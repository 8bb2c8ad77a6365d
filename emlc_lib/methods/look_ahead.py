"""What methods share that take the gradient of the student's clean loss through its step, by Proposition 3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.meta_gradient import (
    InnerStep,
    Params,
    clean_gradient,
    k_step_vectors,
    log_prob_jvp,
    parameters_of,
    surrogate,
)
from ..data.batches import CleanBatch
from ..runtime.tangent import Tape, TapedForward, UnsupportedModel
from .base import Method, MethodParameters


class LookAheadParameters(MethodParameters):
    """Of methods that differentiate forwards through the student."""

    share_primal: bool | None = Field(
        None,
        description="reuse the training pass's activations in the forward-mode pass: less time, more memory; "
        "None does where it is exact and was measured to pay",
    )

    @property
    def shares_primal(self) -> bool:
        """What ``share_primal`` comes to. With k > 1 the memory that is held on to costs what it saves."""
        if self.share_primal is not None:
            return self.share_primal
        return getattr(self, "k", 1) == 1


class LookAhead(Method):
    """A method that evaluates the student's clean loss after a step, and differentiates it by what made the step.

    Raises:
        UnsupportedModel: ``share_primal`` asks for a tape, and the student has a layer without a rule.
    """

    Parameters = LookAheadParameters

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        self._taped: TapedForward | None = None
        self._product = log_prob_jvp
        try:
            self._taped = TapedForward(student, self.context)
            self._product = self._taped.log_prob_jvp
        except UnsupportedModel:
            if config.share_primal:
                raise

    def recorded(self, x: Tensor) -> tuple[Tensor, Tape | None]:
        """:meth:`logits` and, if activations are shared, the tape of that pass."""
        return self._taped(x) if self._taped and self.config.shares_primal else (self.logits(x), None)

    def clean_gradient(self, clean: CleanBatch, at: Params | None = None) -> tuple[Params, Tensor]:
        """:func:`~emlc_lib.core.meta_gradient.clean_gradient` in the configured precision."""
        with self.context():
            return clean_gradient(self.student, clean.x, clean.labels, at)

    def vectors(
        self, steps: Sequence[InnerStep], g_w: Params, lr: float | Tensor, weights: Sequence[float] | None = None
    ) -> list[Tensor]:
        """:func:`~emlc_lib.core.meta_gradient.k_step_vectors`, by the tapes of the steps or by forward mode."""
        return k_step_vectors(self.student, steps, g_w, lr=lr, weights=weights, product=self._product)

    def through_virtual_step(
        self, loss: Tensor, soft_labels: Tensor, x: Tensor, clean: CleanBatch, lr: float, tape: Tape | None = None
    ) -> tuple[Tensor, Tensor]:
        """The clean loss after a step of plain SGD that is not made, and how it depends on the labels.

        Args:
            loss: of the student on the batch x, whose graph is kept for the real step.
            soft_labels: (n, C), of which ``loss`` is the soft cross-entropy; attached to what is to learn.
            clean: where the loss after the step is taken. lr: of the step. tape: of the student's pass, if any.

        Returns:
            A scalar whose gradient is that of the clean loss; and the clean loss, detached.
        """
        before = parameters_of(self.student)
        gradients = torch.autograd.grad(loss, list(self.student.parameters()), retain_graph=True)
        moved = {name: p - lr * g for (name, p), g in zip(before.items(), gradients, strict=True)}
        g_w, clean_loss = self.clean_gradient(clean, at=moved)
        vectors = self.vectors([InnerStep(before, x, soft_labels, tape)], g_w, lr)
        return surrogate(vectors, [soft_labels]), clean_loss


class LossWeight(nn.Sequential):
    """A weight in (0, 1) as a function of a sample's loss, (n, 1) to (n, 1): one hidden layer of 100.

    Args:
        generator: the weights and biases are drawn from it, with torch's bounds for linear layers. The biases must
            not begin at zero: losses are positive, and ReLU units that all bend at zero make a linear function.
    """

    def __init__(self, generator: torch.Generator):
        with torch.device("meta"):  # torch's own initialisation would draw from the global generator
            super().__init__(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
        self.to_empty(device="cpu")
        for layer in (self[0], self[2]):
            for parameter in layer.parameters():
                bound = layer.in_features**-0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


class SampleMemory(nn.Module):
    """What is remembered of every sample of the noisy set: buffers of N rows by name, which checkpoints have."""

    def __init__(self, **rows: Tensor):
        super().__init__()
        for name, values in rows.items():
            self.register_buffer(name, values.clone())
