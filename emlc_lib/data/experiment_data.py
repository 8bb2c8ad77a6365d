"""What one run sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from torch import Tensor
from typing import NamedTuple
import torch
from ..core import noise
from .augment import Recipe
from .disk_images import DiskImages
from .splits import Split


@dataclass(frozen=True)
class ExperimentData:
    """What one run sees; images uint8 and labels int64 tensors on the run's device.

    Images may stay on disk (:class:`~emlc_lib.data.disk_images.DiskImages`, indexed like tensors). ``true_labels`` are
    the labels of the noisy set before corruption, for evaluation only; -1 where nobody knows them.
    ``corruption`` and ``split`` are None, and ``test_images`` may be empty, for data that are not a data set of
    :func:`load_dataset`; ``recipe`` is their augmentation.
    """

    classes: list[str]
    mean: Tensor
    std: Tensor
    noisy_images: Tensor | DiskImages
    noisy_labels: Tensor
    true_labels: Tensor
    clean_images: Tensor | DiskImages
    clean_labels: Tensor
    validation_images: Tensor | DiskImages
    validation_labels: Tensor
    test_images: Tensor | DiskImages
    test_labels: Tensor
    corruption: noise.NoisyLabels | None = None
    split: Split | None = None
    recipe: Recipe | None = None

    @property
    def n_classes(self) -> int:
        return len(self.classes)


class Scale(NamedTuple):
    """Mean and standard deviation of each channel as (channels, 1, 1) tensors."""

    mean: Tensor
    std: Tensor


def on_device(constants: Constants, device: str) -> Scale:
    """The constants as tensors that broadcast over images."""
    return Scale(*(torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in constants))


Constants = tuple[Sequence[float], Sequence[float]]
