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
  50 % noise, seed 0) it recovers 81 % of the wrong labels, eq. 8 to the letter, when that was an
  option here (at commit 1cc4862), 0 %, at the published rate of Adam. So the code's way is followed.
* Algorithm 1 ends by making z anew with the student after its step. The code keeps what it trained on, which
  needs no further pass; so does this.
* The code makes its real step from a second forward pass of the same batch through the same weights; here it is
  the first one, differentiated again. Its learning rate in epochs 80-99 is a tenth of the virtual step's; here
  both have the scheduled one. The virtual step has no momentum and no weight decay, in both.
* The meta-gradient takes a second backward pass in the code; here the same numbers come from EMLC's Proposition 3,
  of which every corrected label is a case, in less time (``benchmarks/double_backward.py`` has the code's way).
* Adam at 1e-3 with weight decay 1e-4, and torch's initialisation of linear layers, as in the code.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.metrics import correction_counts
from ..data.batches import NoisyBatch
from ..runtime.tangent import Tape
from .look_ahead import LookAhead, LookAheadParameters, LossWeight, SampleMemory


class SoftLabelCorrector(nn.Module):
    """Eq. 8: the corrected labels, differentiable in the weights of both coefficient networks."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.given, self.previous = LossWeight(generator), LossWeight(generator)

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


class MSLC(LookAhead, name="mslc", label="MSLC", stream=21):
    """The student learns from labels that two small networks combine; these learn from its clean loss."""

    look = ("#CC79A7", "^")

    class Parameters(LookAheadParameters):
        mslc_lr: float = Field(1e-3, gt=0, le=1, description="Adam's rate for the two coefficient networks")
        mslc_plain_share: float = Field(
            2 / 3, ge=0, lt=1, description="share of the epochs before labels are corrected (80 of 120)"
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
        corrector = SoftLabelCorrector(self.generator())
        self.corrector = self.networks["corrector"] = corrector.to(config.device, dtype)
        # z of every sample, (N, C)
        memory = SampleMemory(labels=F.one_hot(batches.data.noisy_labels, self._classes).float())
        self.memory = self.networks["memory"] = memory.to(config.device, dtype)
        group = {"params": list(corrector.parameters()), "initial_lr": config.mslc_lr}
        self.optimisers["corrector"] = torch.optim.Adam([group], config.mslc_lr, weight_decay=1e-4)
        self._plain_steps = batches.last_step(config.mslc_plain_epochs, 1)

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        if t < self._plain_steps:
            log, logits = {}, self.logits(batch.x)
            soft_labels = corrected = self._one_hot(batch.given, logits)
            kept, gate = logits.detach().softmax(dim=1), logits.new_ones(len(logits))
        else:
            logits, tape = self.recorded(batch.x)
            log = {"meta_loss": self._update_corrector(t, batch, logits, tape)}
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
        previous, present = (self._one_hot(q.argmax(dim=1), logits) for q in (kept, now))
        a, b, c = self.corrector(logits, given, previous)
        return a * given + b * previous + c * present, a * given + b * kept + c * now, a.squeeze(1)

    def _update_corrector(self, t: int, batch: NoisyBatch, logits: Tensor, tape: Tape | None) -> Tensor:
        """Eq. 12; returns the clean loss after the virtual step. The graph of ``logits`` (n, C) is kept."""
        soft_labels, _, _ = self._correct(batch, logits.detach())
        clean = self.batches.clean(t, self.config.clean_batch_size)
        loss, lr = soft_cross_entropy(logits, soft_labels), self.config.lr * self.schedule(t)
        objective, meta_loss = self.through_virtual_step(loss, soft_labels, batch.x, clean, lr, tape)
        new = torch.autograd.grad(objective, list(self.corrector.parameters()), retain_graph=True)
        self.apply("corrector", new, t)
        return meta_loss
