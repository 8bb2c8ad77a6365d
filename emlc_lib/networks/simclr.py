"""Self-supervised pretraining by SimCLR (Chen et al., 2020): initial weights for student and teacher (Table 4)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.teacher import initialise
from ..data.augment import standardise
from ..data.datasets import DATASETS
from ..data.experiment_data import on_device
from ..data.spec import Constants, ViewRecipe
from ..runtime.checkpoint import CheckpointWriter, read_own_checkpoint, restore
from ..runtime.cuda_graph import CHECKS, WARM_UP, CapturedStep, CudaStream, state_of
from ..runtime.divergence import check_finite, smaller_rates, what_is_kept
from ..runtime.execution import (
    at_own_precision,
    autocast,
    matmul_precision,
    synchronise,
    to_device,
)
from ..runtime.files import clear_temporaries
from ..runtime.loop import epochs
from ..runtime.parameters import ConfigError
from ..runtime.randomness import Stream, torch_generator
from ..runtime.schedules import warmup_cosine
from .backbones import build_features
from .pretrain_config import PretrainConfig
from .views import Choices, chosen_view, view_choices

CHECKPOINT = "pretraining.safetensors"


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """NT-Xent, eq. 1 of Chen et al. (2020): each view must find its image's other view among all others.

    Args:
        projections: (2, n, d), two views of the same n images, of any length; only their directions count.
        temperature: tau.

    Returns:
        The mean over all 2n views, a scalar.
    """
    n = projections.shape[1]
    z = F.normalize(projections.flatten(0, 1), dim=1)
    with matmul_precision("float32"):  # TF32 would round similarities to three digits
        similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(2 * n, device=z.device).roll(n))


def projection_head(dim: int, hidden: int, out: int, *, norm: bool) -> nn.Module:
    """g of Chen et al.: one hidden layer, with batch norm if ``norm``; built on the meta device."""
    with torch.device("meta"):
        middle = [nn.BatchNorm1d(hidden)] if norm else []
        return nn.Sequential(nn.Linear(dim, hidden), *middle, nn.ReLU(), nn.Linear(hidden, out))


@dataclass
class Pretrained:
    """A finished pretraining.

    Attributes:
        features: the feature extractor, in evaluation mode; the projection head is thrown away, as usual.
        epochs: one row per epoch: ``epoch``, ``loss`` (mean NT-Xent), ``seconds`` (wall time, all sessions).
        source: ``trained`` here, or the name of the file that they were read from.
        card: of what was read.
    """

    features: nn.Module
    epochs: pd.DataFrame
    source: str = "trained"
    card: dict[str, Any] = field(default_factory=dict)


# On a CPU a whole batch may take minutes and more memory than there is, and time goes with the number of images.
ESTIMATE_BATCH = 32


@at_own_precision
def estimate_seconds(config: PretrainConfig, images: Tensor) -> float:
    """Roughly how long all of :func:`pretrain` takes here, from a few steps on networks that are thrown away.

    Args:
        images: as for :func:`pretrain`.
    """
    size = config.batch_size if config.device.startswith("cuda") else min(config.batch_size, ESTIMATE_BATCH)
    images = images.to(config.device)
    smaller = config.model_copy(update={"batch_size": size})
    step = _Steps(smaller, *_build(config, images.shape[1]), images, None, None)
    first = 1 if step.captured is None else WARM_UP + CHECKS  # they pay for allocation and kernel selection
    for t in range(first + 3):
        if t == first:
            synchronise(config.device)
            began = time.perf_counter()
        step(t, config.lr)
    synchronise(config.device)
    per_image = (time.perf_counter() - began) / (3 * size)
    return per_image * config.epochs * (len(images) // config.batch_size) * config.batch_size


@at_own_precision
def pretrain(
    config: PretrainConfig,
    images: Tensor,
    *,
    folder: Path | None = None,
    show: bool = True,
    constants: Constants | None = None,
    recipe: ViewRecipe | None = None,
    on_epoch: Callable[[nn.Module, dict[str, float]], None] | None = None,
) -> Pretrained:
    """Pretrains a feature extractor on images without labels, from the start or from ``folder``'s checkpoint.

    Args:
        config: everything the result depends on.
        images: (n, channels, h, w) uint8 training images.
        folder: where the checkpoint is kept, rewritten atomically after every epoch, and from where a begun
            pretraining is resumed, on a CPU to the same bits; None keeps none.
        show: whether to show progress.
        constants, recipe: mean and standard deviation of each channel, and the strength of the augmentations;
            None takes those of ``config.dataset``.
        on_epoch: called with the feature extractor and each finished epoch's row; it may look, not change; if it
            raises, that epoch's checkpoint is whole.

    Raises:
        ConfigError: batch_size is more than the number of images.
        CheckpointError: the folder's checkpoint is damaged or of another configuration.
        FloatingPointError: the loss or a weight is not finite; the checkpoint of the last epoch before stays.
    """
    if config.batch_size > len(images):
        raise ConfigError(f"batch_size: {config.batch_size} is more than the {len(images)} images")
    images = images.to(config.device)
    path = folder / CHECKPOINT if folder else None
    if folder:
        clear_temporaries(folder)
    networks, optimiser = _build(config, images.shape[1])
    rows: list[dict[str, float]] = []
    if path and path.is_file():
        tensors, metadata = read_own_checkpoint(path, config.identity)
        restore(tensors, networks, {"sgd": optimiser})
        rows = metadata["epochs"]
    before = rows[-1]["seconds"] if rows else 0.0
    began = time.perf_counter()
    per_epoch = len(images) // config.batch_size
    steps, rise = config.epochs * per_epoch, max(1, round(config.warmup_epochs * per_epoch))
    learn = _Steps(config, networks, optimiser, images, constants, recipe)

    def step(t: int) -> Tensor:
        return learn(t, config.lr * warmup_cosine(t, steps, rise))

    def check(losses: list[Tensor], t: int) -> None:
        recent = [{"NT-Xent": loss} for loss in losses]
        kept, cure = what_is_kept(path, len(rows)), smaller_rates({"lr": config.lr}, config.precision)
        check_finite(recent, networks, {"sgd": optimiser}, last_step=t, kept=kept, cure=cure)

    loop = epochs(
        step, range(len(rows) * per_epoch, steps), desc="SimCLR", show=show,
        ends=lambda t: (t + 1) % per_epoch == 0, check=check,
    )  # fmt: skip
    with CheckpointWriter() as writer:
        for _, losses, bar in loop:
            loss = torch.stack(losses).double().mean().item()
            seconds = before + time.perf_counter() - began
            rows.append({"epoch": len(rows) + 1, "loss": loss, "seconds": round(seconds, 1)})
            bar.set_postfix_str(f"epoch {len(rows)}: NT-Xent {loss:.3f}", refresh=False)
            if path:
                metadata = {"config": config.identity, "epochs": rows}
                writer.save(path, networks, {"sgd": optimiser}, {}, metadata)
            if on_epoch:
                on_epoch(networks["features"], rows[-1])
                networks["features"].train()
    return Pretrained(networks["features"].eval(), pd.DataFrame(rows))


def _build(config: PretrainConfig, channels: int):
    generator = torch_generator(config.seed, Stream.PRETRAIN_WEIGHTS)
    features, dim = build_features(config.model, channels, generator)
    hidden = config.projection_hidden or dim
    projection = projection_head(dim, hidden, config.projection_dim, norm=config.projection_norm)
    networks = {"features": features, "projection": initialise(projection, generator)}
    for network in networks.values():
        network.to(config.device, memory_format=torch.channels_last).train()
    parameters = [p for network in networks.values() for p in network.parameters()]
    options = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    # In a graph the rate is a tensor, which no other form of SGD reads without waiting for the device.
    fused = config.device.startswith("cuda") or None
    return networks, torch.optim.SGD(parameters, config.lr, **options, fused=fused)


class _Draw(NamedTuple):
    """What a step depends on beside networks and optimiser: images by number, the views' choices and the rate."""

    index: Tensor
    choices: Choices
    lr: float | Tensor


