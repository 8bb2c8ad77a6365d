"""Which self-supervised weights a run starts from, and whether they fit it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# Feature extractors that this project pretrained itself, each with its card (a JSON file of the same name).
SHIPPED_WEIGHTS = Path(__file__).parent / "weights"


def start_weights_file(dataset: str, model: str, named: str | None) -> Path:
    """The file of self-supervised weights: the named one, else the one shipped for this data set and model."""
    return Path(named) if named else SHIPPED_WEIGHTS / f"simclr-{dataset}-{model}.safetensors"


def weights_digest(file: Path) -> str:
    """SHA-256 of the tensors in a safetensors file; the order of its header varies from writing to writing."""
    with safe_open(file, framework="pt") as opened:
        return tensors_digest((name, opened.get_tensor(name)) for name in sorted(opened.keys()))


def tensors_digest(tensors: Iterable[tuple[str, Tensor]], text: str = "") -> str:
    """SHA-256 of a text and of tensors: their names, types, shapes and bytes, in this order."""
    digest = hashlib.sha256(text.encode())
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_start_weights(dataset: str, model: str, named: str | None) -> None:
    """Raises a ValueError if the file of self-supervised weights is missing, damaged or of another model."""
    file = start_weights_file(dataset, model, named)
    if not file.is_file():
        shipped = ", ".join(
            sorted(path.stem.removeprefix("simclr-") for path in SHIPPED_WEIGHTS.glob("*.safetensors"))
        )
        raise ValueError(
            f"start_weights: {file} is not a file"
            if named
            else f"start: no SimCLR weights of {model} for {dataset} come with this package (there are: "
            f"{shipped}); make them with notebooks/00_pretrain_simclr.ipynb and pass start_weights, "
            "or use start random"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"start_weights: {file.name} is damaged or no safetensors file ({error})") from error
    for name, wanted in (("model", model), ("dataset", dataset)):
        if metadata.get(name) != wanted:
            raise ValueError(f"start_weights: {file.name} is for {name} {metadata.get(name)}, not {wanted}")
