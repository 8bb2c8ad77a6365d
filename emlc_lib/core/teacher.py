"""The networks of Figure 3: the student's classifier, and the teacher, which corrects labels by a gate."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
    probability that the given label is the true one, and the prediction as that of the label if it is not; then
    it could leave out the given label, which the paper found to be worse.

    Args:
        classifier: the teacher's own feature extractor and classifier, not shared with the student.
        hidden: units of the MLP's hidden layer, and the size of the label embedding (Table 4: 128; the paper
            gives no size for the embedding).
        label_embedding: whether the gate sees the given label, too.
        leave_out_given: whether the softmax leaves out the given label (the masking of Appendix D).
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        hidden: int = 128,
        label_embedding: bool = True,
        leave_out_given: bool = False,
    ):
        super().__init__()
        dim, n_classes = classifier.head.in_features, classifier.head.out_features
        self.classifier = classifier
        self.label_embedding = nn.Embedding(n_classes, hidden) if label_embedding else None
        inputs = dim + hidden if label_embedding else dim
        self.gate = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.leave_out_given = leave_out_given

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
        if self.label_embedding is not None:
            features = torch.cat([features, self.label_embedding(labels)], dim=1)
        gate_logits = self.gate(features).squeeze(1).to(precise)
        return TeacherOutput(self.combine(gate_logits, logits, labels), gate_logits, logits, labels)

    def combine(self, gate_logits: Tensor, logits: Tensor, given: Tensor) -> Tensor:
        """The soft labels (n, C) of gate logits (n,), logits (n, C) and given labels (n,): eq. 31."""
        w = gate_logits.sigmoid().unsqueeze(1)
        one_hot = nn.functional.one_hot(given, logits.shape[1])
        if self.leave_out_given:
            logits = logits.masked_fill(one_hot.bool(), float("-inf"))
        return w * one_hot.to(logits.dtype) + (1 - w) * logits.softmax(dim=1)


def build_teacher(classifier: Classifier, generator: torch.Generator, **options: int | bool) -> Teacher:
    """A :class:`Teacher` around ``classifier`` (kept as it is), with a freshly initialised embedding and gate."""
    with torch.device("meta"):
        teacher = Teacher(classifier, **options)
    if teacher.label_embedding is not None:
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
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
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


def with_head(features: nn.Module, dim: int, n_classes: int, generator: torch.Generator) -> Classifier:
    """A classifier around ``features`` (kept as they are), with a freshly initialised linear head."""
    with torch.device("meta"):
        model = Classifier(features, dim, n_classes)
    initialise(model.head, generator)
    return model
