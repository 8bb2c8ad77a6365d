"""Self-supervised pretraining by SimCLR (Chen et al., 2020): initial weights for student and teacher (Table 4)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.teacher import initialise
from ..data.augment import standardise
from ..data.datasets import NORMALISATION
from ..runtime.checkpoint import CheckpointWriter, clear_temporaries, read_own_checkpoint, restore
from ..runtime.divergence import CHECK_EVERY, check_finite, smaller_rates, what_is_kept
from ..runtime.execution import (
    Precision,
    at_own_precision,
    autocast,
    check_device,
    chosen_device,
    matmul_precision,
    synchronise,
    to_device,
)
from ..runtime.parameters import ConfigError, Parameters, checked, refuse_unknown
from ..runtime.progress import progress
from ..runtime.randomness import Stream, torch_generator
from ..runtime.schedules import warmup_cosine
from ..training.config import Dataset, Model
from .backbones import build_features
from .views import RECIPES, ViewRecipe, random_view

CHECKPOINT = "pretraining.safetensors"


class PretrainConfig(Parameters):
    """Everything a pretraining depends on. Numbers without a unit in their description are dimensionless."""

    dataset: Dataset
    model: Model
    seed: int = Field(0, ge=0, lt=2**31)
    device: str = "cpu"
    precision: Precision = Field("bfloat16", description="of the network's passes; the loss is in float32")
    epochs: int = Field(gt=0, le=10_000)
    batch_size: int = Field(512, gt=1, description="images per step; each gives two views")
    view_size: int = Field(gt=3, le=512, description="side of the views in pixels")
    lr: float = Field(gt=0, le=10, description="highest learning rate of SGD")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0, le=1)
    warmup_epochs: float = Field(ge=0, description="linear rise of the learning rate, before its cosine fall")
    temperature: float = Field(0.2, gt=0, le=10, description="tau of NT-Xent")
    projection_dim: int = Field(128, gt=0, description="size of the projection head's output")

    @field_validator("dataset")
    @classmethod
    def _in_memory(cls, dataset: str) -> str:
        if dataset == "clothing1m":
            raise ValueError("clothing1m starts from ImageNet (Table 4); nothing is pretrained on it here")
        return dataset

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        return check_device(device)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ whenever any parameter differs."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """A readable and unique name, used for the folder."""
        return f"simclr-{self.dataset}-{self.model}-seed{self.seed}-{self.digest}"


class OwnPretrainConfig(PretrainConfig):
    """The configuration of a pretraining on a user's images."""

    dataset: Literal["own"]


# By model: views of 24 pixels cost half of 32, and since crops magnify, their objects have about the size that
# they have in whole images of 32 (Touvron et al., 2019).
DEFAULTS: dict[str, dict] = {
    "small_cnn": dict(epochs=40, batch_size=256, view_size=8, lr=0.2, warmup_epochs=2),
    "resnet_narrow": dict(epochs=80, batch_size=256, view_size=24, lr=0.3, warmup_epochs=2),
    "resnet34": dict(epochs=200, view_size=32, lr=0.5, warmup_epochs=10),
    "resnet50": dict(epochs=200, view_size=32, lr=0.5, warmup_epochs=10),
}


