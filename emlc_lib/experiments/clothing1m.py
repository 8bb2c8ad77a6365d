"""What ``11_clothing1m`` shows beside a run: learning rates over the epochs, and corrected labels of some."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.experiment_data import ExperimentData
from ..data.spec import IMAGENET
from ..training.correction import correction_frame, corrections
from ..training.presets import learning_rates, make_config
from .runs import Run

N_NOISY = 1_000_000
# The paper's hours an epoch on one A6000, by k (section 4.3).
EPOCH_HOURS = {1: 3.67, 5: 3.467}


def rate_plans(epochs: Iterable[int]) -> dict[int, np.ndarray]:
    """Preset paper's learning rate at each step (T,), by the number of epochs, for a million noisy images."""
    configs = {n: make_config(dataset="clothing1m", preset="paper", epochs=n, device="cpu") for n in epochs}
    return {n: learning_rates(config, N_NOISY) for n, config in configs.items()}


def compare_plans(plans: Mapping[int, np.ndarray], steps_per_epoch: int) -> pd.DataFrame:
    """Steps, how many are at which rate, the way that the parameters can go, and the paper's hours, by epochs.

    Returns:
        One row per plan. ``distance`` is the sum of the rates over all steps, in epochs at the first step's rate.
    """
    rows = {}
    for epochs, rates in plans.items():
        values, counts = np.unique(rates.round(10), return_counts=True)
        at_rates = {f"at {value:g}": count for value, count in zip(values[::-1], counts[::-1], strict=True)}
        hours = {f"hours, k = {k}": round(each * epochs, 1) for k, each in EPOCH_HOURS.items()}
        distance = round(rates.sum() / (rates[0] * steps_per_epoch), 2)
        rows[f"{epochs} epochs"] = {"steps": len(rates), **at_rates, "distance": distance, **hours}
    return pd.DataFrame.from_dict(rows, orient="index")


def milestone_rates(milestones: Sequence[int] | str, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """The rate at each step (T,) that torch's MultiStepLR makes of 0.1 and milestones, to a tenth at each.

    Args:
        milestones: in epochs, or the text that the first released code passed, which no epoch ever equals.
    """
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=milestones, gamma=0.1)
    rates = []
    for _ in range(epochs):
        rates += steps_per_epoch * scheduler.get_last_lr()
        optimiser.step()
        scheduler.step()
    return np.array(rates)


def correct_some(run: Run, data: ExperimentData, most: int = 500) -> tuple[pd.DataFrame, Tensor]:
    """The teacher's verdict on up to ``most`` noisy images, spread evenly over the list.

    Returns:
        :func:`emlc_lib.training.correction.correction_frame` with the images' places in ``index``, and the images
        (n, 3, h, h) uint8 in the same order.
    """
    chosen = torch.arange(0, len(data.noisy_labels), -(-len(data.noisy_labels) // most))
    images = data.noisy_images[chosen].cpu()
    given = data.noisy_labels.cpu()[chosen]
    verdict = corrections(run.student(), run.teacher(), images, given, IMAGENET, "cpu")
    return correction_frame(chosen.tolist(), np.array(data.classes), verdict), images
