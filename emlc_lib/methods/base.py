"""The interface that every training method has."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..core.teacher import Classifier, Teacher
from ..data.augment import normalise
from ..data.batches import Batches
from ..data.parameters import DataParameters
from ..runtime.cuda_graph import state_of
from ..runtime.execution import Precision, autocast, matmul_precision
from ..runtime.parallel import average_gradients
from ..runtime.randomness import torch_generator
from ..runtime.schedules import lr_factor

# How names of logged losses end. Other numbers may be NaN where they are not defined: a mean over none.
LOSSES = ("_loss", "_ce", "_bce")

PREDICTION_BATCH = 500


class MethodParameters(DataParameters):
    """What every method looks at. A method's own are fields of its class ``Parameters``, a subclass of this."""

    epochs: int = Field(gt=0, le=10_000)
    lr: float = Field(0.02, gt=0, le=10, description="eta_w, the student's learning rate")
    schedule: Literal["none", "cosine", "lr_step"] = Field(
        "none",
        description="none keeps both learning rates, lr_step lowers them once (both Table 4); cosine lets them "
        "fall to zero",
    )
    lr_step_epoch: int = Field(1, ge=1, description="lr_step: epochs before both learning rates are lowered")
    lr_step_factor: float = Field(0.1, gt=0, lt=1, description="lr_step: what they are multiplied by")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    precision: Precision = Field(
        "float32",
        description="of all passes, forward mode included (emlc_lib/runtime/tangent.py says how); weights, batch "
        "statistics, losses and probabilities are in float32; preset small takes bfloat16 where the device has "
        "instructions for it, paper tf32 on CUDA",
    )

    @property
    def teacher_options(self) -> dict[str, bool]:
        """How the method's :class:`Teacher` differs from the paper's."""
        return {}

    @model_validator(mode="after")
    def _can_be_computed(self) -> MethodParameters:
        if self.precision == "tf32" and not self.device.startswith("cuda"):
            raise ValueError("precision: tf32 needs a CUDA device")
        return self


METHODS: dict[str, type[Method]] = {}


