r"""Meta-Weight-Net (Shu et al., NeurIPS 2019): a small network learns how much each sample's loss should count.

V(l; theta), an MLP of sizes 1-100-1 with a ReLU and a sigmoid, gives sample i of a batch the weight
V_i = V(l_i; theta), where l_i is its cross-entropy at the student's present parameters w. Algorithm 1:

1. eq. 3, the virtual step:  w^(theta) = w - eta (1/n) sum_i V(l_i; theta) grad_w l_i
2. eq. 4, the weight net:    theta' = theta - beta grad_theta L_clean(w^(theta))
3. eq. 5, the student:       w' = w - eta (1/n) sum_i V(l_i; theta') grad_w l_i

The virtual step is linear in the weights, so the gradient of eq. 4 needs no double backward:

    grad_theta L_clean(w^) = -(eta / n) sum_i <g, grad_w l_i> grad_theta V_i,    g = grad L_clean at w^(theta),

and the n inner products are what one forward-mode pass along g gives. In the terms of this project a
weighted loss is a soft label V_i onehot(y~_i), and the formula is (*) of :mod:`emlc_lib.core.meta_gradient` with g
taken after the virtual step. It is exact.

Choices, with the paper and the released code (xjtushujun/meta-weight-net) in view:

* The weights are divided by n and not normalised to sum to one, as in both.
* The loss that V reads is a number: no gradient flows through V into w, as eqs. 3 and 5 have it and the code
  does.
* The virtual step has the student's present learning rate and neither momentum nor weight decay, as in both;
  step 3 is the student's usual SGD with both.
* theta: the paper's eq. 4 is plain gradient descent. One of the two released scripts takes SGD with a rate of
  1e-3, the later one Adam with 1e-3 and weight decay 1e-4; here it is Adam. The rate stays constant, as there.
* The losses of steps 1 and 3 are the same numbers, since w has not moved: one forward pass serves both, so
  running statistics of batch norm see each noisy batch once and never the clean one.
* The code's clean batch is as large as the noisy one; here it has ``clean_batch_size``, as for EMLC.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..core.meta_gradient import (
    InnerStep,
    Params,
    batch_statistics_only,
    forward_mode,
    k_step_vectors,
    parameters_of,
    surrogate,
)
from ..runtime.execution import autocast, compiled
from ..runtime.randomness import Stream, torch_generator
from .base import Method, TangentParameters

WEIGHT_DECAY = 1e-4


class WeightNet(nn.Module):
    """V(l; theta): a sample's weight in (0, 1) as a function of its loss.

    Args:
        generator: the weights and biases are drawn from it, with torch's bounds for linear layers. The biases
            must not begin at zero: losses are positive, and without biases V is a sigmoid of a line.
    """

    def __init__(self, generator: torch.Generator, hidden: int = 100):
        super().__init__()
        with torch.device("meta"):  # torch's own initialisation would draw from the global generator
            self.layers = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.to_empty(device="cpu")
        for layer in (self.layers[0], self.layers[2]):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, losses: Tensor) -> Tensor:
        """Weights (n,) for losses (n,)."""
        return self.layers(losses.unsqueeze(1)).squeeze(1).sigmoid()


class MWNet(Method, name="mwnet", label="MW-Net"):
    """Each sample's loss is weighed by a network that learns, through a virtual step, what helps on clean data.

    Besides the losses it logs the mean weight of right and of wrong labels.
    """

    look = ("#E69F00", "P")

    class Parameters(TangentParameters):
        mwnet_lr: float = Field(1e-3, gt=0, le=10, description="Adam's learning rate for the weight net; constant")

    second_rate = "mwnet_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        weight_net = WeightNet(torch_generator(config.seed, Stream.MWNET_WEIGHTS))
        self.weight_net = weight_net.to(student.head.weight)  # its device and number format
        self.networks["weight_net"] = self.weight_net
        parameters = self.weight_net.parameters()
        self.optimisers["weight_net"] = torch.optim.Adam(parameters, config.mwnet_lr, weight_decay=WEIGHT_DECAY)
        self._taped = self.recorder()
        self._forward_mode = compiled(forward_mode, config.compile)

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        clean = self.batches.clean(t, self.config.clean_batch_size)
        lr = self.config.lr * self.schedule(t)
        before = parameters_of(self.student)
        logits, tape = self.recorded(self._taped, batch.x)
        losses = F.cross_entropy(logits, batch.given, reduction="none")

        weights = self.weight_net(losses.detach())
        virtual = self._virtual_step(before, losses, weights.detach(), lr)
        g_w, meta_loss = self._clean_gradient(virtual, clean.x, clean.labels)
        soft_labels = weights.unsqueeze(1) * F.one_hot(batch.given, logits.shape[1])
        inner = InnerStep(before, batch.x, soft_labels, tape)
        vectors = k_step_vectors(self.student, [inner], g_w, lr=lr, taped=self._taped, product=self._forward_mode)
        self.optimisers["weight_net"].zero_grad(set_to_none=True)
        surrogate(vectors, [soft_labels]).backward()
        self.optimisers["weight_net"].step()

        with torch.no_grad():
            weights = self.weight_net(losses)
        loss = (weights * losses).mean()
        self.descend("student", [loss], t)
        right = batch.given == batch.true
        wrong = ~right & (batch.true >= 0)
        return {
            "student_loss": loss.detach(),
            "meta_loss": meta_loss,
            "weight_right": torch.where(right, weights, 0).sum() / right.sum(),
            "weight_wrong": torch.where(wrong, weights, 0).sum() / wrong.sum(),
        }

    def _virtual_step(self, before: Params, losses: Tensor, weights: Tensor, lr: float) -> Params:
        """Eq. 3 with weights (n,) held constant; keeps the graph of the losses (n,) for the real step."""
        parameters = list(self.student.parameters())
        gradients = torch.autograd.grad((weights * losses).mean(), parameters, retain_graph=True)
        return {name: value - lr * g for (name, value), g in zip(before.items(), gradients, strict=True)}

    def _clean_gradient(self, params: Params, x: Tensor, labels: Tensor) -> tuple[Params, Tensor]:
        """The gradient of the clean loss at ``params``, not at the student's own, and the loss, detached."""
        params = {name: value.requires_grad_() for name, value in params.items()}
        with batch_statistics_only(self.student), autocast(self.config.precision, self.config.device):
            loss = F.cross_entropy(functional_call(self.student, params, (x,)).to(x.dtype), labels)
        gradients = torch.autograd.grad(loss, list(params.values()))
        return dict(zip(params, gradients, strict=True)), loss.detach()
