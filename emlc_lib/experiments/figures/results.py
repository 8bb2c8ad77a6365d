"""Figures of many runs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ...methods import METHODS
from ...runtime.palette import BLUE, ORANGE
from ..information import KINDS
from .style import look, method_name, style


def information_over_noise(accuracies: pd.DataFrame, caption: str = "") -> Figure:
    """What each kind of information is worth over the rate of symmetric noise: means, and standard deviations.

    Args:
        accuracies: :func:`emlc_lib.experiments.information.by_information`.
    """
    grouped = accuracies.groupby(level="noise")
    with style():
        figure, axis = plt.subplots(figsize=(9.5, 4.6))
        for i, (kind, (method, k)) in enumerate(KINDS.items()):
            mean, spread = grouped[kind].mean().dropna(), grouped[kind].std().dropna()
            aside = 0.3 * (i - (len(KINDS) - 1) / 2)  # side by side, in percent of noise
            colour, marker = look(method_name(method, k))
            axis.errorbar(
                100 * mean.index + aside, mean, spread.reindex(mean.index), color=colour, marker=marker, capsize=3,
                ls="-" if METHODS[method].sees_noise else "--", label=f"{kind}\n({method_name(method, k)})",
            )  # fmt: skip
        axis.set(xlabel="symmetric noise, %", ylabel="test accuracy, %", xlim=(0, 100))
        axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure


def gains_over_starts(gains: pd.DataFrame, caption: str = "") -> Figure:
    """What EMLC gains over the linear probe of its start, a panel per noise rate; bars are 95 % intervals.

    Args:
        gains: :func:`emlc_lib.experiments.starts.gains`. A start of another network than the last one's is hollow.
    """
    noises = sorted(gains["noise"].unique(), reverse=True)
    usual = gains["model"].iloc[-1]
    with style():
        figure, axes = plt.subplots(
            1, len(noises), figsize=(5.2 * len(noises), 4.6), sharex=True, sharey=True, squeeze=False
        )
        for axis, noise in zip(axes[0], noises, strict=True):
            part = gains[gains["noise"] == noise]
            for i, (other, rows) in enumerate(part.groupby("other", sort=False)):
                colour, (_, marker) = (BLUE, ORANGE)[i], look(method_name(other, 1))
                same = rows[rows["model"] == usual]
                axis.plot(same["linear"] + 0.3 * i, same["difference"], color=colour)
                label = f"minus {method_name(other, 1)}"
                for row in rows.to_dict("records"):
                    at = row["linear"] + 0.3 * i, row["difference"], row["±"]
                    face = colour if row["model"] == usual else "white"
                    axis.errorbar(*at, color=colour, marker=marker, capsize=3, mfc=face, label=label)
                    label = None
            for name, rows in part.groupby("name", sort=False):
                at, down = (rows["linear"].iloc[0] - 0.4, 0.02), axis.get_xaxis_transform()
                axis.text(
                    *at, name, rotation=90, fontsize=8, color="0.3", ha="right", transform=down, in_layout=False
                )
            axis.axhline(0, color="grey", lw=1)
            axis.set(title=f"{100 * noise:g} % noise", xlabel="linear probe of the start, %")
            axis.margins(x=0.1, y=0.3)
        axes[0, 0].set_ylabel("EMLC's test accuracy minus the other's, points")
        axes[0, -1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure


def accuracy_over_noise(table: pd.DataFrame, caption: str = "") -> Figure:
    """Mean test accuracy with the standard deviation over seeds, by method, over the noise settings.

    Args:
        table: :func:`emlc_lib.experiments.tables.run_table`. What does not see the noise is a line across.
    """
    sees_noise = table["method"].map(lambda method: METHODS[method].sees_noise)
    settings = table[sees_noise][["noise_type", "noise"]].drop_duplicates()
    settings = settings.sort_values(["noise_type", "noise"], ascending=[False, True]).reset_index(drop=True)
    with style():
        figure, axis = plt.subplots(figsize=(10, 4.2))
        drawn = [key for key, _ in table[sees_noise].groupby(["method", "k"], sort=False)]
        for (method, k), part in table.groupby(["method", "k"], sort=False):
            name = method_name(method, k)
            colour, marker = look(name)
            accuracy = 100 * part["test_accuracy"]
            if not METHODS[method].sees_noise:
                mean, spread = accuracy.mean(), accuracy.std()
                axis.axhline(mean, color=colour, ls="--", label=name)
                axis.axhspan(mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
                continue
            merged = settings.reset_index().merge(part, on=["noise_type", "noise"])
            groups = (100 * merged.set_index("index")["test_accuracy"]).groupby(level=0)
            aside = min(0.16, 0.8 / len(drawn)) * (drawn.index((method, k)) - (len(drawn) - 1) / 2)  # side by side
            axis.errorbar(
                groups.mean().index + aside, groups.mean(), groups.std(), color=colour, marker=marker, ls="", ms=8,
                capsize=4, label=name,
            )  # fmt: skip
        labels = [f"{row.noise_type}\n{100 * row.noise:g} %" for row in settings.itertuples()]
        axis.set_xticks(range(len(settings)), labels)
        axis.set_xlim(-0.5, max(1, len(settings)) - 0.5)
        axis.set_ylabel("test accuracy, %")
        figure.suptitle(caption, fontsize=9)
        axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
