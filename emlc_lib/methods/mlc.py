r"""Meta Label Correction: Zheng, Awadallah and Dumais, AAAI 2021 (arXiv 1911.03809), code at microsoft/MLC.

A label correction network (LCN) g_alpha(h(x), y~) makes soft labels from the student's own features h(x), which
are held constant, and an embedding of the given label. The student p_w takes an SGD step on them, and alpha
descends the clean loss of the student after its step. With g = grad_w L(w), g' = grad_w L(w'), the clean loss
before and after step t on one and the same clean batch, and L~ the noisy loss, the meta-gradient is carried on
from step to step:

    G_t = -eta g'^T H_wa + gamma G_(t-1),     gamma = g'^T (I - eta H_ww) g / ||g||^2.

It is the chain rule d(w')/d(alpha) = (I - eta H_ww) dw/d(alpha) - eta H_wa, in which G_(t-1) = g^T dw/d(alpha)
is kept instead of the Jacobian dw/d(alpha): only the part of g'^T (I - eta H_ww) along g is known from it.
alpha moves along G every k steps, and G starts again from 0; so k = 1 has no gamma and is exact.

What is followed, and where choices had to be made:

* H_ww is the identity, as in the published code. That leaves out momentum and weight decay; w' itself has both.
* G is made at *every* step, unlike EMLC's, so that a step costs the same for every k. For k = 1 the code finds
  g as well, at the cost of a clean pass, and multiplies it by zero; here it is found only where it counts.
* The student's step is made with the labels of the LCN before its update, as in the code.
* H_wa is not formed. The code differentiates <grad_w L~, g'> with a second backward pass; here the same numbers
  come from EMLC's Proposition 3, in less time (``benchmarks/double_backward.py`` has the code's way).
* All published commands halve the clean batch: one half has its cross-entropy in the student's loss, weighed by
  its number of samples, the other is the meta-objective.
* The LCN: an embedding of 64 numbers, two hidden layers of 128 tanh units, softmax; Xavier weights, zero
  biases; Adam (AMSGrad) at 3e-4. The code's commands for CIFAR embed in 128 numbers; its option ``skip``, a
  gate between its output and the given label, is for Clothing1M alone and is not built here.
* With few steps it needs a fast student and a slow LCN, as in its commands (0.1 and 3e-4). With EMLC's student
  rate of 0.02 and an LCN ten times faster the student ends at chance (digits, preset smoke, 50 % noise).
* Adam's rate follows ``schedule`` like every learning rate here; in the code it is constant.
* Running statistics of the student's batch norms count training passes only. The code's count its clean passes
  too.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.meta_gradient import InnerStep, Params, parameters_of, surrogate
from ..core.metrics import correction_counts
from ..data.batches import CleanBatch
from .look_ahead import LookAhead, LookAheadParameters


class LabelCorrectionNetwork(nn.Module):
    """g_alpha: features (n, d) and given labels (n,) int64 to soft labels (n, C), whose rows sum to one."""

    def __init__(self, dim: int, n_classes: int, generator: torch.Generator):
        super().__init__()
        with torch.device("meta"):  # torch's own initialisation would draw from the global generator
            self.label_embedding = nn.Embedding(n_classes, 64)
            self.net = nn.Sequential(
                nn.Linear(dim + 64, 128), nn.Tanh(),
                nn.Linear(128, 128), nn.Tanh(),
                nn.Linear(128, n_classes),
            )  # fmt: skip
        self.to_empty(device="cpu")
        nn.init.xavier_uniform_(self.label_embedding.weight, generator=generator)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, given: Tensor) -> Tensor:
        return self.net(torch.cat([features, self.label_embedding(given)], dim=1)).softmax(dim=1)


class MLC(LookAhead, name="mlc", label="MLC", looks_ahead=True, stream=20):
    """The student learns from the LCN's soft labels; the LCN learns from the student's clean loss afterwards."""

    look = ("#D55E00", "v")

    class Parameters(LookAheadParameters):
        k: int = Field(1, ge=1, le=1000, description="student steps per teacher update (Algorithm 1)")
        mlc_lr: float = Field(3e-4, gt=0, le=1, description="Adam's rate for the label correction network")

        @model_validator(mode="after")
        def _has_no_tape(self) -> MLC.Parameters:
            if self.share_primal:
                raise ValueError("share_primal: mlc reads the student's features, too, and keeps no activations")
            return self

    presets = {"smoke": {"lr": 0.1}}

    second_rate = "mlc_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, None)
        corrector = LabelCorrectionNetwork(student.head.in_features, student.head.out_features, self.generator())
        self.corrector = self.networks["corrector"] = corrector.to(config.device, student.head.weight.dtype)
        group = {"params": list(corrector.parameters()), "initial_lr": config.mlc_lr}
        self.optimisers["corrector"] = torch.optim.Adam([group], config.mlc_lr, amsgrad=True)
        self._carried: list[Tensor] | None = None  # G, per parameter of the LCN; None where it is zero

    @property
    def period(self) -> int:
        return self.config.k

    def step(self, t: int) -> dict[str, Tensor]:
        config, student, lr = self.config, self.student, self.config.lr * self.schedule(t)
        batch = self.batches.noisy(t)
        meta, own = halves(self.batches.clean(t, config.clean_batch_size))
        g_before = self.clean_gradient(meta)[0] if self._carried else None

        before = parameters_of(student)
        features, logits = self.embed(batch.x)
        soft_labels = self.corrector(features.detach(), batch.given)
        share = len(batch.x) / (len(batch.x) + len(own.labels))
        loss = share * soft_cross_entropy(logits, soft_labels)
        loss = loss + (1 - share) * F.cross_entropy(self.logits(own.x), own.labels)
        self.apply("student", torch.autograd.grad(loss, list(student.parameters())), t)

        g_after, meta_loss = self.clean_gradient(meta)
        vectors = self.vectors([InnerStep(before, batch.x, soft_labels)], g_after, lr)
        objective = share * surrogate(vectors, [soft_labels])
        gradient = list(torch.autograd.grad(objective, list(self.corrector.parameters())))
        if self._carried:
            gamma = (1 - lr) * _dot(g_before, g_after) / _dot(g_before, g_before)
            gradient = [new + gamma * old for new, old in zip(gradient, self._carried, strict=True)]
        if (t + 1) % config.k == 0:
            self.apply("corrector", gradient, t)
            gradient = None
        self._carried = gradient
        return {
            "student_loss": loss.detach(),
            "meta_loss": meta_loss,
            "correction": correction_counts(soft_labels.detach(), None, batch.given, batch.true),
        }


def halves(clean: CleanBatch) -> tuple[CleanBatch, CleanBatch]:
    """What of a clean batch the meta-objective sees, and what trains the student."""
    half = len(clean.labels) // 2
    return CleanBatch(clean.x[:half], clean.labels[:half]), CleanBatch(clean.x[half:], clean.labels[half:])


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
