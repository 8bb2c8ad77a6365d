"""The one training loop: steps, evaluation, checkpoints and resumption, for every method."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import normalise
from .batches import Batches
from .checkpoint import clear_temporaries, read_own_checkpoint, restore, save_checkpoint
from .config import Config
from .data import ExperimentData
from .disk_images import DiskImages
from .execution import announce_compilation, matmul_precision
from .methods import METHODS, Method
from .metrics import correction_rates
from .processes import average_statistics, averaged, check_processes, from_first, interleaved, own_share
from .progress import progress
from .starts import MakeFeatures, initial_networks

CHECKPOINT = "checkpoint.safetensors"
EVALUATION_BATCH = 500


@dataclass
class Trained:
    """A finished training.

    Attributes:
        method: with its networks as they were after the last epoch, in evaluation mode.
        epochs: one row per epoch; see :func:`train`.
        steps: one row per step, the logged losses and, where labels are corrected, their recovery.
        best_student: the student's state dict at the best clean-set epoch.
        seconds: wall time of all sessions that worked on it.
    """

    method: Method
    epochs: pd.DataFrame
    steps: pd.DataFrame
    best_student: dict[str, Tensor]
    seconds: float

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) at which the student does best on the clean set; see :func:`best_epoch`."""
        return best_epoch(self.epochs)


def best_epoch(epochs: pd.DataFrame) -> int:
    """The paper's rule: the epoch of the highest accuracy on the clean set. Test labels play no part.

    Ties, which a student that fits the clean set produces, go to the later epoch.
    """
    clean = epochs["student_clean_accuracy"].to_numpy()
    return int(epochs["epoch"].to_numpy()[np.flatnonzero(clean == clean.max())[-1]])


def train(
    config: Config,
    data: ExperimentData,
    *,
    folder: Path | None = None,
    show: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    patience: int | None = None,
    features: MakeFeatures | None = None,
) -> Trained:
    """Trains one method, from the start or from the checkpoint in ``folder``.

    An epoch is one pass over the noisy set, extended to the next teacher update when k > 1, so that Algorithm
    1's ``t mod k`` runs on across epochs and nothing is pending when a checkpoint is written. Per epoch it
    logs accuracies of the student (clean set and test set) and of the teacher's own prediction (test set),
    the student's loss on the clean set, and means over the epoch's steps; label recovery and gate are
    measured on the batches as they are corrected for training.

    In a process group (:mod:`emlc_lib.processes`) all processes call it; the first one writes.

    Args:
        config: everything the result depends on.
        data: from :func:`emlc_lib.data.prepare` with the same configuration.
        folder: where the checkpoint is kept, rewritten atomically after every epoch; None keeps none.
        show: whether to show progress.
        on_epoch: called with each finished epoch's row.
        patience: stop once the student's loss on the clean set has not fallen for so many epochs; None never
            does.
        features: makes the initial feature extractors instead of ``config.model``; see
            :func:`emlc_lib.starts.initial_networks`.

    Raises:
        CheckpointError: the folder's checkpoint is damaged, of another configuration or number of processes.
        ConfigError: so many processes cannot train this configuration together.
        FloatingPointError: a loss is not finite; the checkpoint of the last epoch before stays.
    """
    started = time.perf_counter()
    share = own_share()
    check_processes(config, share.world, local=1)
    show = show and share.rank == 0
    batches = Batches(config, data)
    checkpoint = folder / CHECKPOINT if folder else None
    if folder and share.rank == 0:
        clear_temporaries(folder)
    known = (checkpoint, config.model_dump(), share.world)
    saved = from_first(lambda: read_own_checkpoint(*known) if checkpoint and checkpoint.is_file() else None)
    method = _build(config, batches, warm=saved is None, show=show, features=features)
    rows: list[dict[str, float]] = []
    steps = pd.DataFrame()
    best: dict[str, Tensor] = {}
    seconds = 0.0
    if saved:
        tensors, metadata = saved
        restore(tensors, method.networks, method.optimisers)
        rows, seconds = metadata["epochs"], metadata["seconds"]
        steps = pd.DataFrame(tensors["extra/steps"].numpy(), columns=metadata["step_columns"])
        best = {name[11:]: value for name, value in tensors.items() if name.startswith("extra/best/")}

    total = method.last_step(config.epochs)
    t = method.last_step(len(rows))
    if _stalled(rows, patience):  # a checkpoint of a training that had stopped
        total = t
    if config.compile and show and t < total:
        announce_compilation()
    bar = progress(range(t, total), total=total, initial=t, desc=config.method, show=show)
    log: list[dict[str, Tensor]] = []
    _train_mode(method, True)
    for t in bar:
        with matmul_precision(config.precision):
            log.append(method.step(t))
        if t + 1 < method.last_step(len(rows) + 1):
            continue
        log = _joint(log, share.world)
        average_statistics(method.networks.values())
        steps = pd.concat([steps, _table(log, first=t + 1 - len(log))], ignore_index=True)
        _check_finite(steps, len(log))
        row = {"epoch": len(rows) + 1} | _means(log) | evaluate(method, data)
        log = []
        rows.append(row)
        if best_epoch(pd.DataFrame(rows)) == len(rows):
            best = {k: v.detach().cpu().clone() for k, v in method.student.state_dict().items()}
        if checkpoint and share.rank == 0:
            now = seconds + time.perf_counter() - started
            _write(checkpoint, config, share.world, method, rows, steps, best, now)
        bar.set_postfix_str(_summary(row), refresh=False)
        if on_epoch:
            on_epoch(row)
        if _stalled(rows, patience):
            bar.close()
            break
        _train_mode(method, True)
    _train_mode(method, False)
    seconds += time.perf_counter() - started
    return Trained(method, pd.DataFrame(rows), steps, best, seconds)


