"""The files of weights that networks start from: self-supervised ones of this project, and torchvision's.

Which file it is, whether it may be trusted and fits, what it holds, and reading it.
"""

import functools
import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, WeightsEnum

from ..data.datasets import DATASETS
from ..runtime.checkpoint import load_strictly, tensors_digest
from ..runtime.parameters import ConfigError, DataUnavailable
from ..runtime.places import weights_root

# Feature extractors that this project pretrained itself, each with its card (a JSON file of the same name).
SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights"

IMAGENET_MODEL = "resnet50_imagenet"

# The paper says ImageNet; these are the weights in its released code.
PUBLISHED = ResNet50_Weights.IMAGENET1K_V2

# torchvision's files are pickles: these are known by their SHA-256, whose beginning is part of the name.
KNOWN = tuple(Path(weights.url).name for weights in ResNet50_Weights)


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
    return shipped if shipped.is_file() else weights_root(folder) / shipped.name


def shipped_weights_file(dataset: str, model: str) -> Path:
    """Where weights that come with the package are; not all do."""
    return SHIPPED_WEIGHTS / f"simclr-{dataset}-{model}.safetensors"


def are_awaited(dataset: str, model: str, named: str | None) -> bool:
    """Whether the weights are yet to be pretrained: none are named, shipped or below the data root."""
    return not named and not start_weights_file(dataset, model).is_file()


def check_start_weights(dataset: str, model: str, named: str | None) -> None:
    """Raises a ValueError if the file of self-supervised weights is damaged, of another model, or missing.

    Where none is named it may be missing, unless nothing can be pretrained here for this data set and model.
    """
    file = start_weights_file(dataset, model, named)
    if named and not file.is_file():
        raise ConfigError(f"start_weights: {file} is not a file")
    if file.is_file():
        check_weights_file(file, dataset, model)
    elif DATASETS[dataset].views is None or model == IMAGENET_MODEL:
        raise ConfigError(f"start: there are no SimCLR weights of {model} for {dataset}; take imagenet or random")


def check_weights_file(file: Path, dataset: str | None, model: str) -> None:
    """Raises a ValueError if the file is damaged, or its weights are of another model or data set."""
    try:
        metadata = weights_metadata(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"start_weights: {file} is damaged or no safetensors file ({error})") from error
    for name, wanted in (("model", model), ("dataset", dataset)):
        if wanted is not None and metadata.get(name) != wanted:
            raise ConfigError(f"start_weights: {file} is for {name} {metadata.get(name)}, not {wanted}")


def weights_metadata(file: Path) -> dict[str, str]:
    """What a file of self-supervised weights says of itself: ``model``, ``dataset`` and ``config``."""
    with safe_open(file, framework="pt") as opened:
        return opened.metadata() or {}


def weights_digest(file: Path) -> str:
    """SHA-256 of the tensors in a safetensors file; the order of its header varies from writing to writing."""
    status = file.stat()
    return _weights_digest(file, status.st_ino, status.st_mtime_ns, status.st_size)


# The names of a grid's runs ask for the same large file again and again.
@functools.lru_cache
def _weights_digest(file: Path, *version: int) -> str:
    with safe_open(file, framework="pt") as opened:
        return tensors_digest((name, opened.get_tensor(name)) for name in sorted(opened.keys()))


def published(weights: WeightsEnum, show: bool = False) -> dict[str, Tensor]:
    """The state dict of torchvision's published weights, from torch's cache or downloaded.

    Raises:
        DataUnavailable: they are not in the cache and cannot be downloaded.
    """
    try:
        # Of a pickle nothing but tensors is read.
        state = weights.get_state_dict(progress=show, check_hash=True, map_location="cpu", weights_only=True)
        return dict(state)
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(
            f"start: torchvision's weights could not be downloaded ({error}). Fetch {Path(weights.url).name} on "
            f"another machine, and put it into {torch.hub.get_dir()}/checkpoints or pass it as start_weights."
        ) from error


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
    if model != IMAGENET_MODEL:
        raise ConfigError(f"start: imagenet weights are for model {IMAGENET_MODEL} only, not for {model}")
    if named is None:
        return
    if not Path(named).is_file():
        raise ConfigError(f"start_weights: {named} is not a file")
    digest = imagenet_digest(named)
    if Path(named).suffix != ".safetensors" and not any(name.endswith(f"-{digest}.pth") for name in KNOWN):
        raise ConfigError(
            f"start_weights: {Path(named).name} must be a .safetensors file or torchvision's own "
            f"{' or '.join(KNOWN)} (its SHA-256 begins with {digest})"
        )


def load_imagenet(features: nn.Module, named: str | None = None) -> None:
    """Loads ImageNet weights into a ResNet-50's feature extractor, strictly, in place; the classifier is left out.

    Args:
        features: of ``resnet50_imagenet``.
        named: a file of ResNet-50 weights that :func:`check_imagenet_start` accepts; None takes :data:`PUBLISHED`.

    Raises:
        DataUnavailable: the weights are not in the cache and cannot be downloaded.
        ConfigError: the file is not to be trusted, damaged or of another model.
    """
    weights = published(PUBLISHED) if named is None else _read(named)
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    load_strictly(features, weights, source=Path(named or PUBLISHED.url).name)


def _read(named: str) -> dict[str, Tensor]:
    check_imagenet_start(IMAGENET_MODEL, named)
    try:
        if Path(named).suffix == ".safetensors":
            return load_file(named)
        return torch.load(named, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"start_weights: {Path(named).name} is damaged or no weight file ({reason})") from error
