"""What tells one run from another: the values that its configuration has and its defaults do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.parameters import RATED
from ..methods import METHODS
from ..networks.weights import are_awaited, imagenet_digest, start_weights_file, weights_digest

if TYPE_CHECKING:
    from .config import Config

# Raised when the meaning of stored values changes.
SCHEMA = 2

# Where and how it is computed, not what: a run is read back whatever these are.
NOT_COUNTED = ("device", "cuda_graph")

# What a method that sees no noisy label does not see.
NOISE = ("noise_type", "noise", "asymmetric_map", "human_labels", "human_key")


def digest_of(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that differ whenever the identity does."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def identity_of(config: Config) -> dict[str, Any]:
    """What the result of a run depends on.

    It is the schema, and the values that differ from their defaults: a parameter that is new renames no run that
    has its default. Of files, what they hold counts, and not where they lie. What a method does not see does not
    count: one run of :attr:`~emlc_lib.methods.base.Method.sees_noise` False serves all noise. SimCLR weights that
    are yet to be pretrained hold nothing: with them the identity will be another.
    """
    unseen = switched_off(config) | _unseen(config)
    values = {name: value for name, value in config.model_dump().items() if name not in unseen}
    return _differing(config, values) | _contents(config, values)


def _differing(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    fields = type(config).model_fields
    counted = {
        name: value
        for name, value in values.items()
        if name not in NOT_COUNTED and (fields[name].is_required() or value != fields[name].default)
    }
    return {"schema": SCHEMA, "method": config.method} | counted


def _contents(config: Config, values: Mapping[str, Any]) -> dict[str, str | None]:
    """What the files hold that a run begins with."""
    contents: dict[str, str | None] = {}
    if values.get("human_labels") is not None and Path(config.human_labels).is_file():
        contents["human_labels"] = hashlib.sha256(Path(config.human_labels).read_bytes()).hexdigest()
    if config.start == "simclr":
        source = config.dataset, config.model, config.start_weights
        contents["start_weights"] = None if are_awaited(*source) else weights_digest(start_weights_file(*source))
    elif config.start == "imagenet":
        contents["start_weights"] = imagenet_digest(config.start_weights)
    return contents


def _unseen(config: Config) -> set[str]:
    """Parameters of the noise that nothing looks at."""
    if not METHODS[config.method].sees_noise and config.noise_type != "file":  # a file has its own clean set
        return {*NOISE}
    return {"human_labels", "human_key"} if config.noise_type != "human" else set()


def switched_off(config: Config) -> set[str]:
    """Parameters that the values of others switch off."""
    unused: set[str] = set()
    if config.noise_type not in RATED:
        unused.add("noise")
    if config.noise_type == "file":
        unused |= {"n_clean", "n_noisy", "splits", "noise_file"}  # noise_sha256 says what it holds
    if config.noise_type != "asymmetric":
        unused.add("asymmetric_map")
    if config.schedule != "lr_step":
        unused |= {"lr_step_epoch", "lr_step_factor"}
    if config.spec.in_memory:
        unused.add("resized_copy")
    return unused
