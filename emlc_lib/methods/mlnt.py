r"""MLNT, meta-learning based noise-tolerant training (Li, Wong, Zhao and Kankanhalli, CVPR 2019).

The student is trained to be hard to mislead: after a gradient step on labels that were made worse on purpose it
should still agree with a teacher, the moving average of its own past. Per batch (X, Y~) of n samples, Algorithm 1:

1. M times: synthetic labels Y_m by random neighbour label transfer: some samples take the label of a random
   one of their nearest neighbours in feature space, so that the noise resembles the noise that is there;
2. the look-ahead step  theta_m = theta - alpha grad L_c(X, Y_m, theta), L_c being cross-entropy;
3. its consistency  J(theta_m) = (1/n) sum_i KL(p(x_i; teacher) || p(x_i; theta_m));
4. the meta step  theta <- theta - eta grad_theta (1/M) sum_m J(theta_m), through the look-ahead;
5. the conventional step on L_c(X, Y~, theta), and teacher <- gamma teacher + (1 - gamma) theta.

No clean label is used; the trainer picks the best epoch on the clean set, as for every method.

Choices, with the paper, the released code (LiJunnan1992/MLNT, for Clothing1M) and a public CIFAR-10
reproduction in view:

* Steps 4 and 5 are two updates with rates of their own, in this order, as in the paper. The code adds both
  gradients into one SGD step. Step 4 is plain gradient descent, step 5 the student's usual SGD.
* Step 4 differentiates through step 2, second-order terms included. The code seems to mean to leave them out, but
  what it detaches is not what it uses.
* M = 10, and eta rising to 0.4 in the first sixth of the training (20 of 120 epochs), are the paper's for
  CIFAR-10. The rise as exp(-5 (1 - u)^2), half of a batch's samples and 10 neighbours are the code's, alpha = 0.2
  is the reproduction's.
* Neighbours are looked for within the batch by Euclidean distance, as in the paper. Its features come from
  another network, trained with cross-entropy on the whole noisy set beforehand. Here they are the teacher's,
  which is such a network after a while, at no further cost; with a self-supervised or supervised start they are
  good from the first step.
* gamma is constant. The code goes from 0.99 to 0.999 after the ramp; an average over 1,000 steps would span most
  of a run here.
* KL is summed over classes and averaged over samples, as in the paper; the code's loss also divides by C.
* The teacher runs in training mode with running statistics of its own, as in the code.
* One round. The paper also iterates: it trains again with the best model of the last round as a mentor, which
  filters out unlikely labels and takes part in the consistency target. That multiplies the cost of a run, and
  every other method of a comparison gets one.
* The student is what is evaluated; the code validates the teacher too and keeps the better of the two.
"""

import copy
import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..core.meta_gradient import batch_statistics_only
from ..runtime.execution import to_device
from .base import Method, MethodParameters

SHARE = 0.5

NEIGHBOURS = 10

RAMP = 1 / 6


def synthetic_labels(features: Tensor, given: Tensor, sets: int, generator: torch.Generator) -> Tensor:
    """Random neighbour label transfer: in each set a random half (rounded down) of the labels is replaced.

    Args:
        features: (n, d); a label comes from one of the 10 (or n - 1, if fewer) nearest other samples.
        given: (n,) int64 labels.
        sets: M.
        generator: a CPU generator.

    Returns:
        (M, n) int64 labels.
    """
    n = len(given)
    distances = torch.cdist(features, features)
    distances.fill_diagonal_(torch.inf)
    nearest = distances.topk(min(NEIGHBOURS, n - 1), largest=False).indices
    chosen, places = [], []
    for _ in range(sets):
        chosen.append(torch.randperm(n, generator=generator)[: int(SHARE * n)])
        places.append(torch.randint(nearest.shape[1], chosen[-1].shape, generator=generator))
    chosen, places = to_device(given.device, torch.stack(chosen), torch.stack(places))
    return given.repeat(sets, 1).scatter_(1, chosen, given[nearest[chosen, places]])


