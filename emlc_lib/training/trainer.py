"""The one training loop: steps, evaluation, checkpoints and resumption, for every method."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batches import Batches
from ..data.experiment_data import ExperimentData
from ..methods import METHODS
from ..methods.base import LOSSES, Method
from ..runtime.checkpoint import CheckpointWriter, read_own_checkpoint, restore
from ..runtime.cuda_graph import CHECKS, WARM_UP
from ..runtime.divergence import check_finite, smaller_rates, what_is_kept
from ..runtime.execution import at_own_precision, synchronise
from ..runtime.files import clear_temporaries
from ..runtime.loop import epochs
from ..runtime.parallel import average_statistics, from_first, own_share
from .config import Config
from .evaluation import EVALUATION_BATCH, best_epoch, evaluate, predict
from .log import epoch_means, joint, one_line, step_table
from .processes import check_processes
from .start import MakeFeatures, initial_networks

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Trained:
    """A finished training.

    Attributes:
        method: with its networks as they were after the last epoch, in evaluation mode.
        epochs: one row per epoch; see :func:`train`.
        steps: one row per step, the logged losses and, where labels are corrected, their recovery.
        best_student: the reported network's state dict at the best clean-set epoch.
        seconds: wall time of all sessions that worked on it.
    """

    method: Method
    epochs: pd.DataFrame
    steps: pd.DataFrame
    best_student: dict[str, Tensor]
    seconds: float

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) at which the student does best on the clean set."""
        return best_epoch(self.epochs)


