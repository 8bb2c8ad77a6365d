"""Supervised ImageNet weights, the start of the Clothing1M experiment (Table 4)."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from ..runtime.checkpoint import load_strictly
from ..runtime.parameters import DataUnavailable

# The paper says ImageNet; these are the weights in its released code.
PUBLISHED = ResNet50_Weights.IMAGENET1K_V2

MODEL = "resnet50_imagenet"

# torchvision's files are pickles: these are known by their SHA-256, whose beginning is part of the name.
KNOWN = tuple(Path(weights.url).name for weights in ResNet50_Weights)


def imagenet_digest(named: str | None) -> str:
    """The first eight hexadecimal digits of the weight file's SHA-256, which torchvision puts into its name."""
    if named is None:
        return Path(PUBLISHED.url).stem.rpartition("-")[2]
    with open(named, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def check_imagenet_start(model: str, named: str | None) -> None:
    """Raises a ValueError if the model has no ImageNet weights, or the named file of them is none to be trusted.

    Safetensors hold nothing but numbers. Another file is a pickle, and must be one of torchvision's own.
    """
    if model != MODEL:
        raise ValueError(f"start: imagenet weights are for model {MODEL} only, not for {model}")
    if named is not None and not Path(named).is_file():
        raise ValueError(f"start_weights: {named} is not a file")
    if named is not None and not _is_safetensors(named):
        digest = imagenet_digest(named)
        if not any(name.endswith(f"-{digest}.pth") for name in KNOWN):
            raise ValueError(
                f"start_weights: {Path(named).name} must be a .safetensors file or torchvision's own "
                f"{' or '.join(KNOWN)} (its SHA-256 begins with {digest})"
            )


def load_imagenet(features: nn.Module, named: str | None = None) -> None:
    """Loads ImageNet weights into a ResNet-50's feature extractor, strictly, in place; the classifier is left out.

    Args:
        features: of ``resnet50_imagenet``.
        named: a file of ResNet-50 weights that :func:`check_imagenet_start` accepts; None takes :data:`PUBLISHED`,
            from torch's cache or downloaded.

    Raises:
        DataUnavailable: the weights are not in the cache and cannot be downloaded.
        ValueError: the file is not to be trusted, damaged or of another model.
    """
    weights = _downloaded() if named is None else _read(named)
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    load_strictly(features, weights, source=Path(named or PUBLISHED.url).name)


def _downloaded() -> dict[str, Tensor]:
    try:
        # Of a pickle nothing but tensors is read.
        weights = PUBLISHED.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        return dict(weights)
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(
            f"start: torchvision's ImageNet weights could not be downloaded ({error}). Fetch "
            f"{Path(PUBLISHED.url).name} on another machine and pass its path as start_weights."
        ) from error


def _read(named: str) -> dict[str, Tensor]:
    check_imagenet_start(MODEL, named)
    try:
        if _is_safetensors(named):
            return load_file(named)
        return torch.load(named, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"start_weights: {Path(named).name} is damaged or no weight file ({reason})") from error


def _is_safetensors(named: str) -> bool:
    return Path(named).suffix == ".safetensors"
