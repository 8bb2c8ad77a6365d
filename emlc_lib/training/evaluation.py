"""Predictions and accuracies without augmentation, and the epoch that they choose."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.metrics import accuracy
from ..data.augment import normalise
from ..data.experiment_data import ExperimentData, Scale
from ..data.images import DiskImages
from ..methods.base import Method
from ..runtime.execution import matmul_precision
from ..runtime.parallel import interleaved, own_share

EVALUATION_BATCH = 500


def evaluate(method: Method, data: ExperimentData) -> dict[str, float]:
    """Accuracies in evaluation mode, without augmentation; leaves the networks in evaluation mode.

    The clean ones, by which the epoch is chosen, are on the clean set, with ``splits="released"`` on further clean
    labels.
    """
    method.train(False)
    clean = predict(method.reported, data.validation_images, data)
    row = {
        "student_clean_accuracy": accuracy(clean, data.validation_labels),
        "student_clean_loss": F.cross_entropy(clean, data.validation_labels).item(),
    }
    if not len(data.test_labels):
        return row
    test = predict(method.reported, data.test_images, data)
    row["student_test_accuracy"] = accuracy(test, data.test_labels)
    if method.teacher is not None:
        test = predict(method.teacher.classifier, data.test_images, data)
        row["teacher_test_accuracy"] = accuracy(test, data.test_labels)
    return row


@torch.no_grad()
@matmul_precision("float32")
def predict(model: nn.Module, images: Tensor | DiskImages, scale: Scale) -> Tensor:
    """Logits (n, C) for uint8 images (n, channels, h, w), in the model's present mode, on the device of ``scale``.

    They are computed in float32, whatever the training computes in.
    In a process group every process evaluates its share of the images, and all get all logits.
    """
    (rank, world), n = own_share(), len(images)
    parts = (images[i : i + EVALUATION_BATCH * world : world] for i in range(rank, n, EVALUATION_BATCH * world))
    mean, std = scale.mean, scale.std
    return interleaved(torch.cat([model(normalise(part.to(mean.device), mean, std)) for part in parts]), n)


def best_epoch(epochs: pd.DataFrame) -> int:
    """The paper's rule: the epoch of the highest accuracy on the clean set. Test labels play no part.

    Ties, which a student that fits the clean set produces, go to the later epoch.
    """
    clean = epochs["student_clean_accuracy"].to_numpy()
    return int(epochs["epoch"].to_numpy()[np.flatnonzero(clean == clean.max())[-1]])