def estimate_seconds(config: Config, data: ExperimentData) -> float:
    """Roughly how long :func:`train` will take here, from a few steps on networks that are thrown away."""
    batches = Batches(config, data)
    method = _build(config, batches, warm=False, show=False)
    _train_mode(method, True)
    for t in range(method.period):
        method.step(t)  # the first steps pay for allocation and kernel selection
    # Some methods change what they do in the course of training: look at several points of it.
    total, pieces = method.last_step(config.epochs), -(-3 // method.period)
    steps = pieces * method.period
    began = time.perf_counter()
    for piece in range(pieces):
        first = piece * total // pieces // method.period * method.period
        for t in range(first, first + method.period):
            method.step(t)
    if config.device.startswith("cuda"):
        torch.cuda.synchronize()
    per_step = (time.perf_counter() - began) / steps
    began = time.perf_counter()
    _train_mode(method, False)
    predict(method.student, data.test_images[:EVALUATION_BATCH], data)
    per_image = (time.perf_counter() - began) / min(EVALUATION_BATCH, len(data.test_images))
    images = (len(data.test_images) + len(data.clean_labels)) * (1 if method.teacher is None else 2)
    warm = config.start_steps * per_step / 3
    return warm + method.last_step(config.epochs) * per_step + config.epochs * images * per_image


def evaluate(method: Method, data: ExperimentData) -> dict[str, float]:
    """Accuracies in evaluation mode, without augmentation; leaves the networks in evaluation mode.

    The clean ones, by which the epoch is chosen, are on the clean set, with ``splits="released"`` on further clean
    labels.
    """
    _train_mode(method, False)
    clean = predict(method.student, data.validation_images, data)
    row = {
        "student_clean_accuracy": _accuracy(clean, data.validation_labels),
        "student_clean_loss": F.cross_entropy(clean, data.validation_labels).item(),
    }
    if not len(data.test_labels):
        return row
    test = predict(method.student, data.test_images, data)
    row["student_test_accuracy"] = _accuracy(test, data.test_labels)
    if method.teacher is not None:
        test = predict(method.teacher.classifier, data.test_images, data)
        row["teacher_test_accuracy"] = _accuracy(test, data.test_labels)
    return row


@torch.no_grad()
def predict(model: nn.Module, images: Tensor | DiskImages, data: ExperimentData) -> Tensor:
    """Logits (n, C) for uint8 images (n, channels, h, w), in the model's present mode.

    In a process group every process evaluates its share of the images, and all get all logits.
    """
    (rank, world), n = own_share(), len(images)
    parts = (images[i : i + EVALUATION_BATCH * world : world] for i in range(rank, n, EVALUATION_BATCH * world))
    return interleaved(torch.cat([model(normalise(part, data.mean, data.std)) for part in parts]), n)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def _build(
    config: Config, batches: Batches, *, warm: bool, show: bool, features: MakeFeatures | None = None
) -> Method:
    cls = METHODS[config.method]
    # A resumed run's weights come from its checkpoint: no need to warm up again.
    initial = config if warm else config.model_copy(update={"start": "random", "start_steps": 0})
    student, teacher = initial_networks(initial, batches, teacher=cls.needs_teacher, show=show, features=features)
    return cls(config, batches, student, teacher)


def _train_mode(method: Method, mode: bool) -> None:
    for network in method.networks.values():
        network.train(mode)


def _stalled(rows: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the lowest loss on the clean set is ``patience`` epochs old."""
    losses = [row["student_clean_loss"] for row in rows]
    return patience is not None and bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def _joint(log: list[dict[str, Tensor]], world: int) -> list[dict[str, Tensor]]:
    """The log of the whole batches: the mean of the processes' means, the sum of their counts."""
    if world == 1:
        return log
    means = averaged({(i, name): v.double() for i, entry in enumerate(log) for name, v in entry.items()})
    return [{n: means[i, n] * (world if n == "correction" else 1) for n in e} for i, e in enumerate(log)]


def _table(log: list[dict[str, Tensor]], first: int) -> pd.DataFrame:
    # One transfer per column instead of one per value.
    names = sorted({name for entry in log for name in entry} - {"correction"})
    nan = torch.tensor(float("nan"))
    columns: dict[str, Any] = {"step": np.arange(first, first + len(log), dtype=np.float64)}
    for name in names:
        present = [entry[name] for entry in log if name in entry]
        values = iter(torch.stack(present).double().cpu())
        columns[name] = [float(next(values) if name in entry else nan) for entry in log]
    if "correction" in log[0]:
        rates = [correction_rates(c) for c in torch.stack([entry["correction"] for entry in log]).cpu()]
        columns |= pd.DataFrame(rates).to_dict("list")
    return pd.DataFrame(columns)


def _means(log: list[dict[str, Tensor]]) -> dict[str, float]:
    names = sorted({name for entry in log for name in entry} - {"correction"})
    row = {n: torch.stack([e[n] for e in log if n in e]).double().mean().item() for n in names}
    if "correction" in log[0]:
        row |= correction_rates(torch.stack([entry["correction"] for entry in log]).sum(0))
    return row


def _check_finite(steps: pd.DataFrame, new: int) -> None:
    recent = steps.iloc[-new:]
    bad = recent[~np.isfinite(recent["student_loss"])]
    if len(bad):
        raise FloatingPointError(
            f"the student's loss is not finite from step {int(bad['step'].iloc[0])} on; "
            "a smaller lr or teacher_lr is the usual cure. The last epoch's checkpoint is kept."
        )


def _summary(row: dict[str, float]) -> str:
    if "student_test_accuracy" not in row:
        return f"epoch {row['epoch']}: clean set {row['student_clean_accuracy']:.1%}"
    text = f"epoch {row['epoch']}: test {row['student_test_accuracy']:.1%}"
    known = np.isfinite(row.get("recovery_all", np.nan))  # not where nobody knows the true labels
    return text + (f", recovered {row['recovery_all']:.1%}" if known else "")


def _write(path, config, world, method, rows, steps, best, seconds) -> None:
    extra = {"steps": torch.tensor(steps.to_numpy(np.float64))}
    extra |= {f"best/{name}": value for name, value in best.items()}
    metadata = {
        "config": config.model_dump(),
        "processes": world,
        "epochs": rows,
        "step_columns": list(steps.columns),
        "seconds": seconds,
    }
    save_checkpoint(path, method.networks, method.optimisers, extra, metadata)
