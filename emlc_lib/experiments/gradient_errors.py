"""How far the k-step meta-gradients of the paper and of its released code are from the exact one, in training."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.meta_gradient import clean_gradient, exact_vectors, k_step_vectors, lookahead_weights, surrogate
from ..data.batches import Batches
from ..data.experiment_data import ExperimentData
from ..methods.emlc import EMLC, Draw
from ..runtime.execution import at_own_precision
from ..runtime.parameters import ConfigError
from ..runtime.progress import progress
from ..training.config import Config
from ..training.start import initial_networks


def gradient_vector(scalar: Tensor, model: nn.Module) -> Tensor:
    """The gradient of a scalar with respect to all parameters of a model, as one vector."""
    grads = torch.autograd.grad(scalar, list(model.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def gradient_errors_of(approximate: Tensor, exact: Tensor) -> dict[str, float]:
    """Cosine, relative error and ratio of lengths of two gradients, each one vector."""
    return {
        "relative_error": ((approximate - exact).norm() / exact.norm()).item(),
        "cosine": F.cosine_similarity(approximate, exact, dim=0).item(),
        "scale": (approximate.norm() / exact.norm()).item(),
    }


class _Observed(EMLC):
    """EMLC that compares the meta-gradients of some of its teacher's updates before it makes them."""

    every = 1

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.rows: list[dict] = []

    def step(self, t: int) -> dict[str, Tensor]:
        self._t = t
        return super().step(t)

    def _update_teacher(self, draw: Draw) -> dict[str, Tensor]:
        if (self._t + 1) // self.config.k % self.every == 0:
            self.rows += [{"step": self._t + 1, **row} for row in self._errors(draw)]
        return super()._update_teacher(draw)

    def _errors(self, draw: Draw) -> list[dict]:
        config = self.config
        steps = [step for step, _ in self._pending]
        g_w, _ = clean_gradient(self.student, draw.clean.x, draw.clean.labels)
        lr = config.lr * draw.factor
        physics = {"momentum": config.momentum, "weight_decay": config.weight_decay}
        exact = self._gradient(exact_vectors(self.student, steps, g_w, lr=lr, **physics))

        def approximate(**options):
            weights = lookahead_weights(config.k, lr=lr, **options)
            return k_step_vectors(self.student, steps, g_w, lr=lr, weights=weights)

        paper = approximate()
        kinds = {
            "paper": paper,
            "momentum-aware": approximate(**physics),
            "reversed": paper[::-1],
            "released": [v / config.k for v in paper[::-1]],
        }
        rows = []
        for kind, vectors in kinds.items():
            rows.append({"kind": kind, **gradient_errors_of(self._gradient(vectors), exact)})
        return rows

    def _gradient(self, vectors: list[Tensor]) -> Tensor:
        """The teacher's gradient of the meta term as one vector."""
        labels = [step.soft_labels for step, _ in self._pending]
        return gradient_vector(surrogate(vectors, labels), self.teacher).double()


# Of gradient_errors below each other, with the seed in front.
GRADIENT_COLUMNS = ("seed", "step", "kind", "relative_error", "cosine", "scale")


@at_own_precision
def gradient_errors(
    config: Config, data: ExperimentData, *, updates: int = 10, epochs: int | None = None, show: bool = True
) -> pd.DataFrame:
    """Trains EMLC and compares meta-gradients with the exact one at about ``updates`` of the teacher's updates.

    The exact gradient differentiates through all k steps, momentum and weight decay included. It is compared
    with Proposition 2's (``paper``), with the momentum-aware weights, and with what the released code computes:
    the steps' products and labels paired in opposite orders (``reversed``), and divided by k too (``released``).

    Args:
        config: of method emlc with k > 1, the meta term, and ``teacher_pass`` kept.
        updates: at about how many of the teacher's updates, evenly spread.
        epochs: stop after so many; None trains to the end.

    Returns:
        One row per update and kind: ``seed``, ``step`` (from 1), ``kind``, ``cosine``, ``relative_error``,
        ``scale`` (length over the exact one's).

    Raises:
        ConfigError: another method, k = 1, no meta term, or another teacher pass.
    """
    if config.method != "emlc" or config.k == 1 or not config.meta_term or config.teacher_pass != "kept":
        raise ConfigError("config: gradient_errors needs method emlc, k > 1, meta_term and teacher_pass kept")
    batches = Batches(config, data)
    student, teacher = initial_networks(config, batches, teacher=True, show=False)
    method = _Observed(config, batches, student, teacher)
    total = method.last_step(epochs or config.epochs)
    method.every = max(1, total // config.k // updates)
    for network in method.networks.values():
        network.train()
    for t in progress(range(total), total=total, desc="meta-gradients", show=show):
        method.step(t)
    return pd.DataFrame([{"seed": config.seed, **row} for row in method.rows])


def gradient_means(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`gradient_errors` by kind, in means over updates and seeds; ``degrees`` is the mean cosine's angle."""
    means = table.groupby("kind", sort=False)[["cosine", "relative_error", "scale"]].mean()
    means.insert(1, "degrees", np.rad2deg(np.arccos(means["cosine"].clip(-1, 1))))
    return means
