"""An estimator's parameters, checked and completed for the images at hand."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..runtime.files import writable_folder
from ..runtime.parameters import ConfigError, check_options
from ..training.config import Config
from ..training.presets import own_config
from .features import PREFIX, check_backbone
from .sets import Pair

# Fields of Config that images of one's own do not have.
OF_DATA_SETS = (
    "method", "dataset", "preset", "noise_type", "noise", "human_labels", "human_key", "noise_file",
    "noise_sha256", "asymmetric_map", "splits", "resized_copy", "start_weights", "n_noisy",
)  # fmt: skip

METHODS = ("emlc", "emlc_consistent")

# Where images of one's own need other values than the paper's data sets.
USUAL = {"schedule": "cosine", "start_lr": 0.1, "corruption": "random"}

# Enough steps for a small set, where the epochs are not given.
LEAST_EPOCHS, LEAST_STEPS = 10, 600


class Settings(NamedTuple):
    """Side of the images, model and first weights by name, and the configuration of the training."""

    size: int
    model: str
    start: str
    config: Config


def settle(params: dict[str, Any], sets: Pair) -> Settings:
    """The settings for these images; nothing is read or computed yet.

    Args:
        params: those of :class:`emlc_lib.estimator.estimator.EMLCClassifier`.
        sets: the noisy and the clean images.

    Raises:
        ConfigError: a parameter has a value that is not allowed.
    """
    size = _size(params["image_size"], str(params["model"]), sets)
    model, start = _backbone(str(params["model"]), str(params["start"]), size)
    return Settings(size, model, start, _config(params, model, len(sets.noisy), len(sets.clean)))


def _size(size: int | None, model: str, sets: Pair) -> int:
    if size is None:
        sides = {sets.noisy.side, sets.clean.side} - {None}
        return sides.pop() if len(sides) == 1 else 224 if model.startswith(PREFIX) else 32
    if not isinstance(size, int) or not 4 <= size <= 1024:
        raise ConfigError(f"image_size: must be None or an integer from 4 to 1024 (got {size!r})")
    return size


def _backbone(model: str, start: str, size: int) -> tuple[str, str]:
    if model == "auto":
        model = "small_cnn" if size <= 12 and start in ("auto", "random", "pretrain") else "resnet_narrow"
    if start == "auto":
        start = "published" if model.startswith(PREFIX) else "random"
    check_backbone(model, start)
    return model, start


def _config(params: dict[str, Any], model: str, n: int, m: int) -> Config:
    for name in ("patience", "pretrain_epochs"):
        value = params[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and 1 <= value <= 10_000) and (name, value) != ("patience", None):
            raise ConfigError(f"{name}: must be an integer from 1 to 10,000 (got {value!r})")
    for name in ("flip", "verbose"):
        if not isinstance(params[name], bool | np.bool_):
            raise ConfigError(f"{name}: must be True or False (got {params[name]!r})")
    if params["method"] not in METHODS:
        raise ConfigError(f"method: must be one of {', '.join(METHODS)} (got {params['method']!r})")
    if params["checkpoint"] is not None:
        writable_folder(params["checkpoint"], "checkpoint")
    same = ("method", "start_steps", "seed", "lr", "teacher_lr", "k", "device", "autoaugment")
    given = {
        "epochs": 1 if params["epochs"] is None else params["epochs"],
        "batch_size": min(64, n) if params["batch_size"] is None else params["batch_size"],
        "clean_batch_size": min(32, m) if params["clean_batch_size"] is None else params["clean_batch_size"],
    } | {name: params[name] for name in same}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ConfigError(f"{missing[0]}: must not be None")
    values = given | {"n_clean": m, "start": "random", "model": "own" if model.startswith(PREFIX) else model}
    if model.startswith(PREFIX) and "resnet" not in model:
        values["share_primal"] = False  # emlc_lib.runtime.tangent has no rules for their layers
    options = check_options(params["options"])
    fixed = sorted(options.keys() & {*values, *OF_DATA_SETS})
    if fixed:
        raise ConfigError(f"options: {fixed[0]} is set by the estimator, or says nothing of images of one's own")
    config = own_config(**values, **USUAL | options)
    if config.batch_size > n:
        raise ConfigError(f"batch_size: {config.batch_size} is more than the {n} noisy images")
    if params["epochs"] is None:
        steps = n // config.batch_size
        config = config.model_copy(update={"epochs": max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))})
    return config