def consistency_gradient(
    student: nn.Module, x: Tensor, synthetic: Tensor, targets: Tensor, lr: float
) -> tuple[list[Tensor], Tensor]:
    """The gradient of the meta loss (1/M) sum_m J(theta_m) at the student's parameters, through the look-ahead.

    The graph of one look-ahead step is held at a time; they share the forward pass at theta. Batch norm uses
    the batch's statistics and updates none.

    Args:
        student: images to logits, in training mode.
        x: (n, ...) images. synthetic: (M, n) int64 labels. targets: (n, C), the teacher's probabilities.
        lr: alpha, of the look-ahead step.

    Returns:
        One gradient per parameter in the order of ``student.parameters()``, and the meta loss, detached.
    """
    names, params = zip(*student.named_parameters(), strict=True)
    total = [torch.zeros_like(p) for p in params]
    losses = []
    with batch_statistics_only(student):
        logits = student(x)
        for labels in synthetic:
            gradients = torch.autograd.grad(F.cross_entropy(logits, labels), params, create_graph=True)
            moved = {name: p - lr * g for name, p, g in zip(names, params, gradients, strict=True)}
            log_p = F.log_softmax(functional_call(student, moved, (x,)), dim=1)
            loss = F.kl_div(log_p, targets, reduction="batchmean")
            # The forward pass at theta is needed again by the next set.
            for sum_, g in zip(total, torch.autograd.grad(loss, params, retain_graph=True), strict=True):
                sum_.add_(g, alpha=1 / len(synthetic))
            losses.append(loss.detach())
    return total, torch.stack(losses).mean()


class MLNT(Method, name="mlnt", label="MLNT", stream=31):
    """A meta step towards noise tolerance before each step on the noisy labels. Labels are not corrected.

    ``consistency_loss`` in the log is the meta loss. The meta step is always in float32.
    """

    look = ("#56B4E9", "X")

    class Parameters(MethodParameters):
        mlnt_sets: int = Field(10, ge=1, le=100, description="M, sets of synthetic labels per batch")
        mlnt_lr: float = Field(0.2, gt=0, le=10, description="alpha, the learning rate of the look-ahead step")
        mlnt_meta_lr: float = Field(0.4, ge=0, le=10, description="eta, the meta step's rate after its ramp-up")
        mlnt_decay: float = Field(0.99, ge=0, lt=1, description="gamma of the moving average that is the teacher")

    presets = {"quick": {"mlnt_sets": 2}}

    second_rate = "mlnt_meta_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        self.average = copy.deepcopy(student)
        for parameter in self.average.parameters():
            parameter.requires_grad_(False)
        self.networks["average"] = self.average

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        features, targets = self._teach(batch.x)
        synthetic = synthetic_labels(features, batch.given, self.config.mlnt_sets, self.generator(t))
        gradient, consistency = consistency_gradient(
            self.student, batch.x, synthetic, targets, self.config.mlnt_lr
        )
        rate = self.meta_rate(t)
        with torch.no_grad():
            for p, g in zip(self.student.parameters(), gradient, strict=True):
                p.sub_(g, alpha=rate)

        loss = F.cross_entropy(self.logits(batch.x), batch.given)
        self.descend("student", [loss], t)
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.student.parameters(), strict=True):
                a.lerp_(p, 1 - self.config.mlnt_decay)
        return {"student_loss": loss.detach(), "consistency_loss": consistency}

    def meta_rate(self, t: int) -> float:
        """eta at step t: its ramp-up, times the factor of all learning rates."""
        u = min(1.0, t / (RAMP * self.last_step(self.config.epochs)))
        return self.config.mlnt_meta_lr * math.exp(-5 * (1 - u) ** 2) * self.schedule(t)

    @torch.no_grad()
    def _teach(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The averaged network's features (n, d) and probabilities (n, C)."""
        with self.context():
            features = self.average.features(x)
            logits = self.average.head(features)
        return features.to(x.dtype), logits.to(x.dtype).softmax(dim=1)
