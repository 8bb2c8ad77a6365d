"""Which self-supervised weights a run starts from, and whether they fit it."""

from __future__ import annotations

import functools
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..runtime.checkpoint import tensors_digest
from ..runtime.places import weights_root

# Feature extractors that this project pretrained itself, each with its card (a JSON file of the same name).
SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights"


def start_weights_file(
    dataset: str, model: str, named: str | None = None, folder: str | Path | None = None
) -> Path:
    """The file of self-supervised weights for this data set and model.

    The named one, else the one that comes with the package, else the one in ``folder``, where it may be yet to be
    pretrained (:func:`emlc_lib.experiments.pretraining.provide`); None takes
    :func:`emlc_lib.runtime.places.weights_root`.
    """
    if named:
        return Path(named)
    shipped = shipped_weights_file(dataset, model)
    return shipped if shipped.is_file() else Path(folder or weights_root()) / shipped.name


def shipped_weights_file(dataset: str, model: str) -> Path:
    """Where weights that come with the package are; not all do."""
    return SHIPPED_WEIGHTS / f"simclr-{dataset}-{model}.safetensors"


def are_awaited(dataset: str, model: str, named: str | None) -> bool:
    """Whether the weights are yet to be pretrained: none are named, shipped or below the data root."""
    return not named and not start_weights_file(dataset, model).is_file()


def weights_digest(file: Path) -> str:
    """SHA-256 of the tensors in a safetensors file; the order of its header varies from writing to writing."""
    status = file.stat()
    return _weights_digest(file, status.st_ino, status.st_mtime_ns, status.st_size)


# The names of a grid's runs ask for the same large file again and again.
@functools.lru_cache
def _weights_digest(file: Path, *version: int) -> str:
    with safe_open(file, framework="pt") as opened:
        return tensors_digest((name, opened.get_tensor(name)) for name in sorted(opened.keys()))


def check_start_weights(dataset: str, model: str, named: str | None) -> None:
    """Raises a ValueError if the file of self-supervised weights is damaged, of another model, or missing.

    Where none is named it may be missing, unless nothing can be pretrained here for this data set and model.
    """
    file = start_weights_file(dataset, model, named)
    if named and not file.is_file():
        raise ValueError(f"start_weights: {file} is not a file")
    if file.is_file():
        check_weights_file(file, dataset, model)
    elif dataset == "clothing1m" or model == "resnet50_imagenet":
        raise ValueError(f"start: there are no SimCLR weights of {model} for {dataset}; take imagenet or random")


def check_shipped_weights(dataset: str, model: str) -> None:
    """Raises a ValueError if no self-supervised weights of this model and data set come with the package."""
    file = shipped_weights_file(dataset, model)
    if not file.is_file():
        there = sorted(path.stem.removeprefix("simclr-") for path in SHIPPED_WEIGHTS.glob("*.safetensors"))
        raise ValueError(
            f"start: no SimCLR weights of {model} for {dataset} come with this package (there are: "
            f"{', '.join(there)}); make them with notebooks/00_pretrain_simclr.ipynb and name the file, or use "
            "start random"
        )
    check_weights_file(file, dataset, model)


def check_weights_file(file: Path, dataset: str, model: str) -> None:
    """Raises a ValueError if the file is damaged, or its weights are of another model or data set."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"start_weights: {file} is damaged or no safetensors file ({error})") from error
    for name, wanted in (("model", model), ("dataset", dataset)):
        if metadata.get(name) != wanted:
            raise ValueError(f"start_weights: {file} is for {name} {metadata.get(name)}, not {wanted}")
