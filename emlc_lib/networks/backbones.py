"""Student classifiers and the teacher of Figure 3.

Models are built without touching the global random state: weights come from the generator that is passed.
"""

from itertools import pairwise
from typing import Literal, get_args

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from ..core.teacher import Classifier, initialise
from ..runtime.parameters import ConfigError

Model = Literal["small_cnn", "resnet_narrow", "resnet_small", "resnet34", "resnet50", "resnet50_imagenet"]


class NarrowResNet(nn.Sequential):
    """A CIFAR ResNet of four basic blocks, for CPUs: 3x3 stem, then one block per width, global pooling."""

    def __init__(self, channels: int):
        layers, previous = convolution(channels, 16), 16
        for i, width in enumerate((16, 32, 64, 64)):
            stride = 1 if i == 0 else 2
            shortcut = None
            if stride != 1 or previous != width:
                shortcut = nn.Sequential(conv1x1(previous, width, stride), nn.BatchNorm2d(width))
            layers.append(BasicBlock(previous, width, stride, shortcut))
            previous = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def convolution(inputs: int, outputs: int, *pooling: nn.Module) -> list[nn.Module]:
    """3x3, batch norm and ReLU, with pooling before the norm if there is any."""
    first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [first, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Sum(nn.Module):
    """x + f(x), f of so many 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, width: int, convolutions: int):
        super().__init__()
        self.f = nn.Sequential(*(layer for _ in range(convolutions) for layer in convolution(width, width)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class PooledResNet(nn.Sequential):
    """A wider CIFAR ResNet for CPUs: a 2x2 stem, then per width a convolution, max pooling and a residual sum.

    The stem and the place of the pooling, which leaves a quarter of the pixels to batch norm and the sum, are
    those of airbench (Jordan, 2024): most products are on few pixels and many channels, where a CPU is fast. The
    sums are those of ResNet-9 (Page, 2018); the first, which has the most pixels, is of one convolution.
    """

    def __init__(self, channels: int):
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 2), nn.ReLU(inplace=True)]
        for i, (before, width) in enumerate(pairwise((16, 32, 128, 256))):
            layers += [*convolution(before, width, nn.MaxPool2d(2)), Sum(width, 2 if i else 1)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SmallCNN(nn.Sequential):
    """Two convolutions with batch norm and one hidden linear layer, for 8x8 digits."""

    def __init__(self, channels: int, width: int = 16, dim: int = 64):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * width * 16, dim),
            nn.ReLU(),
        )


def torchvision_features(name: str) -> tuple[nn.Module, int]:
    """A torchvision model that ends in its embeddings, and their size; on torch's default device.

    Dropout and stochastic depth, which draw from the global generator, are left out.
    """
    net = torchvision.models.get_model(name, weights=None)
    modules = list(net.named_modules())
    linear, last = [(path, module) for path, module in modules if isinstance(module, nn.Linear)][-1]
    drawing = [p for p, module in modules if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth)]
    for path in (linear, *drawing):
        net.set_submodule(path, nn.Identity())
    return net, last.in_features


def _cifar_resnet(name: str, channels: int) -> tuple[nn.Module, int]:
    net, dim = torchvision_features(name)
    # The CIFAR stem: a 3x3 convolution and no pooling, since 32x32 images cannot afford a stride of 4.
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net, dim


def build_classifier(name: str, n_classes: int, channels: int, generator: torch.Generator) -> Classifier:
    """A freshly initialised classifier on the CPU.

    Args:
        name: ``small_cnn``, ``resnet_narrow``, ``resnet_small``, ``resnet34`` or ``resnet50``; or
            ``resnet50_imagenet``, with the stem for images of 224 pixels.
        n_classes: C.
        channels: 3 for colour, 1 for grey images.
        generator: a CPU generator; the weights are a function of its state.

    Raises:
        ConfigError: an unknown name.
    """
    with torch.device("meta"):  # torch's own initialisation would draw from the global generator
        model = Classifier(*_features(name, channels), n_classes)
    return initialise(model, generator)


def build_features(name: str, channels: int, generator: torch.Generator) -> tuple[nn.Module, int]:
    """A classifier's freshly initialised feature extractor alone, and the size of its embeddings.

    Arguments and errors as in :func:`build_classifier`.
    """
    with torch.device("meta"):
        features, dim = _features(name, channels)
    return initialise(features, generator), dim


def _features(name: str, channels: int) -> tuple[nn.Module, int]:
    match name:
        case "small_cnn":
            return SmallCNN(channels), 64
        case "resnet_narrow":
            return NarrowResNet(channels), 64
        case "resnet_small":
            return PooledResNet(channels), 256
        case "resnet34" | "resnet50":
            return _cifar_resnet(name, channels)
        case "resnet50_imagenet" if channels == 3:
            return torchvision_features("resnet50")
        case "resnet50_imagenet":
            raise ConfigError(f"model: {name} is for colour images, not for {channels} channel")
    raise ConfigError(f"model: {name!r} is not one of {', '.join(get_args(Model))}")
