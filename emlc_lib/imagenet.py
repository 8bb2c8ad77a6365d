"""Supervised ImageNet weights, the start of the Clothing1M experiment (Table 4)."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from .disk_images import DataUnavailable
from .models import load_strictly

# The paper says ImageNet; these are the weights in its released code.
PUBLISHED = ResNet50_Weights.IMAGENET1K_V2
MODEL = "resnet50_imagenet"


def imagenet_digest(named: str | None) -> str:
    """The first eight hexadecimal digits of the weight file's SHA-256, which torchvision puts into its name."""
    if named is None:
        return Path(PUBLISHED.url).stem.rpartition("-")[2]
    with open(named, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def check_imagenet_start(model: str, named: str | None) -> None:
    """Raises a ValueError if the model has no ImageNet weights, or the named file of them is not there."""
    if model != MODEL:
        raise ValueError(f"start: imagenet weights are for model {MODEL} only, not for {model}")
    if named is not None and not Path(named).is_file():
        raise ValueError(f"start_weights: {named} is not a file")


def load_imagenet(features: nn.Module, named: str | None = None) -> None:
    """Loads ImageNet weights into a ResNet-50's feature extractor, strictly, in place; the classifier is left out.

    Args:
        features: of ``resnet50_imagenet``.
        named: a file of torchvision's ResNet-50 weights; None takes :data:`PUBLISHED`, from torch's cache or
            downloaded.

    Raises:
        DataUnavailable: the weights are not in the cache and cannot be downloaded.
        ValueError: the file is no weight file, or of another model.
    """
    weights = _downloaded() if named is None else _read(Path(named))
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    load_strictly(features, weights, source=Path(named or PUBLISHED.url).name)


def _downloaded() -> dict[str, Tensor]:
    try:
        return dict(PUBLISHED.get_state_dict(progress=False, check_hash=True, map_location="cpu"))
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(
            f"start: torchvision's ImageNet weights could not be downloaded ({error}). Fetch "
            f"{Path(PUBLISHED.url).name} on another machine and pass its path as start_weights."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"start_weights: {path.name} is damaged or no weight file ({error})") from error
    if not isinstance(weights, dict):
        raise ValueError(f"start_weights: {path.name} holds no state dict")
    return weights