class Method(ABC):
    """A way of training a student; the trainer does everything else.

    A subclass that is given a name is a method that users can choose: ``class MLC(Method, name="mlc",
    label="MLC")``.

    A method is constructed with networks that have their initial weights and are on the run's device, and
    :meth:`step` is called with t = 0, 1, 2, ... All of its state must be in the networks and optimisers that
    it registers, whenever ``(t + 1)`` is a multiple of :attr:`period`: that is when runs are checkpointed.

    Attributes:
        name, label: what parameters and what figures call it.
        looks_ahead: whether it has a parameter k, the student's steps per update of what teaches it.
        always_with_k: whether figures say k = 1, too.
        look: its colour and marker in figures.
        sees_noise: whether it looks at the noisy set's labels at all.
        extension: whether it is this project's own, in no table of the paper.
        parallel: whether several processes can share its batches (:mod:`emlc_lib.runtime.parallel`).
        stream: the number of its random stream (:meth:`generator`), made from its name unless given.
        Parameters: all that it looks at.
        presets: by preset, where it needs other values.
        needs_teacher: whether a :class:`Teacher` is built for this method.
        second_rate: the parameter that is the learning rate of what trains beside the student.
        networks: by name, with at least ``student``.
        optimisers: by name.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    looks_ahead: ClassVar[bool] = False
    always_with_k: ClassVar[bool] = False
    look: ClassVar[tuple[str, str]] = ("#CC79A7", "x")
    sees_noise: ClassVar[bool] = True
    extension: ClassVar[bool] = False
    parallel: ClassVar[bool] = False
    stream: ClassVar[int]
    Parameters: ClassVar[type[MethodParameters]] = MethodParameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_teacher = False
    second_rate: str | None = None

    def __init_subclass__(cls, *, name: str | None = None, label: str = "", **capabilities: bool | int):
        super().__init_subclass__()
        if name:
            cls.name, cls.label, cls.stream = name, label or name, zlib.crc32(name.encode())
        for capability, value in capabilities.items():
            setattr(cls, capability, value)
        if name:
            METHODS[name] = cls

    def __init__(self, config: MethodParameters, batches: Batches, student: Classifier, teacher: Teacher | None):
        self.config, self.batches = config, batches
        self.student, self.teacher = student, teacher
        self.networks: dict[str, nn.Module] = {"student": student}
        if teacher is not None:
            self.networks["teacher"] = teacher
        self.optimisers: dict[str, torch.optim.Optimizer] = {"student": self.sgd(student, config.lr)}

    @property
    def reported(self) -> Classifier:
        """The network that is evaluated and stored: the student, unless a method has a better one."""
        return self.student

    def train(self, mode: bool) -> None:
        """Puts all networks into training or evaluation mode."""
        for network in self.networks.values():
            network.train(mode)

    def state(self) -> list[list[Tensor]]:
        """All tensors that steps change in place, by kind: :func:`emlc_lib.runtime.cuda_graph.state_of`."""
        return state_of(self.networks, self.optimisers.values())

    @property
    def period(self) -> int:
        """Steps after which no state is pending."""
        return 1

    def last_step(self, epoch: int) -> int:
        """The number of steps taken by the end of an epoch (counted from 1): a multiple of the period."""
        return self.batches.last_step(epoch, self.period)

    def schedule(self, t: int) -> float:
        """The factor of the learning rates at step t; constant between teacher updates, as Prop. 2 has it."""
        return lr_factor(self.config, t // self.period * self.period, self.last_step)

    def sgd(self, network: nn.Module, lr: float, momentum: float | None = None) -> torch.optim.SGD:
        """SGD with the momentum, unless another one is given, and weight decay of the configuration (Table 4)."""
        group = {"params": list(network.parameters()), "initial_lr": lr}
        momentum = self.config.momentum if momentum is None else momentum
        # In a graph the rate is a tensor, which no other form of it reads without waiting for the device.
        fused = getattr(self.config, "cuda_graph", False) or None
        return torch.optim.SGD([group], lr, momentum=momentum, weight_decay=self.config.weight_decay, fused=fused)

    def descend(self, name: str, losses: Iterable[Tensor], t: int) -> None:
        """Step t of the named optimiser, down the gradient of the sum of ``losses``, at the scheduled rate."""
        self.descend_at(self.schedule(t), name, losses)

    def descend_at(self, factor: float | Tensor, name: str, losses: Iterable[Tensor]) -> None:
        """A step of the named optimiser, down the gradient of the sum of ``losses``, at ``factor`` of its rate.

        Each loss is differentiated before the next is asked for, so that a generator needs the memory of one.
        Where several processes train together, the gradient is the mean of theirs, reduced once, at the end.
        """
        optimiser = self._at(factor, name)
        optimiser.zero_grad(set_to_none=True)
        for loss in losses:
            loss.backward()
        average_gradients(p for group in optimiser.param_groups for p in group["params"])
        optimiser.step()

    def apply(self, name: str, gradients: Iterable[Tensor], t: int) -> None:
        """Step t of the named optimiser with the given gradients, one per parameter, at the scheduled rate."""
        optimiser = self._at(self.schedule(t), name)
        params = [p for group in optimiser.param_groups for p in group["params"]]
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient.detach()
        optimiser.step()

    def _at(self, factor: float | Tensor, name: str) -> torch.optim.Optimizer:
        optimiser = self.optimisers[name]
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return optimiser

    def logits(self, x: Tensor) -> Tensor:
        """The student's logits (n, C) in float32, its passes in the configured precision."""
        return self.embed(x)[1]

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The student's embeddings (n, d) and logits (n, C) in float32, its passes in the configured precision."""
        with self.context():
            features = self.student.features(x)
            return features.to(x.dtype), self.student.head(features).to(x.dtype)

    @torch.no_grad()
    @matmul_precision("float32")
    def noisy_logits(self, network: nn.Module) -> Tensor:
        """A network's logits (N, C) of all noisy images, in evaluation mode, without augmentation, in float32."""
        data, network = self.batches.data, network.eval()
        n, parts = len(data.noisy_labels), []
        for first in range(0, n, PREDICTION_BATCH):
            images = data.noisy_images[first : first + PREDICTION_BATCH]
            parts.append(network(normalise(images, data.mean, data.std)))
        network.train()
        return torch.cat(parts)

    def context(self) -> AbstractContextManager:
        """In which networks compute in the configured precision."""
        return autocast(self.config.precision, self.config.device)

    def generator(self, index: int = 0) -> torch.Generator:
        """A CPU generator of the method's own, for one index: a step, or 0 for initial weights."""
        return torch_generator(self.config.seed, self.stream, index)

    @abstractmethod
    def step(self, t: int) -> dict[str, Tensor]:
        """Trains on batch t; networks are in training mode.

        Returns:
            Detached tensors to log: scalars by name, a loss by one that ends as :data:`LOSSES` says, and, under
            ``correction``, what :func:`emlc_lib.core.metrics.correction_counts` returns. No entry may force a
            device synchronisation.
        """
