"""The presets, and :func:`make_config`, which completes them to a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..methods import METHODS
from ..runtime.execution import check_device, chosen_device
from ..runtime.parameters import ConfigError, checked, did_you_mean, unknown_name
from ..runtime.schedules import lr_factor, steps_by
from .config import CLOTHING1M_PRESETS, Config, Preset, config_class


def learning_rates(config: Config, n_noisy: int) -> np.ndarray:
    """(T,) float64, the student's learning rate at each step of a whole run with ``n_noisy`` noisy images."""
    period = config.k if METHODS[config.method].looks_ahead else 1

    def last_step(epoch: int) -> int:
        return steps_by(epoch, n_noisy // config.batch_size, period)

    starts = (t // period * period for t in range(last_step(config.epochs)))
    return np.array([config.lr * lr_factor(config, t, last_step) for t in starts])


# paper is Table 4. smoke and quick are this project's own, sized for two CPU cores: learning rates that fall to
# zero, and on CIFAR-10 the weights that this project pretrained by SimCLR. Where none are there for paper, its
# first run pretrains them.
PRESETS: dict[str, dict] = {
    "smoke": dict(
        model="small_cnn", start="random", n_clean=100, epochs=25, schedule="cosine", batch_size=64,
        clean_batch_size=32,
    ),
    "quick": dict(
        model="resnet_narrow", start="simclr", start_steps=200, start_lr=0.05, n_clean=1000, n_noisy=20_000,
        epochs=2, schedule="cosine", batch_size=128, clean_batch_size=64, lr=0.05,
    ),
    "paper": dict(
        model="resnet34", start="simclr", n_clean=1000, epochs=15, batch_size=128, clean_batch_size=32,
    ),
}  # fmt: skip

# Where a data set needs other values; for Clothing1M Table 4's again.
_OF_DATASETS: dict[tuple[str, str], dict] = {
    ("paper", "cifar100"): dict(model="resnet50"),
    ("paper", "clothing1m"): dict(
        noise_type="real", model="resnet50_imagenet", start="imagenet", n_clean=None, epochs=3, batch_size=1024,
        clean_batch_size=1024, lr=0.1, teacher_lr=0.1, schedule="lr_step",
    ),
    ("smoke", "clothing1m"): dict(
        noise_type="real", n_clean=None, epochs=2, batch_size=16, clean_batch_size=8, schedule="lr_step"
    ),
}  # fmt: skip

# In place of SimCLR where no weights come with the package: a supervised start on the clean set.
WARM_START = dict(start="random", start_steps=1000, start_lr=0.1)


def make_config(
    *,
    method: str = "emlc",
    dataset: str = "cifar10",
    preset: str = "auto",
    device: str = "auto",
    device_here: bool = True,
    **changes,
) -> Config:
    """A validated configuration: the preset's values, overridden by ``changes`` that are not None.

    ``preset="auto"`` means ``paper`` where CUDA is there, else ``quick``; for the data sets that the paper
    does not use it means ``smoke`` (digits) and ``quick`` (Fashion-MNIST). ``device="auto"`` means CUDA
    where there is one; ``device_here=False`` allows one that only the machine of the run has. On CUDA ``paper``
    computes in TF32. Nothing is trained here, not even SimCLR weights that are not there.
    ``n_noisy="all"`` takes every training image that is not clean, whatever the preset, and
    ``n_clean="all"`` the whole clean list of Clothing1M, which has the presets ``paper`` and ``smoke`` only.

    Raises:
        ConfigError: any unknown name or value that is not allowed.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ConfigError(f"method: {method!r} is not one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    cls = config_class(method, dataset == "own")
    _refuse_others(changes, method, cls)
    device = chosen_device(device)
    if preset == "auto":
        preset = _auto_preset(dataset, device)
    if not isinstance(preset, str) or preset not in PRESETS:
        known = ["auto", *get_args(Preset)]
        raise ConfigError(f"preset: {preset!r} is not one of {', '.join(known)}{did_you_mean(preset, known)}")
    values = dict(PRESETS[preset])
    values |= _OF_DATASETS.get((preset, str(dataset)), {})
    if preset == "quick" and dataset == "clothing1m":
        values["noise_type"] = "real"  # so that the message is about the preset
    if preset == "quick" and dataset != "cifar10":
        values |= WARM_START
    if preset == "paper" and str(device).startswith("cuda"):
        values["precision"] = "tf32"
    values = {name: value for name, value in values.items() if name in cls.model_fields}
    values |= METHODS[method].presets.get(preset, {})
    values |= {name: value for name, value in changes.items() if value is not None}
    values |= {name: None for name in ("n_clean", "n_noisy") if values.get(name) == "all"}
    if isinstance(values.get("human_labels"), Path):
        values["human_labels"] = str(values["human_labels"])
    config = checked(cls, preset=preset, device=device, dataset=dataset, **values)
    if device_here:
        try:
            check_device(device)
        except ValueError as error:
            raise ConfigError(f"device: {error} (got {device!r})") from None
    return config


def _refuse_others(values: Mapping[str, Any], method: str, cls: type[Config]) -> None:
    """Raises a ConfigError about the first value whose name is no parameter of this method's configuration."""
    for name in sorted(values):
        if name in cls.model_fields:
            continue
        owners = [other for other in METHODS if name in config_class(other).model_fields]
        if owners and values[name] is None:
            continue
        if owners:
            raise ConfigError(f"{name}: is a parameter of method {' and '.join(owners)}, not of {method}")
        raise ConfigError(unknown_name(name, cls.model_fields))


def _auto_preset(dataset: str, device: str) -> str:
    if dataset == "digits":
        return "smoke"
    if dataset == "fashion_mnist":
        return "quick"
    if str(device).startswith("cuda"):
        return "paper"
    if dataset == "clothing1m":
        raise ConfigError(f"preset: auto finds no GPU for clothing1m; {CLOTHING1M_PRESETS}")
    return "quick"
