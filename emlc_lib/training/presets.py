"""The presets, and :func:`make_config`, which completes them to a checked configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.noise_file import read_noise_file
from ..data.spec import DatasetSpec, spec_of
from ..methods import METHODS
from ..runtime.execution import bfloat16_is_fast, check_device, chosen_device
from ..runtime.files import as_path
from ..runtime.parameters import ConfigError, checked, did_you_mean, unknown_name
from ..runtime.schedules import lr_factor, steps_by
from .config import Config, OwnConfig, config_class


def learning_rates(config: Config, n_noisy: int) -> np.ndarray:
    """(T,) float64, the student's learning rate at each step of a whole run with ``n_noisy`` noisy images."""
    period = config.k if METHODS[config.method].looks_ahead else 1

    def last_step(epoch: int) -> int:
        return steps_by(epoch, n_noisy // config.batch_size, period)

    starts = (t // period * period for t in range(last_step(config.epochs)))
    return np.array([config.lr * lr_factor(config, t, last_step) for t in starts])


# paper is Table 4. The others are this project's own, sized for two CPU cores: learning rates that fall to zero,
# and on CIFAR the weights that this project pretrained by SimCLR. small is the paper's protocol, with all noisy
# images, on a network that learns much in little time. Where no weights are there, the first run pretrains them.
# What a data set needs in place of these values is in its spec.
PRESETS: dict[str, dict] = {
    "smoke": dict(
        model="small_cnn", start="random", n_clean=100, epochs=25, schedule="cosine", batch_size=64,
        clean_batch_size=32,
    ),
    "quick": dict(
        model="resnet_narrow", start="simclr", start_steps=200, start_lr=0.05, n_clean=1000, n_noisy=20_000,
        epochs=2, schedule="cosine", batch_size=128, clean_batch_size=64, lr=0.05,
    ),
    "small": dict(
        model="resnet_small", start="simclr", start_steps=200, start_lr=0.05, n_clean=1000, epochs=4,
        schedule="cosine", batch_size=128, clean_batch_size=64,
    ),
    "paper": dict(
        model="resnet34", start="simclr", n_clean=1000, epochs=15, batch_size=128, clean_batch_size=32,
    ),
}  # fmt: skip


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

    ``preset="auto"`` means ``paper`` where CUDA is there and the data set has it, else the data set's first:
    ``quick``, for digits ``smoke``. ``device="auto"`` means CUDA where there is one; ``device_here=False`` allows
    one that only the machine of the run has. On CUDA ``paper`` computes in TF32; ``small`` computes in bfloat16
    where the device has instructions for it. Nothing is trained here, not even SimCLR weights that are not there.
    ``n_noisy="all"`` takes every training image that is not clean, whatever the preset, and ``n_clean="all"`` the
    whole clean list of Clothing1M.

    Raises:
        ConfigError: any unknown name or value that is not allowed.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ConfigError(f"method: {method!r} is not one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    spec, cls = spec_of(dataset), config_class(Config, method)
    _refuse_others(changes, method, cls)
    device = chosen_device(device)
    if preset == "auto":
        preset = _auto_preset(spec, device)
    known = [name for name in PRESETS if name in spec.presets]
    if preset not in known:
        hint = did_you_mean(preset, known)
        raise ConfigError(f"preset: {preset!r} is not one of {', '.join(['auto', *known])} for {spec.name}{hint}")
    values = PRESETS[preset] | _precision(preset, str(device)) | spec.presets[preset]
    values = {name: value for name, value in values.items() if name in cls.model_fields}
    values |= METHODS[method].presets.get(preset, {})
    values |= {name: value for name, value in changes.items() if value is not None}
    values |= {name: None for name in ("n_clean", "n_noisy") if values.get(name) == "all"}
    values |= {name: str(value) for name, value in values.items() if isinstance(value, Path)}
    values |= _label_files(values, spec)
    config = checked(cls, preset=preset, device=device, dataset=dataset, **values)
    if device_here:
        usable_device(device)
    return config


def _precision(preset: str, device: str) -> dict[str, str]:
    """A preset's precision, where that depends on the device."""
    if preset == "small" and bfloat16_is_fast(device):
        return {"precision": "bfloat16"}
    return {"precision": "tf32"} if preset in ("small", "paper") and device.startswith("cuda") else {}


def _label_files(values: Mapping[str, Any], spec: DatasetSpec) -> dict[str, str]:
    """Absolute paths of files of labels, and what a noise file holds, which is read here, once."""
    names = [name for name in ("human_labels", "noise_file") if values.get(name)]
    paths = {name: as_path(values[name], name).absolute() for name in names}
    found = {name: str(path) for name, path in paths.items()}
    known = values.get("noise_sha256")
    if values.get("noise_type") != "file" or "file" not in spec.noise_types or "noise_file" not in paths:
        return found
    if known and not paths["noise_file"].is_file():  # a finished run can be read back without it
        return found
    found["noise_sha256"] = read_noise_file(paths["noise_file"]).sha256
    if known not in (None, found["noise_sha256"]):
        raise ConfigError(f"noise_sha256: {found['noise_file']} has another, {found['noise_sha256']}")
    return found


def own_config(*, method: str = "emlc", device: str = "auto", **values) -> Config:
    """The configuration of a training on a user's own images: these values, else the defaults.

    Args:
        method: EMLC or one that has its teacher.

    Raises:
        ConfigError: any unknown name or value that is not allowed.
    """
    cls = config_class(OwnConfig, method)
    _refuse_others(values, method, cls)
    config = checked(cls, method=method, device=chosen_device(device), **values)
    usable_device(device)
    return config


def usable_device(device: str) -> str:
    """The device, for ``auto`` the one that it means here; a ConfigError if it cannot be used here."""
    device = chosen_device(device)
    try:
        return check_device(device)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"device: {error} (got {device!r})") from None


def _refuse_others(values: Mapping[str, Any], method: str, cls: type[Config]) -> None:
    """Raises a ConfigError about the first value whose name is no parameter of this method's configuration."""
    for name in sorted(values):
        if name in cls.model_fields:
            continue
        owners = [other for other in METHODS if name in config_class(Config, other).model_fields]
        if owners and values[name] is None:
            continue
        if owners:
            raise ConfigError(f"{name}: is a parameter of method {' and '.join(owners)}, not of {method}")
        raise ConfigError(unknown_name(name, cls.model_fields))


def _auto_preset(spec: DatasetSpec, device: str) -> str:
    if "paper" in spec.presets and str(device).startswith("cuda"):
        return "paper"
    first, *others = spec.presets
    if first == "paper":
        raise ConfigError(
            f"preset: auto finds no GPU for {spec.name}; take paper, which needs one, or {' or '.join(others)}"
        )
    return first
