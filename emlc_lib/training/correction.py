"""A trained teacher's verdict on given labels."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core.teacher import Classifier, Teacher
from ..data.augment import normalise
from ..data.experiment_data import Constants, Scale, on_device
from ..runtime.execution import matmul_precision
from .evaluation import EVALUATION_BATCH, predict


@torch.no_grad()
@matmul_precision("float32")
def soft_labels(teacher: Teacher, pixels: Tensor, given: Tensor, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """A teacher's corrected labels (eq. 31) without augmentation, in evaluation mode.

    Args:
        teacher: on the device of ``scale``.
        pixels: (n, channels, h, h) uint8. given: (n,) int64.
        scale: has the mean and the standard deviation by which images are standardised.

    Returns:
        (n, C) corrected labels, (n,) gates, (n, C) the teacher's own probabilities; float64, on the CPU.
    """
    parts = []
    for x, y in zip(pixels.split(EVALUATION_BATCH), given.split(EVALUATION_BATCH), strict=True):
        device = scale.mean.device
        output = teacher(normalise(x.to(device), scale.mean, scale.std), y.to(device))
        # Again in 64 bits, in which sure labels still differ from each other.
        gate, logits = output.gate_logits.double(), output.logits.double()
        parts.append((teacher.combine(gate, logits, output.given), gate.sigmoid(), logits.softmax(1)))
    return tuple(torch.cat(values).cpu() for values in zip(*parts, strict=True))


def corrections(
    student: Classifier, teacher: Teacher, pixels: Tensor, given: Tensor, constants: Constants, device: str
) -> dict[str, Tensor]:
    """What trained networks, in evaluation mode, make of given labels: the teacher corrects, both rank.

    The rank is not that of the corrected probability, which holds the gate: on human labels the mean of what
    student and teacher give to the label finds more of the wrong ones (``10_your_data``).

    Args:
        student, teacher: on ``device``.
        pixels: (n, channels, h, h) uint8. given: (n,) int64.
        constants: mean and standard deviation by which images are standardised.

    Returns:
        By name, (n,) on the CPU: ``given`` and ``corrected`` class, ``probability``, ``gate`` and ``rank`` of
        :meth:`emlc_lib.estimator.estimator.EMLCClassifier.correct_labels`, and the ``quality`` of the given label:
        the average probability of which the rank is the order.
    """
    scale = on_device(constants, device)
    soft, gate, by_teacher = soft_labels(teacher, pixels, given, scale)
    by_both = (predict(student, pixels, scale).cpu().double().softmax(1) + by_teacher) / 2
    probability, corrected = soft.max(1)
    quality = by_both.gather(1, given[:, None])[:, 0]
    order = quality.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1)
    labels = {"given": given, "corrected": corrected, "probability": probability}
    return labels | {"gate": gate, "quality": quality, "rank": rank}


def correction_frame(
    names: list[int] | list[str], classes: np.ndarray, correction: dict[str, Tensor]
) -> pd.DataFrame:
    """:func:`corrections` as a table; see :meth:`emlc_lib.estimator.estimator.EMLCClassifier.correct_labels`."""
    values = {name: value.numpy() for name, value in correction.items()}
    columns = {
        "path" if isinstance(names[0], str) else "index": names,
        "given_label": classes[values["given"]],
        "corrected_label": classes[values["corrected"]],
    }
    return pd.DataFrame(columns | {name: values[name] for name in ("probability", "gate", "rank")})


def issues_frame(classes: np.ndarray, correction: dict[str, Tensor]) -> pd.DataFrame:
    """:func:`corrections` with the columns of cleanlab's ``CleanLearning.get_label_issues``.

    Returns:
        One row per image, in their order: ``is_label_issue``, whether the teacher corrects the label;
        ``label_quality``, from 0 to 1; ``given_label``; ``predicted_label``, the corrected one.
    """
    given, corrected = (correction[name].numpy() for name in ("given", "corrected"))
    issues = {"is_label_issue": corrected != given, "label_quality": correction["quality"].numpy()}
    return pd.DataFrame(issues | {"given_label": classes[given], "predicted_label": classes[corrected]})
