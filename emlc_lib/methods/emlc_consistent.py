r"""An extension, not the paper's: EMLC whose teacher learns from the noisy images without their labels, too.

The teacher's objective (eq. 12) gets FixMatch's term for its own classifier (Sohn et al., NeurIPS 2020), on the
noisy batch of the step after which it is updated:

    lambda mean_i 1[max y^(weak_i) >= tau] CE(y^(strong_i), argmax y^(weak_i)),

the weak view being the one whose label it corrects, and the strong one with AutoAugment besides. The term does not
depend on the student's weights, so the meta-gradient and what Propositions 1-3 say of it stay as they are: the
gradient of the sum is the sum of the gradients.

Two options carry to the student what the teacher gained. Where the teacher is at least tau sure, its prediction
may take the place of the corrected label, whatever the gate says; and the student may learn the weak view's label
from the strong view, as FixMatch's network does. Either way q_alpha is a function of the teacher alone and the
student's step linear in it, so that the meta-gradient is exact as before, with J_w at the view that was learned.

The student that is reported may be a moving average of the one that trains (:func:`average_into`), which nothing
else ever looks at: both networks train as they would without it.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.meta_gradient import batch_statistics_only
from ..core.teacher import Classifier, TeacherOutput
from .emlc import EMLC, Draw


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """In place, ``decay average + (1 - decay) network``, running statistics included; counters are copied."""
    for a, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        a.lerp_(value, 1 - decay) if a.is_floating_point() else a.copy_(value)


class EMLCConsistent(EMLC, name="emlc_consistent", label="EMLC, consistent teacher", extension=True):
    """``confident`` in the log is the share of noisy images that the teacher is sure of."""

    look = ("#882255", "D")

    class Parameters(EMLC.Parameters):
        consistency_threshold: float = Field(0.95, ge=0, le=1, description="tau, the confidence of a pseudo-label")
        consistency_weight: float = Field(1.0, ge=0, le=100, description="lambda, of the loss without labels")
        sure_labels: bool = Field(
            False, description="where the teacher is tau sure, the student learns its prediction as it is, ungated"
        )
        student_view: Literal["weak", "strong"] = Field(
            "weak",
            description="the view that the student learns the corrected label from; strong has the data set's "
            "AutoAugment, and where it has none (digits) is another crop",
        )
        student_average: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="decay per step of a moving average of the student that is reported in its place; 0 is "
            "none: where the learning rates fall to zero the student ends as well without",
        )

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        if config.student_average:
            self.networks["average"] = copy.deepcopy(student).requires_grad_(False)

    @property
    def reported(self) -> Classifier:
        return self.networks.get("average", self.student)

    def _learn(self, draw: Draw) -> dict[str, Tensor]:
        log = super()._learn(draw)
        if self.config.student_average:
            average_into(self.reported, self.student, self.config.student_average)
        return log

    def _draw(self, t: int) -> Draw:
        draw = super()._draw(t)
        if draw.clean is None and self.config.student_view == "weak":
            return draw
        return draw._replace(strong=self.batches.strong(draw.noisy, t))

    def _seen(self, draw: Draw) -> Tensor:
        return draw.noisy.x if self.config.student_view == "weak" else draw.strong

    def _teach(self, x: Tensor, given: Tensor | Callable[[Tensor], Tensor]) -> TeacherOutput:
        output = super()._teach(x, given)
        if not self.config.sure_labels:
            return output
        predicted = output.logits.softmax(dim=1)
        sure = predicted.detach().amax(dim=1, keepdim=True) >= self.config.consistency_threshold
        return output._replace(soft_labels=torch.where(sure, predicted, output.soft_labels))

    def _objectives(self, draw: Draw, log: dict[str, Tensor]) -> Iterator[Tensor]:
        yield from super()._objectives(draw, log)
        confidence, predicted = self._predicted.softmax(dim=1).max(dim=1)
        sure = (confidence >= self.config.consistency_threshold).to(confidence.dtype)
        with self.context(), batch_statistics_only(self.teacher):  # running statistics are those of weak views
            logits = self.teacher.classifier.head(self._features_for_teacher(draw.strong))
        loss = (sure * F.cross_entropy(logits.to(sure.dtype), predicted, reduction="none")).mean()
        log |= {"consistency_loss": loss, "confident": sure.mean()}
        yield self.config.consistency_weight * loss
