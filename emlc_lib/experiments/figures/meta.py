"""Figures of the meta-gradient."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...runtime.palette import BLUE, GREEN, ORANGE, PINK
from .style import style


def look_ahead_errors(errors: pd.DataFrame) -> Figure:
    """Relative error and cosine of k-step weights to the exact meta-gradient, over k.

    Args:
        errors: what :func:`emlc_lib.experiments.toy_problem.compare_weights` returns; lines are means over seeds,
        bands
            their range.
    """
    momenta, lrs = sorted(errors["momentum"].unique()), sorted(errors["lr"].unique())
    with style():
        figure, axes = plt.subplots(2, len(momenta), figsize=(4.6 * len(momenta), 6.2), sharex=True, sharey="row")
        axes = np.atleast_2d(axes).reshape(2, len(momenta))
        for column, momentum in enumerate(momenta):
            part = errors[errors["momentum"] == momentum]
            for row, measure in enumerate(["relative_error", "cosine"]):
                axis = axes[row, column]
                for colour, lr in zip([BLUE, GREEN, ORANGE, PINK], lrs, strict=False):
                    for kind, line in (("paper", "-"), ("momentum-aware", "--")):
                        if momentum == 0 and kind != "paper":
                            continue  # the two coincide
                        rows = part[(part["lr"] == lr) & (part["weights"] == kind)].groupby("k")[measure]
                        label = rf"$\eta$ = {lr:g}, {kind}" if momentum else rf"$\eta$ = {lr:g}"
                        axis.plot(rows.mean(), line, color=colour, marker="o", ms=4, label=label)
                        axis.fill_between(rows.mean().index, rows.min(), rows.max(), color=colour, alpha=0.12)
                axis.set_xscale("log")
                axis.set_xticks(sorted(errors["k"].unique()), sorted(errors["k"].unique()))
                axis.minorticks_off()
            axes[0, column].set_title(rf"momentum $\mu$ = {momentum:g}")
            axes[1, column].set_xlabel("look-ahead steps k")
            axes[1, column].legend(fontsize=8, loc="lower left")
        axes[0, 0].set_ylabel("relative error to exact")
        axes[1, 0].set_ylabel("cosine to exact")
    return figure