@at_own_precision
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

    In a process group (:mod:`emlc_lib.runtime.parallel`) all processes call it; the first one writes.

    Args:
        config: everything the result depends on.
        data: from :func:`emlc_lib.data.prepare.prepare` with the same configuration.
        folder: where the checkpoint is kept, rewritten atomically after every epoch, while the next one
            begins; it is whole when this function ends. None keeps none.
        show: whether to show progress.
        on_epoch: called with each finished epoch's row; if it raises, that epoch's checkpoint is whole.
        patience: stop once the student's loss on the clean set has not fallen for so many epochs; None never
            does.
        features: makes the initial feature extractors instead of ``config.model``; see
            :func:`emlc_lib.training.start.initial_networks`.

    Raises:
        CheckpointError: the folder's checkpoint is damaged, of another configuration or number of processes.
        ConfigError: so many processes cannot train this configuration together.
        FloatingPointError: a loss, a gradient or a weight is not finite; the checkpoint of the last epoch before
            stays. See :func:`emlc_lib.runtime.divergence.check_finite`.
    """
    started = time.perf_counter()
    share = own_share()
    check_processes(config, share.world, local=1)
    show = show and share.rank == 0
    batches = Batches(config, data)
    checkpoint = folder / CHECKPOINT if folder else None
    if folder and share.rank == 0:
        clear_temporaries(folder)

    def read():
        if not checkpoint or not checkpoint.is_file():
            return None
        return read_own_checkpoint(checkpoint, config.identity, share.world)

    saved = from_first(read)
    method = _build(config, batches, warm=saved is None, show=show, features=features)
    rows: list[dict[str, float]] = []
    steps = pd.DataFrame()
    best: dict[str, Tensor] = {}
    seconds = 0.0
    if saved:
        tensors, metadata = saved
        restore(tensors, method.networks, method.optimisers)
        _compare_threads(config, metadata)
        rows, seconds = metadata["epochs"], metadata["seconds"]
        steps = pd.DataFrame(tensors["extra/steps"].numpy(), columns=metadata["step_columns"])
        best = {name[11:]: value for name, value in tensors.items() if name.startswith("extra/best/")}

    total = method.last_step(config.epochs)
    t = method.last_step(len(rows))
    if _stalled(rows, patience):  # a checkpoint of a training that had stopped
        total = t
    loop = epochs(
        method.step, range(t, total), desc=config.method, show=show,
        ends=lambda t: t + 1 == method.last_step(len(rows) + 1),
        check=lambda log, t: _check_finite(log, method, t, checkpoint, len(rows)),
    )  # fmt: skip
    method.train(True)
    with CheckpointWriter() as writer:
        for t, log, bar in loop:
            log = joint(log, share.world)
            average_statistics(method.networks.values())
            steps = pd.concat([steps, step_table(log, first=t + 1 - len(log))], ignore_index=True)
            row = {"epoch": len(rows) + 1} | epoch_means(log) | evaluate(method, data)
            clean_loss = {"student_clean_loss": torch.tensor(row["student_clean_loss"])}
            _check_finite([clean_loss], method, t, checkpoint, len(rows))
            rows.append(row)
            if best_epoch(pd.DataFrame(rows)) == len(rows):
                best = {k: v.detach().clone() for k, v in method.reported.state_dict().items()}
            if checkpoint and share.rank == 0:
                now = seconds + time.perf_counter() - started
                _write(writer, checkpoint, config, share.world, method, rows, steps, best, now)
            bar.set_postfix_str(one_line(row), refresh=False)
            if on_epoch:
                on_epoch(row)
            if _stalled(rows, patience):
                break
            method.train(True)
    method.train(False)
    seconds += time.perf_counter() - started
    return Trained(method, pd.DataFrame(rows), steps, best, seconds)


@at_own_precision
def estimate_seconds(config: Config, data: ExperimentData) -> float:
    """Roughly how long :func:`train` will take here, from a few steps on networks that are thrown away."""
    batches = Batches(config, data)
    method = _build(config, batches, warm=False, show=False)
    method.train(True)
    first = WARM_UP + CHECKS if getattr(config, "cuda_graph", False) else method.period
    for t in range(first):
        method.step(t)  # the first steps pay for allocation and kernel selection, and to capture and check a graph
    # Some methods change what they do in the course of training: look at several points of it, each a step after
    # what may be the beginning of an epoch, where some do more.
    total, pieces = method.last_step(config.epochs), -(-3 // method.period)
    steps = pieces * method.period
    synchronise(config.device)
    began = time.perf_counter()
    for piece in range(pieces):
        first = piece * total // pieces // method.period * method.period
        first = min(first + method.period, total - method.period)
        for t in range(first, first + method.period):
            method.step(t)
    synchronise(config.device)
    per_step = (time.perf_counter() - began) / steps
    began = time.perf_counter()
    method.train(False)
    predict(method.reported, data.test_images[:EVALUATION_BATCH], data)
    synchronise(config.device)
    per_image = (time.perf_counter() - began) / min(EVALUATION_BATCH, len(data.test_images))
    images = (len(data.test_images) + len(data.clean_labels)) * (1 if method.teacher is None else 2)
    warm = config.start_steps * per_step / 3
    return warm + method.last_step(config.epochs) * per_step + config.epochs * images * per_image


def _build(
    config: Config, batches: Batches, *, warm: bool, show: bool, features: MakeFeatures | None = None
) -> Method:
    cls = METHODS[config.method]
    # A resumed run's weights come from its checkpoint: no need to warm up again.
    initial = config if warm else config.model_copy(update={"start": "random", "start_steps": 0})
    student, teacher = initial_networks(initial, batches, teacher=cls.needs_teacher, show=show, features=features)
    return cls(config, batches, student, teacher)


def _compare_threads(config: Config, metadata: dict) -> None:
    before, now = metadata["threads"], torch.get_num_threads()
    if config.device == "cpu" and before != now:
        warnings.warn(
            f"the checkpoint was written with {before} threads and is resumed with {now}, which sum in another "
            f"order: the result differs by rounding from an undisturbed run's; OMP_NUM_THREADS={before} avoids it",
            stacklevel=4,
        )


def _stalled(rows: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the lowest loss on the clean set is ``patience`` epochs old."""
    losses = [row["student_clean_loss"] for row in rows]
    return patience is not None and bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def _check_finite(log, method: Method, last_step: int, checkpoint: Path | None, epochs: int) -> None:
    config = method.config
    losses = [{name: value for name, value in entry.items() if name.endswith(LOSSES)} for entry in log]
    rates = {name: getattr(config, name) for name in ("lr", method.second_rate) if name}
    check_finite(
        losses,
        method.networks,
        method.optimisers,
        last_step=last_step,
        kept=what_is_kept(checkpoint, epochs),
        cure=smaller_rates(rates, config.precision),
    )


def _write(writer: CheckpointWriter, path, config, world, method, rows, steps, best, seconds) -> None:
    extra = {"steps": torch.tensor(steps.to_numpy(np.float64))}
    extra |= {f"best/{name}": value for name, value in best.items()}
    metadata = {
        "config": config.identity,
        "processes": world,
        "threads": torch.get_num_threads(),
        "epochs": rows,
        "step_columns": list(steps.columns),
        "seconds": seconds,
    }
    writer.save(path, method.networks, method.optimisers, extra, metadata)
