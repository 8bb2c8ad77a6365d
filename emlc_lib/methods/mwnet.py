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

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from .look_ahead import LookAhead, LookAheadParameters, LossWeight

WEIGHT_DECAY = 1e-4


class MWNet(LookAhead, name="mwnet", label="MW-Net", stream=30):
    """Each sample's loss is weighed by a network that learns, through a virtual step, what helps on clean data.

    Besides the losses it logs the mean weight of right and of wrong labels.
    """

    look = ("#E69F00", "P")

    class Parameters(LookAheadParameters):
        mwnet_lr: float = Field(1e-3, gt=0, le=10, description="Adam's learning rate for the weight net; constant")

    second_rate = "mwnet_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        self.weight_net = LossWeight(self.generator()).to(student.head.weight)  # its device and number format
        self.networks["weight_net"] = self.weight_net
        parameters = self.weight_net.parameters()
        self.optimisers["weight_net"] = torch.optim.Adam(parameters, config.mwnet_lr, weight_decay=WEIGHT_DECAY)

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        clean = self.batches.clean(t, self.config.clean_batch_size)
        logits, tape = self.recorded(batch.x)
        losses = F.cross_entropy(logits, batch.given, reduction="none")

        weights = self.weights(losses.detach())
        soft_labels = weights.unsqueeze(1) * F.one_hot(batch.given, logits.shape[1])
        virtual, lr = (weights.detach() * losses).mean(), self.config.lr * self.schedule(t)
        objective, meta_loss = self.through_virtual_step(virtual, soft_labels, batch.x, clean, lr, tape)
        self.optimisers["weight_net"].zero_grad(set_to_none=True)
        objective.backward()
        self.optimisers["weight_net"].step()

        with torch.no_grad():
            weights = self.weights(losses)
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

    def weights(self, losses: Tensor) -> Tensor:
        """V of losses (n,), (n,)."""
        return self.weight_net(losses.unsqueeze(1)).squeeze(1)
