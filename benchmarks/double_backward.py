"""MLC and MSLC with a second backward pass in place of forward mode, as published: for timings."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from emlc_lib.core.losses import soft_cross_entropy
from emlc_lib.core.meta_gradient import Params, parameters_of
from emlc_lib.methods.mlc import MLC, halves
from emlc_lib.methods.mslc import MSLC


def double_backward_surrogate(gradients: Params, direction: Params, *, lr: float) -> Tensor:
    """-eta <grad_w L~, direction>: its gradient with respect to alpha is -eta direction^T H_wa, Prop. 1 once more.

    Args:
        gradients: of a noisy batch's loss by parameter name, made with ``create_graph=True``.
        direction: by the same names, constant: g_w.
        lr: eta.
    """
    return -lr * torch.stack([(gradients[name] * direction[name]).sum() for name in direction]).sum()


class _Passes(nn.Module):
    """A classifier's embeddings (n, d) and logits (n, C)."""

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.features(x)
        return features, self.classifier.head(features)


class MLCByDoubleBackward(MLC):
    """Only for k = 1, where G is not carried on."""

    def step(self, t: int) -> dict[str, Tensor]:
        student, lr = self.student, self.config.lr * self.schedule(t)
        batch = self.batches.noisy(t)
        meta, own = halves(self.batches.clean(t, self.config.clean_batch_size))
        # Leaves of their own keep the second backward pass valid while the student's step is made in place.
        w = {name: p.requires_grad_() for name, p in parameters_of(student).items()}
        named = {f"classifier.{name}": p for name, p in w.items()}

        def passes(x: Tensor) -> list[Tensor]:
            with self.context():
                return [output.to(x.dtype) for output in functional_call(_Passes(student), named, (x,))]

        features, logits = passes(batch.x)
        soft_labels = self.corrector(features.detach(), batch.given)
        share = len(batch.x) / (len(batch.x) + len(own.labels))
        loss = share * soft_cross_entropy(logits, soft_labels)
        loss = loss + (1 - share) * F.cross_entropy(passes(own.x)[1], own.labels)
        gradients = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        self.apply("student", gradients, t)
        g_after, meta_loss = self.clean_gradient(meta)
        objective = double_backward_surrogate(dict(zip(w, gradients, strict=True)), g_after, lr=lr)
        self.apply("corrector", torch.autograd.grad(objective, list(self.corrector.parameters())), t)
        return {"student_loss": loss.detach(), "meta_loss": meta_loss}


class MSLCByDoubleBackward(MSLC):
    def through_virtual_step(self, loss, soft_labels, x, clean, lr, tape=None):
        names, params = zip(*self.student.named_parameters(), strict=True)
        gradients = dict(zip(names, torch.autograd.grad(loss, params, create_graph=True), strict=True))
        moved = {n: p.detach() - lr * gradients[n].detach() for n, p in zip(names, params, strict=True)}
        g_w, clean_loss = self.clean_gradient(clean, at=moved)
        return double_backward_surrogate(gradients, g_w, lr=lr), clean_loss
