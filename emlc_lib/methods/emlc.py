"""Enhanced Meta Label Correction: Algorithm 1 with the objective of eq. 12."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.losses import corrupt_half, gate_loss, soft_cross_entropy
from ..core.meta_gradient import (
    InnerStep,
    batch_statistics_only,
    exact_vectors,
    lookahead_weights,
    parameters_of,
    surrogate,
)
from ..core.metrics import correction_counts
from ..core.teacher import TeacherOutput
from ..data.batches import CleanBatch, NoisyBatch
from ..runtime.cuda_graph import CapturedStep, CudaStream
from ..runtime.parallel import averaged, own_share
from ..runtime.randomness import Stream, torch_generator
from .look_ahead import LookAhead, LookAheadParameters


class Draw(NamedTuple):
    """What a step depends on beside the state of networks and optimisers.

    Attributes:
        factor: of the learning rates, from their schedule.
        noisy: the noisy batch.
        clean: the clean batch, if the teacher is updated at the end of the step.
        given: (m,) the clean batch's labels after random corruption; None where the teacher's logits decide.
        strong: a second view of the noisy batch, for extensions (:mod:`emlc_lib.methods.emlc_consistent`).
    """

    factor: float | Tensor
    noisy: NoisyBatch
    clean: CleanBatch | None = None
    given: Tensor | None = None
    strong: Tensor | None = None


class EMLC(LookAhead, name="emlc", label="EMLC", looks_ahead=True, always_with_k=True, parallel=True):
    """The student learns from the teacher's soft labels; every k steps the teacher learns from the student.

    With k = 1 the meta-gradient is exact (Prop. 1). With k > 1 it is Prop. 2's, that with momentum-aware
    weights, or the exact one, as ``config.meta_weights`` says. Both networks run in training mode; the
    student's clean pass and the forward-mode pass leave running statistics alone.
    """

    look = ("#0072B2", "o")

    class Parameters(LookAheadParameters):
        k: int = Field(1, ge=1, le=1000, description="student steps per teacher update (Algorithm 1)")
        teacher_lr: float = Field(0.02, gt=0, le=10, description="eta_alpha, the teacher's learning rate")
        corruption: Literal["adversarial", "random", "none"] = Field(
            "adversarial", description="how half of the clean batch is corrupted for the BCE term; none omits it"
        )
        meta_term: bool = Field(True, description="False drops the meta term of eq. 12, for ablations")
        meta_weights: Literal["paper", "momentum", "exact"] = Field(
            "paper",
            description="weights of the mixed Hessians: gamma^(t - tau) of Prop. 2, the momentum-aware impulse "
            "response, or no approximation at all (k extra Hessian-vector products)",
        )
        step_order: Literal["matched", "reversed"] = Field(
            "matched",
            description="for k > 1; reversed multiplies the last step's Jacobian-vector product with the first "
            "step's labels and so on, as the released code does since May 2023",
        )
        step_mean: bool = Field(
            False, description="for k > 1, divides the meta term by k as well, as the released code does"
        )
        teacher_momentum: float | None = Field(
            None, ge=0, lt=1, description="None takes the student's; the released code has none for the teacher"
        )
        teacher_pass: Literal["kept", "recomputed"] = Field(
            "kept",
            description="for k > 1, the teacher's graphs of the k noisy batches: kept until its update, or "
            "recomputed then, one at a time, in the memory of k = 1",
        )
        teacher_features: Literal["own", "student"] = Field(
            "own",
            description="own: the paper's independent extractor (3.6); student: the student's, which the teacher "
            "reads and does not train, as in MLC and FasTEN",
        )
        label_embedding: bool = Field(True, description="False hides the given label from the gate")
        leave_out_given: bool = Field(
            False, description="the teacher's prediction leaves out the given label, the masking of appendix D"
        )
        cuda_graph: bool = Field(
            False,
            description="emlc with k = 1 in one process: replay each step as one CUDA graph "
            "(emlc_lib/runtime/cuda_graph.py), once that was seen to give what the step gives; for "
            "small networks, whose launches take longer than they",
        )

        @model_validator(mode="after")
        def _can_be_captured(self) -> EMLC.Parameters:
            if self.cuda_graph and not (self.device.startswith("cuda") and self.k == 1):
                raise ValueError("cuda_graph: is for k = 1 on a CUDA device")
            return self

        @property
        def teacher_options(self) -> dict[str, bool]:
            return {"label_embedding": self.label_embedding, "leave_out_given": self.leave_out_given}

    presets = {"quick": {"teacher_lr": 0.05, "corruption": "random"}}

    needs_teacher = True
    second_rate = "teacher_lr"

    def __init__(self, config, batches, student, teacher):
        super().__init__(config, batches, student, teacher)
        trained = teacher
        if config.teacher_features == "student":
            teacher.classifier.features = student.features
            trained = nn.ModuleList([teacher.classifier.head, *list(teacher.children())[1:]])
        self.optimisers["teacher"] = self.sgd(trained, config.teacher_lr, config.teacher_momentum)
        self._pending: deque[tuple[InnerStep, NoisyBatch]] = deque(maxlen=config.k)
        if not config.meta_term or config.meta_weights == "exact":
            self._taped = None  # nothing is differentiated by it
        self._run = self._learn
        if config.cuda_graph:
            self._run = CapturedStep(self._learn, self.state, CudaStream(config.device))

    @property
    def period(self) -> int:
        return self.config.k

    def step(self, t: int) -> dict[str, Tensor]:
        return self._run(self._draw(t))

    def _draw(self, t: int) -> Draw:
        """All that step t is a function of, apart from the state of networks and optimisers."""
        config, noisy = self.config, self.batches.noisy(t)
        if (t + 1) % config.k:
            return Draw(self.schedule(t), noisy)
        clean, given = self.batches.clean(t // config.k, config.clean_batch_size), None
        if config.corruption == "random":  # which looks at the number of classes alone
            logits = clean.x.new_empty(len(clean.labels), self.student.head.out_features)
            generator = torch_generator(config.seed, Stream.CORRUPTION, t)
            given = corrupt_half(clean.labels, logits, config.corruption, generator, own_share())
        return Draw(self.schedule(t), noisy, clean, given)

    def _learn(self, draw: Draw) -> dict[str, Tensor]:
        batch, config = draw.noisy, self.config
        with torch.set_grad_enabled(config.meta_term and config.teacher_pass != "recomputed"):
            corrected = self._teach(batch.x, batch.given)
        soft_labels, self._predicted = corrected.soft_labels.detach(), corrected.logits.detach()
        before = parameters_of(self.student) if config.meta_term else {}
        images = self._seen(draw)
        logits, tape = self.recorded(images)
        loss = soft_cross_entropy(logits, soft_labels)
        self.descend_at(draw.factor, "student", [loss])
        if config.meta_term:
            self._pending.append((InnerStep(before, images, corrected.soft_labels, tape), batch))
        log = {
            "student_loss": loss.detach(),
            "correction": correction_counts(soft_labels, corrected.gate.detach(), batch.given, batch.true),
        }
        if draw.clean is not None:
            log |= self._update_teacher(draw)
        return log

    def _seen(self, draw: Draw) -> Tensor:
        """The images that the student learns the corrected labels of."""
        return draw.noisy.x

    def _teach(self, x: Tensor, given: Tensor | Callable[[Tensor], Tensor]) -> TeacherOutput:
        with self.context():
            return self.teacher.correct(self._features_for_teacher(x), given)

    def _features_for_teacher(self, x: Tensor) -> Tensor:
        if self.config.teacher_features == "own":
            return self.teacher.classifier.features(x)
        with torch.no_grad(), batch_statistics_only(self.student):  # whose training it must not change
            return self.student.features(x)

    def _update_teacher(self, draw: Draw) -> dict[str, Tensor]:
        log: dict[str, Tensor] = {}
        self.descend_at(draw.factor, "teacher", self._objectives(draw, log))
        self._pending.clear()
        return {name: value.detach() for name, value in log.items()}

    def _objectives(self, draw: Draw, log: dict[str, Tensor]) -> Iterator[Tensor]:
        """The terms of eq. 12, whose sum is minimised; ``log`` is filled with their values."""
        config, clean = self.config, draw.clean

        def corrupted(logits):
            return corrupt_half(clean.labels, logits, config.corruption, None, own_share())

        output = self._teach(clean.x, corrupted if draw.given is None else draw.given)
        supervised = log["teacher_ce"] = F.cross_entropy(output.logits, clean.labels)
        if config.corruption != "none":
            log["teacher_bce"] = gate_loss(output.gate_logits, output.given == clean.labels)
            supervised = supervised + log["teacher_bce"]
        if not config.meta_term:
            yield supervised
            return
        steps, batches = zip(*self._pending, strict=True)
        g_w, log["meta_loss"] = self.clean_gradient(clean)
        g_w = averaged(g_w)  # every v_i is along the gradient of the whole clean batch
        vectors = self._vectors(steps, g_w, config.lr * draw.factor)
        if config.step_order == "reversed":
            vectors = vectors[::-1]
        if config.step_mean:
            vectors = [v / config.k for v in vectors]
        if config.teacher_pass != "recomputed":
            # One backward pass for everything: the teacher's gradients are written once.
            yield supervised + surrogate(vectors, [step.soft_labels for step in steps])
            return
        yield supervised
        for v, batch in zip(vectors, batches, strict=True):
            with batch_statistics_only(self.teacher):  # these batches have been counted
                yield surrogate([v], [self._teach(batch.x, batch.given).soft_labels])

    def _vectors(self, steps: tuple[InnerStep, ...], g_w: dict[str, Tensor], lr: float | Tensor) -> list[Tensor]:
        config = self.config
        if config.meta_weights == "exact":
            sgd = {"lr": lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
            return exact_vectors(self.student, steps, g_w, **sgd, mean=averaged)
        aware = config.meta_weights == "momentum"
        weights = lookahead_weights(
            config.k,
            lr=lr,
            momentum=config.momentum if aware else 0.0,
            weight_decay=config.weight_decay if aware else 0.0,
        )
        return self.vectors(steps, g_w, lr, weights)
