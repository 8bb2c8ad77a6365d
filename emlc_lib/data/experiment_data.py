"""What one run sees."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import noise
from .images import DiskImages
from .spec import Constants, Recipe
from .splits import Split


@dataclass(frozen=True)
class ExperimentData:
    """What one run sees; images uint8 and labels int64 tensors on the run's device.

    Images may stay on disk (:class:`~emlc_lib.data.images.DiskImages`, indexed like tensors). ``true_labels`` are
    the labels of the noisy set before corruption, for evaluation only; -1 where nobody knows them. ``recipe`` is
    the augmentation. For a user's own images ``corruption`` and ``split`` are None, and there may be no
    ``test_images``.
    """

    classes: list[str]
    mean: Tensor
    std: Tensor
    recipe: Recipe
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

    @property
    def n_classes(self) -> int:
        return len(self.classes)


class Scale(NamedTuple):
    """Mean and standard deviation of each channel as (channels, 1, 1) tensors."""

    mean: Tensor
    std: Tensor


def on_device(constants: Constants, device: str | torch.device) -> Scale:
    """The constants as tensors that broadcast over images."""
    return Scale(*(torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in constants))
