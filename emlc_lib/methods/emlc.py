"""Enhanced Meta Label Correction: Algorithm 1 with the objective of eq. 12."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..losses import corrupt_half, gate_loss, soft_cross_entropy
from ..meta_gradient import (
    InnerStep,
    clean_gradient,
    exact_surrogate,
    k_step_surrogate,
    lookahead_weights,
    parameters_of,
)
from ..metrics import correction_counts
from ..randomness import Stream, torch_generator
from ..tangent import TapedForward
from .base import Method


class EMLC(Method):
    """The student learns from the teacher's soft labels; every k steps the teacher learns from the student.

    With k = 1 the meta-gradient is exact (Prop. 1). With k > 1 it is Prop. 2's, that with momentum-aware
    weights, or the exact one, as ``config.meta_weights`` says. Both networks run in training mode; the
    student's clean pass and the forward-mode pass leave running statistics alone.
    """

    needs_teacher = True

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        self.optimisers["teacher"] = self.sgd(teacher, config.teacher_lr)
        self._pending: list[InnerStep] = []
        needs_tape = config.meta_term and config.meta_weights != "exact"
        self._taped = TapedForward(student) if needs_tape and config.share_primal else None

    @property
    def period(self) -> int:
        return self.config.k

    def step(self, t: int) -> dict[str, Tensor]:
        batch = self.batches.noisy(t)
        corrected = self.teacher(batch.x, batch.given)
        soft_labels = corrected.soft_labels.detach()
        before = parameters_of(self.student) if self.config.meta_term else {}
        if self._taped is None:
            logits, tape = self.student(batch.x), None
        else:
            logits, tape = self._taped(batch.x)
        loss = soft_cross_entropy(logits, soft_labels)
        self.descend("student", loss, t)
        if self.config.meta_term:
            self._pending.append(InnerStep(before, batch.x, corrected.soft_labels, tape))
        log = {
            "student_loss": loss.detach(),
            "correction": correction_counts(soft_labels, corrected.gate.detach(), batch.given, batch.true),
        }
        if (t + 1) % self.config.k == 0:
            log |= self._update_teacher(t)
        return log

    def _update_teacher(self, t: int) -> dict[str, Tensor]:
        config = self.config
        clean = self.batches.clean(t // config.k, config.clean_batch_size)
        log = {}

        def corrupted(logits):
            generator = torch_generator(config.seed, Stream.CORRUPTION, t)
            return corrupt_half(clean.labels, logits, config.corruption, generator)

        output = self.teacher(clean.x, corrupted)
        objective = log["teacher_ce"] = F.cross_entropy(output.logits, clean.labels)
        if config.corruption != "none":
            log["teacher_bce"] = gate_loss(output.gate_logits, output.given == clean.labels)
            objective = objective + log["teacher_bce"]
        if config.meta_term:
            g_w, log["meta_loss"] = clean_gradient(self.student, clean.x, clean.labels)
            objective = objective + self._surrogate(g_w, config.lr * self.schedule(t))
        self._pending.clear()
        self.descend("teacher", objective, t)
        return {name: value.detach() for name, value in log.items()}

    def _surrogate(self, g_w: dict[str, Tensor], lr: float) -> Tensor:
        config = self.config
        if config.meta_weights == "exact":
            return exact_surrogate(
                self.student, self._pending, g_w,
                lr=lr, momentum=config.momentum, weight_decay=config.weight_decay,
            )  # fmt: skip
        aware = config.meta_weights == "momentum"
        weights = lookahead_weights(
            config.k,
            lr=lr,
            momentum=config.momentum if aware else 0.0,
            weight_decay=config.weight_decay if aware else 0.0,
        )
        return k_step_surrogate(self.student, self._pending, g_w, lr=lr, weights=weights, taped=self._taped)
