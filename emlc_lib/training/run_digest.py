"""What tells one run from another: the values that its configuration has and its defaults do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..methods import METHODS
from ..networks.weights import are_awaited, imagenet_digest, start_weights_file, weights_digest
from ..runtime.parameters import ConfigError

if TYPE_CHECKING:
    from .config import Config

# Raised when the meaning of stored values changes. Runs of schema 1, which counted defaults and the device, too,
# are still found (:func:`first_identity`, :func:`of_first_schema`).
SCHEMA = 2

# Where and how it is computed, not what: a run is read back whatever these are.
NOT_COUNTED = ("device", "cuda_graph")

# Parameters that schema 1 did not have, with what was computed then.
NEW = {"teacher_features": "own", "label_embedding": True, "leave_out_given": False}

# Parameters that are gone, with the value that stored runs may have: what is computed now.
GONE = {"channels_last": True, "meta_pass": "forward_mode"}


def digest_of(identity: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that differ whenever the identity does."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def identity(config: Config) -> dict[str, Any]:
    """What the result of a run depends on: the schema, and the values that differ from their defaults.

    So a parameter that is new renames no run that has its default. Of files, what they hold counts, and not where
    they lie. SimCLR weights that are yet to be pretrained hold nothing: with them the identity will be another.
    """
    fields = type(config).model_fields
    differing = {
        name: value
        for name, value in _looked_at(config).items()
        if name not in NOT_COUNTED and (fields[name].is_required() or value != fields[name].default)
    }
    return {"schema": SCHEMA, "method": config.method} | differing | _contents(config)


def first_identity(config: Config) -> dict[str, Any]:
    """The identity that the same run had in schema 1: every parameter that its method looks at."""
    values = {"share_primal": None, "channels_last": True} | _looked_at(config)
    if config.method in ("mlc", "mslc"):
        values["meta_pass"] = "forward_mode"
    new = {name for name, value in NEW.items() if values.get(name) == value} | {"cuda_graph"}
    return {name: value for name, value in values.items() if name not in new} | _contents(config)


def without_gone(values: Mapping[str, Any]) -> dict[str, Any]:
    """The stored configuration of a run without the parameters that are gone.

    Raises:
        ConfigError: one of them has a value that only an older version can compute with.
    """
    for name, value in GONE.items():
        if values.get(name, value) != value:
            raise ConfigError(f"{name}: {values[name]!r} is gone since the run was stored; only {value!r} is left")
    return {name: value for name, value in values.items() if name not in GONE}


def of_first_schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """The stored configuration of a run of schema 1, without the parameters of other methods, which it had,
    too."""
    others = {name for method in METHODS.values() for name in method.Parameters.model_fields}
    own = METHODS[values["method"]].Parameters.model_fields
    return {name: value for name, value in values.items() if name in own or name not in others}


def _contents(config: Config) -> dict[str, str | None]:
    """What the files hold that a run begins with."""
    contents: dict[str, str | None] = {}
    if config.human_labels is not None and Path(config.human_labels).is_file():
        contents["human_labels"] = hashlib.sha256(Path(config.human_labels).read_bytes()).hexdigest()
    if config.start == "simclr":
        source = config.dataset, config.model, config.start_weights
        contents["start_weights"] = None if are_awaited(*source) else weights_digest(start_weights_file(*source))
    elif config.start == "imagenet":
        contents["start_weights"] = imagenet_digest(config.start_weights)
    return contents


def _looked_at(config: Config) -> dict[str, Any]:
    """The values by name, without those that others switch off."""
    unused = _of_the_noise(config) if METHODS[config.method].sees_noise else set(NOISE)
    if config.schedule != "lr_step":
        unused |= {"lr_step_epoch", "lr_step_factor"}
    if config.spec.in_memory:
        unused.add("resized_copy")
    return {name: value for name, value in config.model_dump().items() if name not in unused}


def _of_the_noise(config: Config) -> set[str]:
    """Parameters of the noise that others switch off."""
    unused = set() if config.noise_type == "human" else {"human_labels", "human_key"}
    unused |= {"noise"} if config.noise_type in ("human", "real") else set()
    return unused if config.noise_type == "asymmetric" else unused | {"asymmetric_map"}
