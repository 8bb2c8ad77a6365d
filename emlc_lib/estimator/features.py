"""Feature extractors for a user's images: torchvision's with published weights, SimCLR's, or untrained ones."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core.teacher import Classifier, Teacher, build_teacher, with_head
from ..data.datasets import NORMALISATION
from ..data.experiment_data import Constants
from ..networks.backbones import build_features
from ..networks.pretrain_config import make_pretrain_config
from ..networks.simclr import pretrain
from ..networks.start_weights import check_shipped_weights, check_weights_file, shipped_weights_file
from ..networks.views import ViewRecipe
from ..runtime.checkpoint import load_weights
from ..runtime.parameters import ConfigError
from ..runtime.randomness import Stream, torch_generator
from ..training.config import Config
from ..training.start import MakeFeatures

OWN = ("small_cnn", "resnet_narrow", "resnet_small", "resnet34", "resnet50")

TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
)  # fmt: skip

PREFIX = "torchvision:"

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_backbone(model: str, start: str) -> None:
    """Whether there is such a model and it can start so; see :class:`emlc_lib.estimator.estimator.EMLCClassifier`.

    Raises:
        ConfigError: an unknown model or start, one that does not fit the other, or a damaged file of weights.
    """
    known = [*OWN, *(PREFIX + name for name in TORCHVISION)]
    if model not in known:
        raise ConfigError(f"model: {model!r} is not one of auto, {', '.join(known)}")
    if model.startswith(PREFIX) != (start == "published"):
        raise ConfigError(
            f"start: {start!r} is not for {model}; torchvision's models start from published weights, and this "
            "project's from random, pretrain, shipped or a file"
        )
    if start in ("random", "pretrain", "published"):
        return
    file = _file(model, start)
    dataset = _dataset(file) if file.is_file() else "cifar10"
    try:
        if start == "shipped":
            check_shipped_weights(dataset, model)
        elif not file.is_file():
            raise ValueError(f"{file} is not a file")
        else:
            check_weights_file(file, dataset, model)
    except ValueError as error:
        raise ConfigError(f"start: {str(error).removeprefix('start_weights: ').removeprefix('start: ')}") from None


def constants_for(model: str, start: str, images: Tensor) -> Constants:
    """Mean and standard deviation of each channel by which images are standardised.

    Those with which the weights were trained, where that is known, else those of ``images``, (n, channels, h, w)
    uint8.
    """
    if start == "published":
        return IMAGENET
    if start not in ("random", "pretrain"):
        known = NORMALISATION.get(_dataset(_file(model, start)))
        if known is not None:
            return known
    pixels = images.transpose(0, 1).flatten(1)
    # In 64 bits, and one channel at a time: the images may be many.
    channels = [channel.double() / 255 for channel in pixels]
    mean = [channel.mean().item() for channel in channels]
    return mean, [max(channel.std().item(), 0.01) for channel in channels]


def channels_for(model: str, start: str) -> int | None:
    """How many channels images must have for the starting weights; None where any number will do."""
    if start in ("random", "pretrain"):
        return None
    if start == "published":
        return 3
    with safe_open(_file(model, start), framework="pt") as opened:
        first = next((name for name in ("0.weight", "conv1.weight") if name in opened.keys()), None)  # noqa: SIM118
        if first is None:
            raise ConfigError(f"start: {start} has no weights of a {model}")
        return opened.get_slice(first).get_shape()[1]


def empty_features(model: str, channels: int) -> tuple[nn.Module, int]:
    """A feature extractor on the CPU whose weights are yet to be loaded, and the size of its embeddings."""
    if model.startswith(PREFIX):
        features, dim = _torchvision(model.removeprefix(PREFIX))
        return features.to_empty(device="cpu"), dim
    return build_features(model, channels, torch.Generator())


def empty_networks(model: str, channels: int, n_classes: int) -> tuple[Classifier, Teacher]:
    """A student and a teacher on the CPU whose weights are yet to be loaded."""
    generator = torch_generator(0, Stream.STUDENT_WEIGHTS)
    one, two = (with_head(*empty_features(model, channels), n_classes, generator) for _ in range(2))
    return one, build_teacher(two, generator)


def starting_features(
    model: str,
    start: str,
    config: Config,
    images: Tensor,
    *,
    constants: Constants,
    flip: bool,
    epochs: int,
    show: bool,
    folder: Path | None = None,
) -> MakeFeatures | None:
    """What makes the initial feature extractors; None for random ones, which the trainer makes itself.

    Args:
        model, start: as :func:`check_backbone` accepts them.
        config: of the training; seed and device of a pretraining.
        images: (n, channels, h, h) uint8, for pretraining.
        constants: from :func:`constants_for`.
        flip, epochs: of the pretraining.
        show: whether to show progress.
        folder: of a pretraining's checkpoint; None keeps none.

    Raises:
        ConfigError: published weights could not be downloaded.
    """
    if start == "random":
        return None
    if start == "pretrain":
        features = _pretrained(model, config, images, constants, flip, epochs, show, folder)
        _, dim = empty_features(model, images.shape[1])
    elif start == "published":
        features, dim = _published(model.removeprefix(PREFIX), show)
    else:
        features, dim = empty_features(model, images.shape[1])
        load_weights(features, _file(model, start))
    return lambda: (copy.deepcopy(features), dim)


def _pretrained(model, config, images, constants, flip, epochs, show, folder) -> nn.Module:
    size = images.shape[-1]
    on_cuda = config.device.startswith("cuda")
    own = make_pretrain_config(
        dataset="own", model=model, device=config.device, seed=config.seed, epochs=epochs, view_size=size,
        batch_size=min(256, len(images)), precision="bfloat16" if on_cuda else "float32",
    )  # fmt: skip
    colour = images.shape[1] == 3
    # Small crops of very small images show nothing.
    recipe = ViewRecipe(0.2 if size >= 24 else 0.6, flip, 0.4, 0.1 * colour, 0.2 * colour)
    pretrained = pretrain(own, images, folder=folder, show=show, constants=constants, recipe=recipe)
    return pretrained.features.cpu()


def _published(name: str, show: bool) -> tuple[nn.Module, int]:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=show, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"start: the published weights of {name} could not be downloaded ({error})") from error
    return _torchvision(name, state)


def _torchvision(name: str, state: dict[str, Tensor] | None = None) -> tuple[nn.Module, int]:
    """A torchvision model that ends in its embeddings, with the weights ``state``, else on the meta device."""
    with torch.device("meta"):  # its own initialisation would draw from the global generator
        net = torchvision.models.get_model(name, weights=None)
    if state is not None:
        net.load_state_dict(state, assign=True)
    linear = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    dim = net.get_submodule(linear).in_features
    net.set_submodule(linear, nn.Identity())
    # Dropout and stochastic depth draw from the global generator, too.
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
            net.set_submodule(path, nn.Identity())
    return net, dim


def _file(model: str, start: str) -> Path:
    return shipped_weights_file("cifar10", model) if start == "shipped" else Path(start)


def _dataset(file: Path) -> str:
    """The data set that a file of weights says it was pretrained on; cifar10 where it says nothing readable."""
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("dataset", "cifar10")
    except (OSError, SafetensorError):  # check_weights_file says what is wrong with it
        return "cifar10"
