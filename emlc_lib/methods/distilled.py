"""Distillation: what a network has learned from the clean set alone is the label of every noisy image.

In a first part of the epochs a predictor learns from the clean set, as ``clean_only`` does. Then its predictions
of all noisy images, without augmentation, are computed once, and the student, which begins where the predictor
began, learns them as soft labels on noisy batches. It is EMLC without correction; no noisy label is looked at, so
what EMLC gains over it, it gains from noisy labels. Both parts have the whole schedule of learning rates.
"""

from __future__ import annotations

import copy

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.metrics import correction_counts
from ..runtime.schedules import lr_factor
from .base import Method, MethodParameters
from .look_ahead import SampleMemory


class Distilled(Method, name="distilled", label="distilled clean labels", sees_noise=False):
    """Recovery is that of the predictions, the same for a whole training: the trivial corrector's."""

    look = ("#117733", "h")

    class Parameters(MethodParameters):
        distilled_share: float = Field(0.5, gt=0, lt=1, description="share of the epochs that train the predictor")

        @property
        def distilled_epochs(self) -> int:
            """Epochs of the predictor."""
            return round(self.distilled_share * self.epochs)

        @model_validator(mode="after")
        def _two_parts(self) -> Distilled.Parameters:
            if not 0 < self.distilled_epochs < self.epochs:
                raise ValueError(
                    f"distilled_share: {self.distilled_share:.3g} of {self.epochs} epochs leave none for one of "
                    "the two parts; give more epochs or another share"
                )
            return self

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        self.predictor = self.networks["predictor"] = copy.deepcopy(student)
        self.optimisers["predictor"] = self.sgd(self.predictor, config.lr)
        n, classes = len(batches.data.noisy_labels), student.head.out_features
        labels = torch.zeros(n, classes, device=config.device, dtype=student.head.weight.dtype)
        self.memory = self.networks["memory"] = SampleMemory(labels=labels)
        self._first = batches.last_step(config.distilled_epochs, 1)

    def step(self, t: int) -> dict[str, Tensor]:
        if t < self._first:
            size = min(self.config.batch_size, len(self.batches.data.clean_labels))
            clean = self.batches.clean(t, size)
            with self.context():
                logits = self.predictor(clean.x).to(clean.x.dtype)
            loss = F.cross_entropy(logits, clean.labels)
            self.descend("predictor", [loss], t)
            return {"predictor_loss": loss.detach()}
        if t == self._first:
            self.memory.labels.copy_(self.noisy_logits(self.predictor).softmax(dim=1))
        batch = self.batches.noisy(t)
        soft_labels = self.memory.labels[batch.index]
        loss = soft_cross_entropy(self.logits(batch.x), soft_labels)
        self.descend("student", [loss], t)
        counts = correction_counts(soft_labels, None, batch.given, batch.true)
        return {"student_loss": loss.detach(), "correction": counts}

    def schedule(self, t: int) -> float:
        """Of each part as if it were a whole training."""
        epochs = self.config.distilled_epochs
        if t < self._first:
            return lr_factor(self.config.model_copy(update={"epochs": epochs}), t, self.last_step)
        rest = self.config.model_copy(update={"epochs": self.config.epochs - epochs})
        return lr_factor(rest, t - self._first, lambda epoch: self.last_step(epoch + epochs) - self._first)
