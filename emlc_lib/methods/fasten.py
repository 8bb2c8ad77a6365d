r"""FasTEN (Kye, Choi, Yi and Chang, ECCV 2022): labels are corrected, but no corrected label is trusted.

One feature extractor has two linear heads: a clean one, p(true | x), which is the student's own, and a noisy
one that learns p(label | x) from the noisy set alone. In every step, within one backward pass:

* the transition matrix T[i, j] = p(label = j | true = i) is estimated as the mean prediction of the noisy head for
  the clean samples of class i, and held constant;
* the clean head learns from clean labels, and from noisy ones y~ by forward correction, the cross-entropy of
  T^T p(.|x); the noisy head learns y~ as they are, with weight lambda;
* each sample's label becomes the clean head's prediction if that is at least rho sure, else the label that came
  with the data set: a wrong correction can be taken back.

As labels are corrected, T changes with them, and the clean head goes on allowing for the errors that are left.

Choices, with the paper, its authors' description (Hyperconnect's technical blog, 2023) and the released code
(hyperconnect/FasTEN) in view:

* A corrected label is stored and used when its sample is met again, an epoch later, as in the code: the loss,
  noisy head and T of a step all use the stored labels. Recovery is measured on what the step writes.
* rho = 0.8 and lambda = 0.5, as in the code.
* The clean batch has the same number of samples of each class, as in the code: ``clean_batch_size`` rounded down
  to a multiple of C, but at least one each. (The code takes 10 of each class on CIFAR-10.)
* Clean and noisy terms of the clean head's loss are averaged over all samples of both batches together, as in the
  code; the paper's formula does not say how its sums are scaled.
* log(T^T p) is computed from logarithms; the code adds 1e-7 under the logarithm.
* Both heads' losses reach the shared features. Clean and noisy batch are two passes, each with its own batch
  statistics, as in the code.
* The code picks the epoch on 5,000 further clean images; here the clean set serves, as for every method.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.metrics import correction_counts
from ..core.teacher import initialise
from .base import Method, MethodParameters
from .look_ahead import SampleMemory


def estimated_transition(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The estimate of T[i, j] = p(label = j | true = i), (C, C); rows sum to one.

    Args:
        probabilities: (m, C), what the noisy head says of clean samples.
        labels: (m,) int64, their true labels. The row of a class that is not among them is not a number.
    """
    members = F.one_hot(labels, probabilities.shape[1]).to(probabilities)
    return members.T @ probabilities / members.sum(dim=0).unsqueeze(1)


def forward_corrected(logits: Tensor, labels: Tensor, transition: Tensor) -> Tensor:
    """-log (T^T p)[label] for each sample, (n,): the cross-entropy of the labels that p would give rise to.

    Args:
        logits: (n, C) of p(true | x). labels: (n,) int64. transition: (C, C), T[i, j] = p(label = j | true = i).
    """
    tiny = torch.finfo(transition.dtype).tiny
    return -torch.logsumexp(F.log_softmax(logits, dim=1) + transition.clamp_min(tiny).log().T[labels], dim=1)


class FasTEN(Method, name="fasten", label="FasTEN", stream=32):
    """Two heads, a transition matrix of its own for every step, and labels corrected where the clean head is sure.

    The gate that recovery is logged with is 1 where the label of the data set is kept and 0 where the
    prediction replaces it. ``transition_diagonal`` in the log is the mean of the diagonal of T.

    Attributes:
        transition: (C, C), the last step's estimate.
    """

    look = ("#222222", "*")

    class Parameters(MethodParameters):
        fasten_threshold: float = Field(
            0.8, ge=0, le=1, description="rho, the confidence from which a label is corrected"
        )
        fasten_noisy_weight: float = Field(
            0.5, gt=0, le=100, description="lambda, the weight of the noisy head's loss"
        )

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        clean = student.head
        with torch.device("meta"):
            head = nn.Linear(clean.in_features, clean.out_features)
        head = initialise(head, self.generator())
        self.noisy_head = head.to(clean.weight)  # its device and number format
        self.labels = SampleMemory(values=batches.data.noisy_labels)
        self.networks |= {"noisy_head": self.noisy_head, "labels": self.labels}
        self.optimisers["student"] = self.sgd(nn.ModuleList([student, self.noisy_head]), config.lr)
        self.per_class = max(1, config.clean_batch_size // clean.out_features)
        self.transition = torch.eye(clean.out_features).to(clean.weight)

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        clean = self.batches.balanced_clean(t, self.per_class)
        labels = self.labels.values[batch.index]
        logits, noisy_logits = self._heads(batch.x)
        clean_logits, clean_noisy_logits = self._heads(clean.x)

        self.transition = estimated_transition(clean_noisy_logits.detach().softmax(dim=1), clean.labels)
        corrected_losses = forward_corrected(logits, labels, self.transition)
        clean_losses = F.cross_entropy(clean_logits, clean.labels, reduction="none")
        noisy_loss = F.cross_entropy(noisy_logits, labels)
        loss = torch.cat([corrected_losses, clean_losses]).mean() + self.config.fasten_noisy_weight * noisy_loss
        self.descend("student", [loss], t)

        confidence, predicted = logits.detach().softmax(dim=1).max(dim=1)
        kept = confidence < self.config.fasten_threshold
        new = torch.where(kept, batch.given, predicted)
        self.labels.values[batch.index] = new
        soft_labels = F.one_hot(new, logits.shape[1])
        return {
            "student_loss": loss.detach(),
            "noisy_head_loss": noisy_loss.detach(),
            "transition_diagonal": self.transition.diagonal().mean(),
            "correction": correction_counts(soft_labels, kept, batch.given, batch.true),
        }

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) of the clean and of the noisy head, from one pass through the features."""
        with self.context():
            features = self.student.features(x)
            return self.student.head(features).to(x.dtype), self.noisy_head(features).to(x.dtype)