class _Learner:
    """What a step changes and what it does to it."""

    def __init__(self, config: PretrainConfig, networks, optimiser, images: Tensor, constants):
        self.config, self.networks, self.optimiser, self.images = config, networks, optimiser, images
        self.mean, self.std = on_device(constants or DATASETS[config.dataset].constants, images.device)

    def learn(self, draw: _Draw) -> dict[str, Tensor]:
        config, networks = self.config, self.networks
        # Both views in one batch, so that batch norm sees them together.
        batch = self.images[draw.index].repeat(2, 1, 1, 1)
        views = standardise(chosen_view(batch, draw.choices, config.view_size), self.mean, self.std)
        with autocast(config.precision, config.device):
            z = networks["projection"](networks["features"](views))
        loss = nt_xent(z.float().unflatten(0, (2, -1)), config.temperature)
        for group in self.optimiser.param_groups:
            group["lr"] = draw.lr
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}

    def state(self) -> list[list[Tensor]]:
        return state_of(self.networks, [self.optimiser])


class _Steps:
    """Takes step t at a learning rate and returns its loss; a small network's on CUDA is replayed as a graph."""

    def __init__(self, config: PretrainConfig, networks, optimiser, images: Tensor, constants, recipe):
        # The graph holds the learner, and nobody holds both: no cycle keeps their memory.
        self.learner = _Learner(config, networks, optimiser, images, constants)
        self.recipe = recipe or DATASETS[config.dataset].views
        self.per_epoch = len(images) // config.batch_size
        self.captured = None
        # Kernels of larger ones take longer than their launches, and the graph's memory would be as much again.
        if config.device.startswith("cuda") and config.model not in ("resnet34", "resnet50"):
            self.captured = CapturedStep(self.learner.learn, self.learner.state, CudaStream(config.device))

    def __call__(self, t: int, lr: float) -> Tensor:
        return (self.captured or self.learner.learn)(self._draw(t, lr))["loss"]

    def _draw(self, t: int, lr: float) -> _Draw:
        config, images = self.learner.config, self.learner.images
        first = t % self.per_epoch * config.batch_size
        index = _order(config.seed, len(images), t // self.per_epoch)[first : first + config.batch_size]
        generator = torch_generator(config.seed, Stream.PRETRAIN_AUGMENTATION, t)
        choices = view_choices(2 * config.batch_size, images.shape[1], self.recipe, generator)
        index, *choices = to_device(images.device, index, *choices)
        return _Draw(index, Choices(*choices), lr)


@lru_cache(maxsize=1)
def _order(seed: int, n: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=torch_generator(seed, Stream.PRETRAIN_ORDER, epoch))
