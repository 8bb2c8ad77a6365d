"""What tells one run from another: a digest of the parameters that its method looks at."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..networks.imagenet import imagenet_digest
from ..networks.start_weights import are_awaited, start_weights_file, weights_digest

# The methods that look k steps ahead.
K_METHODS = ("emlc", "mlc")


# Who looks at a parameter that not every method looks at, apart from those named after one method.
_USED_BY: dict[str, tuple[str, ...]] = {
    "k": K_METHODS,
    "meta_pass": ("mlc", "mslc"),
    **dict.fromkeys(["teacher_lr", "teacher_momentum", "teacher_pass", "corruption"], ("emlc",)),
    **dict.fromkeys(["meta_term", "meta_weights", "step_order", "step_mean"], ("emlc",)),
}


# Parameters of one competing method begin with its name.
_COMPETITORS = ("mlc", "mslc", "mwnet", "mlnt", "fasten")


def digest(values: dict[str, Any]) -> str:
    """Eight hexadecimal digits that differ whenever :func:`identity` does."""
    return hashlib.sha256(json.dumps(identity(values), sort_keys=True).encode()).hexdigest()[:8]


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the run looks at. Of files, what they hold counts, and not where they lie.

    SimCLR weights that are yet to be pretrained hold nothing: with them the identity will be another.

    Args:
        values: of a :class:`~emlc_lib.training.config.Config`, by name.
    """
    used = {name: value for name, value in values.items() if _used(name, values)}
    labels, start, weights = values["human_labels"], values["start"], values["start_weights"]
    if labels is not None and Path(labels).is_file():
        used["human_labels"] = hashlib.sha256(Path(labels).read_bytes()).hexdigest()
    if start == "simclr":
        source = values["dataset"], values["model"], weights
        used["start_weights"] = None if are_awaited(*source) else weights_digest(start_weights_file(*source))
    elif start == "imagenet":
        used["start_weights"] = imagenet_digest(weights)
    return used


def _used(name: str, values: dict[str, Any]) -> bool:
    """Whether the run looks at the parameter."""
    if name == "noise":
        return values["noise_type"] not in ("human", "real")
    if name == "asymmetric_map":
        return values["noise_type"] == "asymmetric"
    if name in ("lr_step_epoch", "lr_step_factor"):
        return values["schedule"] == "lr_step"
    if name == "resized_copy":
        return values["dataset"] == "clothing1m"
    if name == "cuda_graph":  # younger than finished runs, which keep their names
        return values.get(name, False)
    method = values["method"]
    owners = [other for other in _COMPETITORS if name.startswith(f"{other}_")]
    return method in (owners or _USED_BY.get(name, (method,)))
