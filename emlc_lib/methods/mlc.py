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

* The published code puts the identity for H_ww. That is ``mlc_curvature="identity"``; ``"exact"`` takes the
  Hessian of the student's loss. Both leave out momentum and weight decay, as the code does; w' itself has both.
* G is made at *every* step, unlike EMLC's, so that a step costs the same for every k. For k = 1 the code finds
  g as well, at the cost of a clean pass, and multiplies it by zero; here it is found only where it counts.
* The student's step is made with the labels of the LCN before its update, as in the code.
* H_wa is not formed. The code differentiates <grad_w L~, g'> with a second backward pass
  (``meta_pass="double_backward"``, for timings); the default takes the same numbers from EMLC's Proposition 3.
* All published commands halve the clean batch: one half has its cross-entropy in the student's loss, weighed by
  its number of samples, the other is the meta-objective (``mlc_mix_clean``).
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

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.meta_gradient import (
    InnerStep,
    Params,
    batch_statistics_only,
    clean_gradient,
    double_backward_surrogate,
    forward_mode,
    k_step_surrogate,
    parameters_of,
)
from ..core.metrics import correction_counts
from ..runtime.execution import autocast, compiled
from ..runtime.randomness import Stream, torch_generator
from .base import Method, TangentParameters


class LabelCorrectionNetwork(nn.Module):
    """g_alpha: features (n, d) and given labels (n,) int64 to soft labels (n, C), whose rows sum to one."""

    def __init__(
        self, dim: int, n_classes: int, generator: torch.Generator, *, embedding: int = 64, hidden: int = 128
    ):
        super().__init__()
        with torch.device("meta"):  # torch's own initialisation would draw from the global generator
            self.label_embedding = nn.Embedding(n_classes, embedding)
            self.net = nn.Sequential(
                nn.Linear(dim + embedding, hidden), nn.Tanh(),
                nn.Linear(hidden, hidden), nn.Tanh(),
                nn.Linear(hidden, n_classes),
            )  # fmt: skip
        self.to_empty(device="cpu")
        nn.init.xavier_uniform_(self.label_embedding.weight, generator=generator)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, given: Tensor) -> Tensor:
        return self.net(torch.cat([features, self.label_embedding(given)], dim=1)).softmax(dim=1)


