r"""Meta Soft Label Corrector: Wu, Shu, Xie, Zhao and Meng, AAAI 2021 (arXiv 2008.00627) and its public code.

The corrected label of a sample is a convex combination of the given label y, what its corrected label was when
it was last seen, z, and the student's present prediction p (eq. 8 of that paper):

    q = a(l_a) y + (1 - a(l_a)) (b(l_b) z + (1 - b(l_b)) p),     l_a = CE(y, p),  l_b = CE(z, p).

a and b are networks of one number, a loss, with one hidden layer of 100 units; theta are the weights of both.
Per step (Algorithm 1): a virtual plain-SGD step of the student on q_theta (eq. 11); one step of theta down the
clean loss after it (eq. 12); the student's real step from where it was, with the labels of the new theta (eq.
13); these labels become z. p and both losses count as constants, so only the labels carry theta.

Choices, where the paper is open or its code does something else:

* Labels are corrected after a first part of the training with cross-entropy on the given ones: from epoch 80
  on, of 120 in the code. Here ``mslc_plain_share`` of the epochs. Then z is the student's prediction of the epoch
  before, as in the code. A sample that was left out of incomplete batches so far has its given label for z.
* Eq. 8 has probabilities. p as a label of its own prediction has no gradient: b would only say how much of the
  sample counts at all, and nothing would draw the student to its own class. The code trains on the classes of
  the highest z and p, l_b included, keeps probabilities, and has the published numbers. On digits (preset smoke,
  50 % noise, seed 0) it recovers 81 % of the wrong labels, eq. 8 to the letter (``mslc_soft_targets=True``) 0 %,
  at the published rate of Adam. So the code's way is the default.
* Algorithm 1 ends by making z anew with the student after its step. The code keeps what it trained on, which
  needs no further pass; so does this.
* The code makes its real step from a second forward pass of the same batch through the same weights; here it is
  the first one, differentiated again. Its learning rate in epochs 80-99 is a tenth of the virtual step's; here
  both have the scheduled one. The virtual step has no momentum and no weight decay, in both.
* The meta-gradient takes a second backward pass in the code (``meta_pass="double_backward"``, for timings); the
  default takes the same numbers from EMLC's Proposition 3, of which every corrected label is a case.
* Adam at 1e-3 with weight decay 1e-4, and torch's initialisation of linear layers, as in the code.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.meta_gradient import (
    InnerStep,
    Params,
    batch_statistics_only,
    double_backward_surrogate,
    forward_mode,
    k_step_surrogate,
    parameters_of,
)
from ..core.metrics import correction_counts
from ..data.batches import CleanBatch, NoisyBatch
from ..runtime.execution import autocast, compiled
from ..runtime.randomness import Stream, torch_generator
from .base import Method, TangentParameters


class Coefficient(nn.Sequential):
    """A loss per sample, (n, 1), to a weight in (0, 1), (n, 1)."""

    def __init__(self, generator: torch.Generator, hidden: int = 100):
        with torch.device("meta"):  # torch's own initialisation would draw from the global generator
            super().__init__(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Sigmoid())
        self.to_empty(device="cpu")
        for layer in (self[0], self[2]):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            # Not zero: a loss is never negative, and ReLU units that all bend at zero make a linear function.
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


class SoftLabelCorrector(nn.Module):
    """Eq. 8: the corrected labels, differentiable in the weights of both coefficient networks."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.given, self.previous = Coefficient(generator), Coefficient(generator)

    def forward(self, logits: Tensor, given: Tensor, previous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The coefficients of the labels' parts.

        Args:
            logits: (n, C) of the student, constant.
            given: (n, C), y as probabilities, all in one class.
            previous: (n, C), z, the labels to which b's loss refers.

        Returns:
            (n, 1) each, in (0, 1): the weights of y, z and p, which sum to one.
        """
        log_probs = F.log_softmax(logits, dim=1)
        a = self.given(-(given * log_probs).sum(dim=1, keepdim=True))
        b = self.previous(-(previous * log_probs).sum(dim=1, keepdim=True))
        return a, (1 - a) * b, (1 - a) * (1 - b)


class LabelMemory(nn.Module):
    """z of every sample of the noisy set: ``labels`` (N, C), a buffer, so that checkpoints have it."""

    def __init__(self, given: Tensor, n_classes: int):
        super().__init__()
        self.register_buffer("labels", F.one_hot(given, n_classes).float())


class MSLC(Method, name="mslc", label="MSLC"):
    """The student learns from labels that two small networks combine; these learn from its clean loss."""

    look = ("#CC79A7", "^")

    class Parameters(TangentParameters):
        mslc_lr: float = Field(1e-3, gt=0, le=1, description="Adam's rate for the two coefficient networks")
        mslc_plain_share: float = Field(
            2 / 3, ge=0, lt=1, description="share of the epochs before labels are corrected (80 of 120)"
        )
        mslc_soft_targets: bool = Field(
            False,
            description="predictions enter the corrected label as their highest class (its public code); True: as "
            "probabilities (its eq. 8 to the letter)",
        )
        meta_pass: Literal["forward_mode", "double_backward"] = Field(
            "forward_mode",
            description="mlc, mslc: how the meta-gradient is computed: by Proposition 3 and forward mode, or by a "
            "second backward pass as published, which gives the same numbers in more time",
        )

        @property
        def mslc_plain_epochs(self) -> int:
            """Epochs before labels are corrected."""
            return round(self.mslc_plain_share * self.epochs)

        @model_validator(mode="after")
        def _corrects_some(self) -> MSLC.Parameters:
            if self.mslc_plain_epochs >= self.epochs:
                raise ValueError(
                    f"mslc_plain_share: {self.mslc_plain_share:.3g} of {self.epochs} epochs are all of them, and "
                    "no label would be corrected; give more epochs or a smaller share"
                )
            return self

    presets = {"smoke": {"mslc_plain_share": 0.2}}

    second_rate = "mslc_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, None)
        dtype, self._classes = student.head.weight.dtype, student.head.out_features
        corrector = SoftLabelCorrector(torch_generator(config.seed, Stream.MSLC_WEIGHTS))
        self.corrector = self.networks["corrector"] = corrector.to(config.device, dtype)
        memory = LabelMemory(batches.data.noisy_labels, self._classes)
        self.memory = self.networks["memory"] = memory.to(config.device, dtype)
        group = {"params": list(corrector.parameters()), "initial_lr": config.mslc_lr}
        self.optimisers["corrector"] = torch.optim.Adam([group], config.mslc_lr, weight_decay=1e-4)
        self._plain_steps = batches.last_step(config.mslc_plain_epochs, 1)
        self._twice = config.meta_pass == "double_backward"
        if self._twice:  # a compiled graph cannot be differentiated twice
            self._student_features = student.features
        self._taped = self.recorder()
        self._forward_mode = compiled(forward_mode, config.compile)

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        logits = self.logits(batch.x)
        if t < self._plain_steps:
            log = {}
            soft_labels = corrected = self._one_hot(batch.given, logits)
            kept, gate = logits.detach().softmax(dim=1), logits.new_ones(len(logits))
        else:
            log = {"meta_loss": self._update_corrector(t, batch, logits)}
            with torch.no_grad():
                soft_labels, kept, gate = self._correct(batch, logits.detach())
            corrected = kept
        loss = soft_cross_entropy(logits, soft_labels)
        self.descend("student", [loss], t)
        self.memory.labels[batch.index] = kept
        counts = correction_counts(corrected, gate, batch.given, batch.true)
        return log | {"student_loss": loss.detach(), "correction": counts}

    def _one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        return F.one_hot(labels, self._classes).to(like.dtype)

    def _correct(self, batch: NoisyBatch, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to train on (n, C), what to keep as z (n, C), and a, the weight of the given label (n,)."""
        given, kept = self._one_hot(batch.given, logits), self.memory.labels[batch.index]
        now = logits.softmax(dim=1)
        previous, present = kept, now
        if not self.config.mslc_soft_targets:
            previous, present = (self._one_hot(q.argmax(dim=1), logits) for q in (kept, now))
        a, b, c = self.corrector(logits, given, previous)
        return a * given + b * previous + c * present, a * given + b * kept + c * now, a.squeeze(1)

    def _update_corrector(self, t: int, batch: NoisyBatch, logits: Tensor) -> Tensor:
        """Eq. 12; returns the clean loss after the virtual step. The graph of ``logits`` (n, C) is kept."""
        config, lr = self.config, self.config.lr * self.schedule(t)
        soft_labels, _, _ = self._correct(batch, logits.detach())
        names, params = zip(*self.student.named_parameters(), strict=True)
        loss = soft_cross_entropy(logits, soft_labels)
        gradients = torch.autograd.grad(loss, params, retain_graph=True, create_graph=self._twice)
        virtual = {
            name: (p.detach() - lr * g.detach()).requires_grad_()
            for name, p, g in zip(names, params, gradients, strict=True)
        }
        g_w, meta_loss = self._clean_gradient(virtual, self.batches.clean(t, config.clean_batch_size))
        if self._twice:
            surrogate = double_backward_surrogate(dict(zip(names, gradients, strict=True)), g_w, lr=lr)
        else:
            inner = InnerStep(parameters_of(self.student), batch.x, soft_labels)
            how = {"taped": self._taped, "product": self._forward_mode}
            surrogate = k_step_surrogate(self.student, [inner], g_w, lr=lr, **how)
        # The student's own graph is differentiated once more, for the real step.
        new = torch.autograd.grad(surrogate, list(self.corrector.parameters()), retain_graph=True)
        self.apply("corrector", new, t)
        return meta_loss

    def _clean_gradient(self, params: Params, clean: CleanBatch) -> tuple[Params, Tensor]:
        """The gradient of the clean loss at ``params``, by name, and the loss; statistics are the batch's own."""
        config = self.config
        with autocast(config.precision, config.device), batch_statistics_only(self.student):
            loss = F.cross_entropy(functional_call(self.student, params, (clean.x,)), clean.labels)
        gradients = torch.autograd.grad(loss, list(params.values()))
        return dict(zip(params, gradients, strict=True)), loss.detach()
