"""What the steps of a training logged: made whole over processes, as a table, and as one row per epoch."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core.metrics import correction_rates
from ..runtime.parallel import averaged


def joint(log: list[dict[str, Tensor]], world: int) -> list[dict[str, Tensor]]:
    """The log of the whole batches, of which ``world`` processes saw a share each.

    That is the mean of the processes' means, and the sum of their counts.
    """
    if world == 1:
        return log
    means = averaged({(i, name): v.double() for i, entry in enumerate(log) for name, v in entry.items()})
    return [{n: means[i, n] * (world if n == "correction" else 1) for n in e} for i, e in enumerate(log)]


def step_table(log: list[dict[str, Tensor]], first: int) -> pd.DataFrame:
    """One row per step, the first of them of number ``first``; NaN where a step did not log a number."""
    # One transfer per column instead of one per value.
    names = sorted({name for entry in log for name in entry} - {"correction"})
    nan = torch.tensor(float("nan"))
    columns: dict[str, Any] = {"step": np.arange(first, first + len(log), dtype=np.float64)}
    for name in names:
        present = [entry[name] for entry in log if name in entry]
        values = iter(torch.stack(present).double().cpu())
        columns[name] = [float(next(values) if name in entry else nan) for entry in log]
    if "correction" in log[0]:
        rates = [correction_rates(c) for c in torch.stack([entry["correction"] for entry in log]).cpu()]
        columns |= pd.DataFrame(rates).to_dict("list")
    return pd.DataFrame(columns)


def epoch_means(log: list[dict[str, Tensor]]) -> dict[str, float]:
    """One row: the mean of each number over the steps that have it defined, and the rates of all counts."""
    names = sorted({name for entry in log for name in entry} - {"correction"})
    row = {n: torch.stack([e[n] for e in log if n in e]).double().nanmean().item() for n in names}
    if "correction" in log[0]:
        row |= correction_rates(torch.stack([entry["correction"] for entry in log]).sum(0))
    return row


def one_line(row: dict[str, float]) -> str:
    """An epoch in a few words, for the progress bar."""
    if "student_test_accuracy" not in row:
        return f"epoch {row['epoch']}: clean set {row['student_clean_accuracy']:.1%}"
    text = f"epoch {row['epoch']}: test {row['student_test_accuracy']:.1%}"
    known = np.isfinite(row.get("recovery_all", np.nan))  # not where nobody knows the true labels
    return text + (f", recovered {row['recovery_all']:.1%}" if known else "")