class _FeaturesAndLogits(nn.Module):
    """A classifier that hands out its embeddings (n, d) as well as its logits (n, C)."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.features(x)
        return features, self.classifier.head(features)


class MLC(Method, name="mlc", label="MLC", looks_ahead=True):
    """The student learns from the LCN's soft labels; the LCN learns from the student's clean loss afterwards."""

    look = ("#D55E00", "v")

    class Parameters(TangentParameters):
        k: int = Field(1, ge=1, le=1000, description="student steps per teacher update (Algorithm 1)")
        mlc_lr: float = Field(3e-4, gt=0, le=1, description="Adam's rate for the label correction network")
        mlc_mix_clean: bool = Field(
            True,
            description="one half of each clean batch trains the student and the other is the meta-objective, as"
            " in all published commands; False: all of it is the meta-objective",
        )
        mlc_curvature: Literal["identity", "exact"] = Field(
            "identity",
            description="for k > 1, H_ww in the discount of earlier meta-gradients: the identity as published, "
            "or the Hessian of the student's loss (one Hessian-vector product more a step)",
        )
        meta_pass: Literal["forward_mode", "double_backward"] = Field(
            "forward_mode",
            description="mlc, mslc: how the meta-gradient is computed: by Proposition 3 and forward mode, or by a "
            "second backward pass as published, which gives the same numbers in more time",
        )

    presets = {"smoke": {"lr": 0.1}}

    second_rate = "mlc_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, None)
        generator = torch_generator(config.seed, Stream.MLC_WEIGHTS)
        corrector = LabelCorrectionNetwork(student.head.in_features, student.head.out_features, generator)
        self.corrector = self.networks["corrector"] = corrector.to(config.device, student.head.weight.dtype)
        group = {"params": list(corrector.parameters()), "initial_lr": config.mlc_lr}
        self.optimisers["corrector"] = torch.optim.Adam([group], config.mlc_lr, amsgrad=True)
        self._carried: list[Tensor] | None = None  # G, per parameter of the LCN; None where it is zero
        self._twice = config.meta_pass == "double_backward"
        self._both = _FeaturesAndLogits(student)
        # A compiled graph cannot be differentiated twice.
        self._passes = compiled(self._both, config.compile and not self._twice)
        self._taped = self.recorder()
        self._forward_mode = compiled(forward_mode, config.compile)

    @property
    def period(self) -> int:
        return self.config.k

    def step(self, t: int) -> dict[str, Tensor]:
        config, student = self.config, self.student
        batch, clean = self.batches.noisy(t), self.batches.clean(t, config.clean_batch_size)
        half = len(clean.labels) // 2 if config.mlc_mix_clean else len(clean.labels)
        meta, own = (clean.x[:half], clean.labels[:half]), (clean.x[half:], clean.labels[half:])
        g_before = self._clean_gradient(*meta)[0] if self._carried else None

        # Leaves of their own keep the second backward pass valid while the student's step is made in place.
        before = {name: p.requires_grad_(self._twice) for name, p in parameters_of(student).items()}
        weights = before if self._twice else dict(student.named_parameters())
        features, logits = self._forward(weights, batch.x)
        soft_labels = self.corrector(features.detach(), batch.given)
        loss = soft_cross_entropy(logits, soft_labels)
        share = len(batch.x) / (len(batch.x) + len(own[0]))
        if config.mlc_mix_clean:
            loss = share * loss + (1 - share) * F.cross_entropy(self._forward(weights, own[0])[1], own[1])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=self._twice)
        self.apply("student", gradients, t)

        g_after, meta_loss = self._clean_gradient(*meta)
        lr = config.lr * self.schedule(t)
        if self._twice:
            surrogate = double_backward_surrogate(dict(zip(weights, gradients, strict=True)), g_after, lr=lr)
        else:
            inner = InnerStep(before, batch.x, soft_labels)
            how = {"taped": self._taped, "product": self._forward_mode}
            surrogate = share * k_step_surrogate(student, [inner], g_after, lr=lr, **how)
        gradient = list(torch.autograd.grad(surrogate, list(self.corrector.parameters())))
        if self._carried:
            curved = self._curved(before, batch.x, soft_labels.detach(), own, g_after)
            gamma = _dot(g_before, {name: g_after[name] - lr * curved[name] for name in curved})
            gamma = gamma / _dot(g_before, g_before)
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

    def _forward(self, weights: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        """The student's embeddings and logits in the images' precision, differentiable in ``weights``."""
        with autocast(self.config.precision, self.config.device):
            if self._twice:
                named = {f"classifier.{name}": p for name, p in weights.items()}
                outputs = functional_call(self._both, named, (x,))
            else:
                outputs = self._passes(x)
        return tuple(output.to(x.dtype) for output in outputs)

    def _clean_gradient(self, x: Tensor, labels: Tensor) -> tuple[Params, Tensor]:
        with autocast(self.config.precision, self.config.device):
            return clean_gradient(self.student, x, labels)

    def _curved(self, params: Params, x: Tensor, soft_labels: Tensor, own, direction: Params) -> Params:
        """H_ww direction, of the student's loss at ``params`` on its step's batches with constant labels."""
        if self.config.mlc_curvature == "identity":
            return direction
        share = len(x) / (len(x) + len(own[0]))

        def loss(params):
            value = share * soft_cross_entropy(functional_call(self.student, params, (x,)), soft_labels)
            if self.config.mlc_mix_clean:
                value = value + (1 - share) * F.cross_entropy(
                    functional_call(self.student, params, own[:1]), own[1]
                )
            return value

        with batch_statistics_only(self.student), torch.no_grad():
            return jvp(grad(loss), ({name: p.detach() for name, p in params.items()},), (direction,))[1]


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()
