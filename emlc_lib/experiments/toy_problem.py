"""How far Proposition 2 is from the exact k-step meta-gradient, measured on a small problem in float64."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.losses import soft_cross_entropy
from ..core.meta_gradient import (
    InnerStep,
    Params,
    clean_gradient,
    exact_surrogate,
    k_step_surrogate,
    lookahead_weights,
    parameters_of,
)
from ..core.noise import symmetric_noise
from ..core.teacher import Classifier, Teacher, build_teacher, initialise
from ..data.datasets import load_dataset
from ..networks.backbones import build_classifier
from ..runtime.randomness import Stream, numpy_generator, torch_generator
from .gradient_errors import gradient_errors_of, gradient_vector

BATCH = 64


class ToyProblem(NamedTuple):
    """A student and a teacher in float64, and digits with 50 % symmetric noise to train them on.

    Attributes:
        student, teacher: in training mode.
        x: (n, 64) or (n, 1, 8, 8) images in [0, 1].
        given, true: (n,) int64 labels.
    """

    student: Classifier
    teacher: Teacher
    x: Tensor
    given: Tensor
    true: Tensor


def digits_problem(seed: int, *, model: str = "mlp", hidden: int = 32, gate_hidden: int = 128) -> ToyProblem:
    """A small problem for numerical checks.

    Args:
        model: ``mlp`` (64 - hidden - 10, ReLU) or ``small_cnn`` (convolutions with batch norm).
        hidden: the MLP's hidden units. gate_hidden: those of the teacher's gate.
    """
    images = load_dataset("digits")
    x = images.train_images.double() / 255
    rng = numpy_generator(seed, Stream.NOISE)
    given = symmetric_noise(images.train_labels, 10, 0.5, rng).noisy

    def classifier(stream: Stream) -> Classifier:
        generator = torch_generator(seed, stream)
        if model != "mlp":
            return build_classifier(model, 10, 1, generator)
        with torch.device("meta"):
            net = Classifier(nn.Sequential(nn.Linear(64, hidden), nn.ReLU()), hidden, 10)
        return initialise(net, generator)

    student = classifier(Stream.STUDENT_WEIGHTS)
    generator = torch_generator(seed, Stream.TEACHER_WEIGHTS, 1)
    teacher = build_teacher(classifier(Stream.TEACHER_WEIGHTS), generator, hidden=gate_hidden)
    return ToyProblem(
        student.double().train(),
        teacher.double().train(),
        x.flatten(1) if model == "mlp" else x,
        torch.from_numpy(given),
        torch.from_numpy(images.train_labels),
    )


def inner_steps(
    student: nn.Module, teacher: nn.Module, optimiser: torch.optim.Optimizer, batches: Sequence
) -> list[InnerStep]:
    """Trains the student on the teacher's soft labels, one step per (x, given) batch, and remembers the steps."""
    steps = []
    for x, given in batches:
        soft_labels = teacher(x, given).soft_labels
        steps.append(InnerStep(parameters_of(student), x, soft_labels))
        optimiser.zero_grad(set_to_none=True)
        soft_cross_entropy(student(x), soft_labels.detach()).backward()
        optimiser.step()
    return steps


def compare_weights(
    *,
    ks: Sequence[int],
    lrs: Sequence[float],
    momenta: Sequence[float],
    seeds: Sequence[int],
    curvatures: Sequence[float] = (1.0,),
    warm: int = 40,
) -> pd.DataFrame:
    """Errors of k-step weights against the exact meta-gradient, after ``warm`` ordinary training steps.

    For every combination the student is first trained on corrected labels with the same lr and momentum (and
    the teacher on clean labels), so that momentum is in its stride; then k steps are taken and remembered.
    ``curvatures`` are the c in H_ww = c I that the weights assume; the paper's is 1.

    Returns:
        One row per combination, ``curvature`` and kind of ``weights`` (``paper``, ``momentum-aware``):
        ``relative_error`` |approximate - exact| / |exact|, ``cosine``, and ``scale`` |approximate| / |exact|.
    """
    rows = []
    for seed in seeds:
        for lr in lrs:
            for momentum in momenta:
                for k in ks:
                    setting = {"seed": seed, "lr": lr, "momentum": momentum, "k": k}
                    taken = take_steps(**setting, warm=warm)
                    for c in curvatures:
                        for kind, weights in kinds_of_weights(k, lr, momentum, c).items():
                            errors = gradient_errors_of(taken.approximate(lr, weights), taken.exact)
                            rows.append(setting | {"weights": kind, "curvature": c} | errors)
    return pd.DataFrame(rows)


def kinds_of_weights(k: int, lr: float, momentum: float, curvature: float = 1.0) -> dict[str, list[float]]:
    """The weights of k steps, oldest first: Proposition 2's with H_ww = c I, and the momentum-aware ones."""
    return {
        kind: lookahead_weights(k, lr=lr, momentum=mu, curvature=curvature)
        for kind, mu in (("paper", 0.0), ("momentum-aware", momentum))
    }


class Taken(NamedTuple):
    """k steps that were taken, and the exact meta-gradient after them.

    Attributes:
        student, teacher: after the steps. steps: the last k.
        g_w: the gradient of the clean loss. exact: the meta-gradient, one vector.
    """

    student: Classifier
    teacher: Teacher
    steps: list[InnerStep]
    g_w: Params
    exact: Tensor

    def approximate(self, lr: float, weights: Sequence[float]) -> Tensor:
        """The k-step meta-gradient with these weights of the steps, one vector."""
        return gradient_vector(
            k_step_surrogate(self.student, self.steps, self.g_w, lr=lr, weights=weights), self.teacher
        )


def take_steps(seed: int, lr: float, momentum: float, k: int, warm: int = 40) -> Taken:
    """Trains a student on digits for ``warm`` steps, and the teacher on clean labels; then takes k more steps."""
    student, teacher, x, given, true = digits_problem(seed)
    optimiser = torch.optim.SGD(student.parameters(), lr, momentum=momentum)
    teacher_optimiser = torch.optim.SGD(teacher.parameters(), 0.1)
    order = torch.randperm(len(x), generator=torch_generator(seed, Stream.NOISY_ORDER))
    batches = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]

    def batch(t: int) -> Tensor:
        return batches[t % len(batches)]

    for t in range(warm):
        i = batch(t)
        inner_steps(student, teacher, optimiser, [(x[i], given[i])])
        teacher_optimiser.zero_grad()
        F.cross_entropy(teacher(x[i], given[i]).logits, true[i]).backward()
        teacher_optimiser.step()
    steps = inner_steps(
        student, teacher, optimiser, [(x[batch(t)], given[batch(t)]) for t in range(warm, warm + k)]
    )
    i = batch(warm + k)
    g_w, _ = clean_gradient(student, x[i], true[i])
    exact = gradient_vector(exact_surrogate(student, steps, g_w, lr=lr, momentum=momentum), teacher)
    return Taken(student, teacher, steps, g_w, exact)
