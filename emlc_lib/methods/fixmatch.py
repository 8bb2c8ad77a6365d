r"""FixMatch (Sohn et al., NeurIPS 2020): the clean labels, and the noisy images *without* their labels.

A weakly augmented image that the student is at least tau sure of gives its class to a strongly augmented view of
itself:

    CE(clean batch) + lambda mean_i 1[max p(weak_i) >= tau] CE(strong_i, argmax p(weak_i)).

p(weak_i) is held constant. A noisy label is never looked at, so one run serves every noise rate: what noisy labels
are worth is measured against it.

Choices, with the paper and its public code in view:

* Weak is crop and flip, for the clean batch, too; strong has AutoAugment of the data set besides, as the paper has
  CTAugment or RandAugment and Cutout. On digits, which have no policy, both views are crops.
* All three batches go through the network as one, as in the code: batch norm sees them together.
* tau = .95 and lambda = 1, as there. The ratio of noisy to clean images is that of the configuration's batch
  sizes (there 7), and the optimiser is this project's SGD, with neither Nesterov nor a moving average of the
  weights that is evaluated in the student's place.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..core.metrics import correction_counts
from .base import Method, MethodParameters


class FixMatch(Method, name="fixmatch", label="FixMatch", sees_noise=False):
    """``confident`` in the log is the share of noisy images that the student is sure of; recovery is that of its
    predictions of all."""

    look = ("#332288", "s")

    class Parameters(MethodParameters):
        fixmatch_threshold: float = Field(0.95, ge=0, le=1, description="tau, the confidence of a pseudo-label")
        fixmatch_weight: float = Field(1.0, ge=0, le=100, description="lambda, of the loss without labels")

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        strong = self.batches.strong(batch, t)
        clean = self.batches.clean(t, self.config.clean_batch_size, weak=True)
        sizes = [len(clean.x), len(batch.x), len(strong)]
        labelled, weak, strong = self.logits(torch.cat([clean.x, batch.x, strong])).split(sizes)
        weak = weak.detach().softmax(dim=1)
        confidence, predicted = weak.max(dim=1)
        sure = (confidence >= self.config.fixmatch_threshold).to(weak.dtype)
        supervised = F.cross_entropy(labelled, clean.labels)
        unsupervised = (sure * F.cross_entropy(strong, predicted, reduction="none")).mean()
        loss = supervised + self.config.fixmatch_weight * unsupervised
        self.descend("student", [loss], t)
        return {
            "student_loss": loss.detach(),
            "unsupervised_loss": unsupervised.detach(),
            "confident": sure.mean(),
            "correction": correction_counts(weak, None, batch.given, batch.true),
        }
