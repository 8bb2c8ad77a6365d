"""Feature extractors for a user's images: torchvision's with published weights, SimCLR's, or untrained ones."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
import torchvision
from safetensors import safe_open
from torch import Tensor, nn

from ..core.teacher import Classifier, Teacher, with_head
from ..data.autoaugment import CIFAR_POLICY
from ..data.datasets import DATASETS
from ..data.spec import IMAGENET, OWN, Constants, DatasetSpec, Recipe, ViewRecipe
from ..networks.backbones import build_features, torchvision_features
from ..networks.pretrain_config import own_pretrain_config
from ..networks.simclr import pretrain
from ..networks.weights import check_weights_file, published, shipped_weights_file, weights_metadata
from ..runtime.checkpoint import load_weights
from ..runtime.execution import bfloat16_is_fast
from ..runtime.parameters import ConfigError, DataUnavailable
from ..runtime.randomness import Stream, torch_generator
from ..training.config import Config
from ..training.start import MakeFeatures, empty_teacher

MODELS = ("small_cnn", "resnet_narrow", "resnet_small", "resnet34", "resnet50")

TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
)  # fmt: skip

PREFIX = "torchvision:"


def check_backbone(model: str, start: str) -> None:
    """Whether there is such a model and it can start so; see :class:`emlc_lib.estimator.estimator.EMLCClassifier`.

    Raises:
        ConfigError: an unknown model or start, one that does not fit the other, or a damaged file of weights.
    """
    known = [*MODELS, *(PREFIX + name for name in TORCHVISION)]
    if model not in known:
        raise ConfigError(f"model: {model!r} is not one of auto, {', '.join(known)}")
    if model.startswith(PREFIX) != (start == "published"):
        raise ConfigError(
            f"start: {start!r} is not for {model}; torchvision's models start from published weights, and this "
            "project's from random, pretrain, shipped or a file"
        )
    file = _file(model, start)
    if file is None:
        return
    if not file.is_file():
        cure = (
            "; make them with notebooks/04_pretrain_simclr.ipynb and name the file" if start == "shipped" else ""
        )
        what = f"no SimCLR weights of {model} come with this package" if cure else f"{file} is not a file"
        raise ConfigError(f"start: {what}{cure}")
    try:
        check_weights_file(file, None, model)
    except ValueError as error:
        raise ConfigError(f"start: {str(error).removeprefix('start_weights: ')}") from None


def channels_for(model: str, start: str) -> int | None:
    """How many channels images must have for the starting weights; None where any number will do."""
    if start == "published":
        return 3
    file = _file(model, start)
    if file is None:
        return None
    with safe_open(file, framework="pt") as opened:
        first = next((name for name in ("0.weight", "conv1.weight") if name in opened.keys()), None)  # noqa: SIM118
        if first is None:
            raise ConfigError(f"start: {start} has no weights of a {model}")
        return opened.get_slice(first).get_shape()[1]


def own_spec(model: str, start: str, images: Tensor, *, flip: bool, autoaugment: bool) -> DatasetSpec:
    """What a data set's spec says, for a user's images.

    They are standardised by the constants with which the starting weights were trained, where these are known,
    else by their own.

    Args:
        model, start: as :func:`check_backbone` accepts them.
        images: (n, channels, h, h) uint8, the noisy ones.
        flip: whether mirror images are of the same class.
        autoaugment: whether clean batches are augmented with CIFAR's policy.
    """
    _, channels, _, size = images.shape
    policy, colour = CIFAR_POLICY if autoaugment else None, channels == 3
    return replace(
        OWN,
        constants=_constants(model, start, images),
        recipe=Recipe(max(1, size // 8), flip, flip, policy),
        # Small crops of very small images show nothing.
        views=ViewRecipe(0.2 if size >= 24 else 0.6, flip, 0.4, 0.1 * colour, 0.2 * colour),
    )


def _constants(model: str, start: str, images: Tensor) -> Constants:
    if start == "published":
        return IMAGENET
    file = _file(model, start)
    trained_on = DATASETS.get(weights_metadata(file).get("dataset", "")) if file else None
    if trained_on is not None:
        return trained_on.constants
    # In 64 bits, and one channel at a time: the images may be many.
    channels = [channel.double() / 255 for channel in images.transpose(0, 1).flatten(1)]
    means, stds = ([getattr(channel, name)().item() for channel in channels] for name in ("mean", "std"))
    return Constants(tuple(means), tuple(max(std, 0.01) for std in stds))


def empty_features(model: str, channels: int) -> tuple[nn.Module, int]:
    """A feature extractor on the CPU whose weights are yet to be loaded, and the size of its embeddings."""
    if model.startswith(PREFIX):
        with torch.device("meta"):  # its own initialisation would draw from the global generator
            features, dim = torchvision_features(model.removeprefix(PREFIX))
        return features.to_empty(device="cpu"), dim
    return build_features(model, channels, torch.Generator())


def empty_networks(model: str, channels: int, n_classes: int, config: Config) -> tuple[Classifier, Teacher]:
    """A student and a teacher on the CPU whose weights are yet to be loaded."""
    generator = torch_generator(0, Stream.STUDENT_WEIGHTS)
    one, two = (with_head(*empty_features(model, channels), n_classes, generator) for _ in range(2))
    return one, empty_teacher(two, config)


def starting_features(
    model: str, start: str, config: Config, images: Tensor, spec: DatasetSpec, *, epochs: int, show: bool,
    folder: Path | None = None,
) -> MakeFeatures | None:  # fmt: skip
    """What makes the initial feature extractors; None for random ones, which the trainer makes itself.

    Args:
        model, start: as :func:`check_backbone` accepts them.
        config: of the training; seed and device of a pretraining.
        images: (n, channels, h, h) uint8, for pretraining.
        spec: from :func:`own_spec`.
        epochs: of the pretraining.
        show: whether to show progress.
        folder: of a pretraining's checkpoint; None keeps none.

    Raises:
        ConfigError: published weights could not be downloaded.
    """
    if start == "random":
        return None
    features, dim = empty_features(model, images.shape[1])
    if start == "pretrain":
        precision = "bfloat16" if bfloat16_is_fast(config.device) else "float32"
        own = own_pretrain_config(
            model=model, device=config.device, seed=config.seed, epochs=epochs, view_size=images.shape[-1],
            batch_size=min(256, len(images)), precision=precision,
        )  # fmt: skip
        pretrained = pretrain(own, images, folder=folder, show=show, constants=spec.constants, recipe=spec.views)
        features = pretrained.features.cpu()
    elif start == "published":
        _load_published(features, model.removeprefix(PREFIX), show)
    else:
        load_weights(features, _file(model, start))
    return lambda: (copy.deepcopy(features), dim)


def _load_published(features: nn.Module, name: str, show: bool) -> None:
    """Loads torchvision's weights but for the last layer, which is left out."""
    try:
        state = published(torchvision.models.get_model_weights(name).DEFAULT, show)
    except DataUnavailable as error:
        raise ConfigError(str(error)) from error
    own = features.state_dict()
    features.load_state_dict({key: value for key, value in state.items() if key in own})


def _file(model: str, start: str) -> Path | None:
    """The file of the starting weights, if they are in one that is named or comes with the package."""
    if start in ("random", "pretrain", "published"):
        return None
    return shipped_weights_file("cifar10", model) if start == "shipped" else Path(start)