def make_pretrain_config(
    *, dataset: str = "cifar10", model: str = "auto", device: str = "auto", **changes
) -> PretrainConfig:
    """A validated configuration: the model's defaults, overridden by ``changes`` that are not None.

    ``model="auto"`` means the small CNN for digits; otherwise the ResNet of the paper where CUDA is there
    (ResNet-34, for CIFAR-100 ResNet-50), else the narrow one.

    Raises:
        ConfigError: any unknown name or value that is not allowed.
    """
    refuse_unknown(sorted(changes), PretrainConfig.model_fields)
    device = chosen_device(device)
    if model == "auto":
        large = "resnet50" if dataset == "cifar100" else "resnet34"
        model = "small_cnn" if dataset == "digits" else large if device.startswith("cuda") else "resnet_narrow"
    values = dict(DEFAULTS.get(model, DEFAULTS["resnet_narrow"]))
    values |= {name: value for name, value in changes.items() if value is not None}
    cls = OwnPretrainConfig if dataset == "own" else PretrainConfig
    return checked(cls, dataset=dataset, model=model, device=device, **values)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent, eq. 1 of Chen et al. (2020): each view must find its image's other view among all 2n - 1.

    Args:
        first, second: (n, d) projections of two views of the same n images, of any length; only their directions
            count.
        temperature: tau.

    Returns:
        The mean over all 2n views, a scalar.
    """
    n = len(first)
    z = F.normalize(torch.cat([first, second]), dim=1)
    with matmul_precision("float32"):  # TF32 would round similarities to three digits
        similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    other = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, other)


def projection_head(dim: int, out: int) -> nn.Module:
    """g of Chen et al.: one hidden layer as wide as the embedding; built on the meta device."""
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))


@dataclass
class Pretrained:
    """A finished pretraining.

    Attributes:
        features: the feature extractor, in evaluation mode; the projection head is thrown away, as usual.
        epochs: one row per epoch: ``epoch``, ``loss`` (mean NT-Xent), ``seconds`` (wall time, all sessions).
        source: ``trained`` here, or the name of the file that came with the package.
    """

    features: nn.Module
    epochs: pd.DataFrame
    source: str = "trained"


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
    parts = _build(config, images.shape[1])
    augmentation = _augmentation(config, images.device)
    per_epoch = len(images) // size
    smaller = config.model_copy(update={"batch_size": size})
    for t in range(4):
        if t == 1:  # the first pays for allocation and kernel selection
            synchronise(config.device)
            began = time.perf_counter()
        _step(smaller, *parts, images, augmentation, t, per_epoch)
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
    constants: tuple[Sequence[float], Sequence[float]] | None = None,
    recipe: ViewRecipe | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Pretrained:
    """Pretrains a feature extractor on images without labels, from the start or from ``folder``'s checkpoint.

    Args:
        config: everything the result depends on.
        images: (n, channels, h, w) uint8 training images.
        folder: where the checkpoint is kept, rewritten atomically after every epoch, and from where a begun
            pretraining is resumed to the same bits; None keeps none.
        show: whether to show progress.
        constants, recipe: mean and standard deviation of each channel, and the strength of the augmentations;
            None takes those of ``config.dataset``.
        on_epoch: called with each finished epoch's row; if it raises, that epoch's checkpoint is whole.

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
        tensors, metadata = read_own_checkpoint(path, config.model_dump())
        restore(tensors, networks, {"sgd": optimiser})
        rows = metadata["epochs"]
    before = rows[-1]["seconds"] if rows else 0.0
    began = time.perf_counter()
    per_epoch = len(images) // config.batch_size
    steps, rise = config.epochs * per_epoch, max(1, round(config.warmup_epochs * per_epoch))
    augmentation = _augmentation(config, images.device, constants, recipe)
    first = len(rows) * per_epoch
    losses: list[Tensor] = []
    bar = progress(range(first, steps), total=steps, initial=first, desc="SimCLR", show=show)
    with CheckpointWriter() as writer:
        for t in bar:
            for group in optimiser.param_groups:
                group["lr"] = config.lr * warmup_cosine(t, steps, rise)
            losses.append(_step(config, networks, optimiser, images, augmentation, t, per_epoch))
            epoch_ends = (t + 1) % per_epoch == 0
            if epoch_ends or len(losses) % CHECK_EVERY == 0:
                recent = [{"NT-Xent": loss} for loss in losses[-CHECK_EVERY:]]
                kept, cure = what_is_kept(path, len(rows)), smaller_rates({"lr": config.lr}, config.precision)
                check_finite(recent, networks, {"sgd": optimiser}, last_step=t, kept=kept, cure=cure)
            if not epoch_ends:
                continue
            loss = torch.stack(losses).double().mean().item()
            losses = []
            seconds = before + time.perf_counter() - began
            rows.append({"epoch": len(rows) + 1, "loss": loss, "seconds": round(seconds, 1)})
            bar.set_postfix_str(f"epoch {len(rows)}: NT-Xent {loss:.3f}", refresh=False)
            if path:
                metadata = {"config": config.model_dump(), "epochs": rows}
                writer.save(path, networks, {"sgd": optimiser}, {}, metadata)
            if on_epoch:
                on_epoch(rows[-1])
    return Pretrained(networks["features"].eval(), pd.DataFrame(rows))


def _build(config: PretrainConfig, channels: int):
    generator = torch_generator(config.seed, Stream.PRETRAIN_WEIGHTS)
    features, dim = build_features(config.model, channels, generator)
    networks = {
        "features": features,
        "projection": initialise(projection_head(dim, config.projection_dim), generator),
    }
    for network in networks.values():
        network.to(config.device, memory_format=torch.channels_last).train()
    parameters = [p for network in networks.values() for p in network.parameters()]
    optimiser = torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return networks, optimiser


def _augmentation(config, device, constants=None, recipe=None) -> tuple[Tensor, Tensor, ViewRecipe]:
    """Mean and standard deviation to standardise by, and the strength of the augmentations."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in constants or NORMALISATION[config.dataset])
    return mean, std, recipe or RECIPES[config.dataset]


def _step(config, networks, optimiser, images, augmentation, t: int, per_epoch: int) -> Tensor:
    mean, std, recipe = augmentation
    order = torch.randperm(
        len(images), generator=torch_generator(config.seed, Stream.PRETRAIN_ORDER, t // per_epoch)
    )
    first = t % per_epoch * config.batch_size
    (index,) = to_device(images.device, order[first : first + config.batch_size])
    # Both views in one batch, so that batch norm sees them together.
    batch = images[index].repeat(2, 1, 1, 1)
    generator = torch_generator(config.seed, Stream.PRETRAIN_AUGMENTATION, t)
    views = standardise(random_view(batch, recipe, config.view_size, generator), mean, std)
    with autocast(config.precision, config.device):
        z = networks["projection"](networks["features"](views))
    loss = nt_xent(*z.float().chunk(2), config.temperature)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()
