"""Student classifiers and the teacher of Figure 3.

Models are built without touching the global random state: weights come from the generator that is passed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1


class Classifier(nn.Module):
    """A feature extractor and a linear classifier; the student, and the teacher's own predictor.

    Attributes:
        features: maps images (n, channels, h, w) to embeddings (n, d).
        head: linear, embeddings (n, d) to logits (n, C).
    """

    def __init__(self, features: nn.Module, dim: int, n_classes: int):
        super().__init__()
        self.features = features
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TeacherOutput(NamedTuple):
    """What the teacher says of n samples.

    Attributes:
        soft_labels: (n, C), q_alpha(y | x_i, y~_i); rows sum to one.
        gate_logits: (n,), the logit of the gate w_i, the weight of the given label.
        logits: (n, C), the teacher's own prediction before softmax.
        given: (n,) int64, the labels it was given.
    """

    soft_labels: Tensor
    gate_logits: Tensor
    logits: Tensor
    given: Tensor

    @property
    def gate(self) -> Tensor:
        """(n,), w_i in (0, 1)."""
        return self.gate_logits.sigmoid()


class Teacher(nn.Module):
    """Section 3.6 and Figure 3: a predictor and a gate that weighs the prediction against the given label.

    ``q = w * onehot(y~) + (1 - w) * softmax(logits)``, where w comes from an MLP (one hidden layer) on the
    image embedding h_i concatenated with the embedding z_i of the given label. Appendix D reads w as the
    probability that the given label is the true one.

    Args:
        classifier: the teacher's own feature extractor and classifier, not shared with the student.
        hidden: units of the MLP's hidden layer, and the size of the label embedding (Table 4: 128; the paper
            gives no size for the embedding).
    """

    def __init__(self, classifier: Classifier, *, hidden: int = 128):
        super().__init__()
        dim, n_classes = classifier.head.in_features, classifier.head.out_features
        self.classifier = classifier
        self.label_embedding = nn.Embedding(n_classes, hidden)
        self.gate = nn.Sequential(nn.Linear(dim + hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, given: Tensor | Callable[[Tensor], Tensor]) -> TeacherOutput:
        """Soft labels for images with given labels.

        Args:
            x: (n, channels, h, w) images.
            given: (n,) int64 labels, or a function that makes them from the teacher's logits (n, C); that is
                how adversarial corruption picks labels without a second pass.
        """
        return self.correct(self.classifier.features(x), given)

    def correct(self, features: Tensor, given: Tensor | Callable[[Tensor], Tensor]) -> TeacherOutput:
        """:meth:`forward` from the embeddings (n, d) of the images on."""
        precise = self.gate[0].weight.dtype  # probabilities are not for bfloat16
        logits = self.classifier.head(features).to(precise)
        labels = given(logits.detach()) if callable(given) else given
        gate_logits = self.gate(torch.cat([features, self.label_embedding(labels)], dim=1)).squeeze(1).to(precise)
        w = gate_logits.sigmoid().unsqueeze(1)
        one_hot = nn.functional.one_hot(labels, logits.shape[1]).to(precise)
        return TeacherOutput(w * one_hot + (1 - w) * logits.softmax(dim=1), gate_logits, logits, labels)


class NarrowResNet(nn.Sequential):
    """A CIFAR ResNet of four basic blocks, for CPUs: 3x3 stem, then one block per width, global pooling."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 64, 64)):
        layers: list[nn.Module] = [
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        previous = widths[0]
        for i, width in enumerate(widths):
            stride = 1 if i == 0 else 2
            shortcut = None
            if stride != 1 or previous != width:
                shortcut = nn.Sequential(conv1x1(previous, width, stride), nn.BatchNorm2d(width))
            layers.append(BasicBlock(previous, width, stride, shortcut))
            previous = width
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


def _torchvision_resnet(name: str, channels: int) -> tuple[nn.Module, int]:
    net = getattr(torchvision.models, name)(weights=None)
    # The CIFAR stem: a 3x3 convolution and no pooling, since 32x32 images cannot afford a stride of 4.
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    dim = net.fc.in_features
    net.fc = nn.Identity()
    return net, dim


def _imagenet_resnet50(channels: int) -> tuple[nn.Module, int]:
    if channels != 3:
        raise ValueError(f"model: resnet50_imagenet is for colour images, not for {channels} channel")
    net = torchvision.models.resnet50(weights=None)
    dim = net.fc.in_features
    net.fc = nn.Identity()
    return net, dim


def build_classifier(name: str, n_classes: int, channels: int, generator: torch.Generator) -> Classifier:
    """A freshly initialised classifier on the CPU.

    Args:
        name: ``small_cnn``, ``resnet_narrow``, ``resnet34`` or ``resnet50``; or ``resnet50_imagenet``, with the
            stem for images of 224 pixels.
        n_classes: C.
        channels: 3 for colour, 1 for grey images.
        generator: a CPU generator; the weights are a function of its state.

    Raises:
        ValueError: an unknown name.
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
    if name == "small_cnn":
        return SmallCNN(channels), 64
    if name == "resnet_narrow":
        return NarrowResNet(channels), 64
    if name in ("resnet34", "resnet50"):
        return _torchvision_resnet(name, channels)
    if name == "resnet50_imagenet":
        return _imagenet_resnet50(channels)
    raise ValueError(
        f"model: {name!r} is not one of small_cnn, resnet_narrow, resnet34, resnet50, resnet50_imagenet"
    )


def build_teacher(classifier: Classifier, generator: torch.Generator, *, hidden: int = 128) -> Teacher:
    """A teacher around ``classifier`` (kept as it is), with a freshly initialised embedding and gate."""
    with torch.device("meta"):
        teacher = Teacher(classifier, hidden=hidden)
    initialise(teacher.label_embedding, generator)
    initialise(teacher.gate, generator)
    return teacher


def initialise(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draws the weights of a model on the meta device, which is moved to the CPU; returns the model.

    Convolutions have He's initialisation, linear layers are uniform within 1 / sqrt(inputs), biases are zero.
    """
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # constants: ones and zeros
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no initialisation is defined for {type(module).__name__}")
    return model


def save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, and no other: safetensors' own function leaves one beside it if it is killed."""
    path.write_bytes(save(tensors, metadata=metadata))


def save_weights(
    model: nn.Module, path: str | Path, *, metadata: dict[str, str] | None = None, half: bool = False
) -> None:
    """Writes a model's parameters and buffers as safetensors, floating-point ones in 16 bits if ``half``."""
    values = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        values = {name: v.half() if v.is_floating_point() else v for name, v in values.items()}
    save_file(values, path, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads weights that :func:`save_weights` wrote, strictly, in place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or belongs to another model; the message lists what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: {path} is not a file")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"weights: {path.name} is damaged or no safetensors file ({error})") from error
    load_strictly(model, weights, source=path.name)


def load_strictly(model: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Loads a state dict, or raises a ValueError with the keys and shapes that differ, changing nothing."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, the model's has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ValueError(f"weights: {source} does not fit this model: {shown}")
    model.load_state_dict(weights)
