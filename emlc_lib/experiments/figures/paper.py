"""The paper's Figures 1, 4, 5 and 6, drawn anew, and the effect of single options.

The ``caption`` of each is written above it: :func:`emlc_lib.experiments.tables.caption` says at what scale it was
made.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...runtime.palette import BLUE, GREEN, GREY, ORANGE, PINK
from .style import look, seed_count, style


def _band(axis: Axes, part: pd.DataFrame, x: str, y: str, **look) -> None:
    """The mean over seeds as a line and their range as a band."""
    grouped = part.groupby(x)[y].agg(["mean", "min", "max"]).dropna()
    axis.plot(grouped.index, grouped["mean"], **look)
    axis.fill_between(grouped.index, grouped["min"], grouped["max"], color=look["color"], alpha=0.12, lw=0)


def label_recovery(
    curves: pd.DataFrame, given: Mapping[float, float], caption: str = "", *, trivial: float | None = None
) -> Figure:
    """Figure 1: the share of labels that are right after correction; all labels solid, wrong ones dashed.

    Args:
        curves: :func:`emlc_lib.experiments.studies.curve_table`; lines are means over seeds, bands their range.
        given: by noise rate, each a panel: the share of labels that are right before correction.
        trivial: that where each is replaced by what a network says that learned from the clean labels alone.
    """
    curves = curves.assign(all_=100 * curves["recovery_all"], wrong=100 * curves["recovery_wrong"])
    with style():
        figure, axes = plt.subplots(1, len(given), figsize=(2.5 + 5 * len(given), 4.4), sharey=True, squeeze=False)
        for axis, (noise, right) in zip(axes[0], given.items(), strict=True):
            for name, part in curves[curves["noise"] == noise].groupby("name", sort=False):
                colour = look(name)[0]
                _band(axis, part, "epoch", "all_", color=colour, label=name)
                _band(axis, part, "epoch", "wrong", color=colour, ls="--")
            axis.axhline(100 * right, color=GREY, ls=":", label="right as given")
            if trivial is not None:
                axis.axhline(100 * trivial, color=GREY, ls="-.", label="predicted from clean labels alone")
            axis.plot([], [], "-", color="0.3", label="all labels")
            axis.plot([], [], "--", color="0.3", label="wrong labels")
            axis.set(xlabel="epoch", ylabel="labels recovered, %", title=f"{100 * noise:g} % noise")
            axis.set(xlim=(0, None), ylim=(0, 100))
        axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure


def meta_losses(curves: pd.DataFrame, caption: str = "") -> Figure:
    """Figure 5: the student's loss on clean batches over iterations, on a logarithmic scale.

    Args:
        curves: :func:`emlc_lib.experiments.studies.curve_table`; lines are means over seeds, bands their range.
    """
    with style():
        figure, axis = plt.subplots(figsize=(7.5, 4.4))
        for name, part in curves.dropna(subset="meta_loss").groupby("name", sort=False):
            _band(axis, part, "step", "meta_loss", color=look(name)[0], label=name)
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if low <= t <= high]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set(
            xlabel="iteration (student steps)",
            ylabel="student's loss on the clean batch, nats (log)",
            xlim=(0, None),
        )
        axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure


def embedding_maps(
    points: pd.DataFrame,
    captions: Mapping[str, str],
    caption: str = "",
    rows: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Figure 4: two-dimensional maps of embeddings side by side, coloured by true class.

    Args:
        points: columns ``name``, ``label``, ``class``, ``x``, ``y``.
        captions: what stands below each map, by name.
        rows: the names in rows of equal length, where one row is too wide; one that is in several rows at the same
            place has a single map there.
    """
    classes = points.groupby("label")["class"].first()
    colours = plt.get_cmap("tab10" if len(classes) <= 10 else "tab20")
    groups = dict(list(points.groupby("name", sort=False)))
    rows = rows or [list(groups)]
    # Squares, or a map that spans rows would be drawn out, with room between a caption and the next row's title.
    width, height, aspect = (4.6, 4.9, None) if len(rows) == 1 else (3.5, 4.2, 1)
    with style():
        figure, axes = plt.subplot_mosaic(rows, figsize=(width * len(rows[0]), height * len(rows)))
        for name, axis in axes.items():
            part = groups[name]
            for c, label in classes.items():
                chosen = part[part["label"] == c]
                axis.scatter(chosen["x"], chosen["y"], s=7, color=colours(c % colours.N), alpha=0.6, lw=0)
                # Colours alone do not name ten classes for every eye: the name stands at the class's median.
                box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": colours(c % colours.N), "alpha": 0.85}
                place = chosen["x"].median(), chosen["y"].median()
                axis.annotate(label, place, ha="center", va="center", fontsize=9, bbox=box)
            axis.set(title=name, xticks=[], yticks=[])
            axis.set_xlabel(captions[name], fontsize=None if len(rows) == 1 else 9)
            axis.set_box_aspect(aspect)
            axis.grid(False)
        figure.suptitle(caption, fontsize=9)
    return figure


def accuracy_over_k(table: pd.DataFrame, caption: str = "") -> Figure:
    """Figure 6: test accuracy over the look-ahead steps, by the weights of the multi-step gradient.

    Args:
        table: columns ``noise``, ``meta_weights``, ``k``, ``seed``, ``test_accuracy`` in [0, 1]; a panel per
            noise rate; means, and standard deviations where there are several seeds. k = 1, where all weights are
            the same, belongs to every line.
    """
    panels = table.groupby("noise")
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(2.5 + 5 * len(panels), 4.4), squeeze=False)
        for axis, (noise, part) in zip(axes[0], panels, strict=True):
            _over_k(axis, part)
            axis.set(xlabel="look-ahead steps k", ylabel="test accuracy, %", title=f"{100 * noise:g} % noise")
        figure.suptitle(caption, fontsize=9)
    return figure


def _over_k(axis: Axes, table: pd.DataFrame) -> None:
    looks = {"paper": (BLUE, "o"), "momentum": (ORANGE, "s"), "exact": (GREEN, "^")}
    first = table[table["k"] == 1]
    for i, (weights, part) in enumerate(table.groupby("meta_weights", sort=False)):
        colour, marker = looks.get(weights, (PINK, "x"))
        part = pd.concat([first, part[part["k"] > 1]])
        grouped = (100 * part.set_index("k")["test_accuracy"]).groupby(level=0).agg(["mean", "std", "size"])
        moved = grouped.index * 1.03 ** (i - 1)  # side by side, so that bars do not hide each other
        axis.errorbar(
            moved, grouped["mean"], grouped["std"].fillna(0), color=colour, marker=marker, capsize=3,
            label=f"{weights} ({seed_count(grouped['size'])})",
        )  # fmt: skip
    ks = sorted(table["k"].unique())
    axis.set_xscale("log")
    axis.set_xticks(ks, [f"{k:g}" for k in ks])
    axis.minorticks_off()
    low, high = axis.get_ylim()
    middle, half = (low + high) / 2, max(5, (high - low) / 2)  # one seed's noise is not to fill the axis
    axis.set_ylim(middle - half, middle + half)
    axis.legend(title="weights of the steps", fontsize=9, title_fontsize=9)


def option_effects(summary: pd.DataFrame, caption: str = "") -> Figure:
    """What options change: test accuracy against a baseline, paired by seed with 95 % intervals, and recovery.

    Args:
        summary: :func:`emlc_lib.experiments.studies.summarise_study` with a baseline, names as index. Differences
            without an interval, of one seed, are hollow; in brackets the number of seeds.
    """
    places = range(len(summary))
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.42 * len(summary) + 1.2), sharey=True)
        for place, difference, half in zip(places, summary["difference"], summary["±"], strict=True):
            look = {"color": BLUE, "marker": "o", "capsize": 3}
            if pd.isna(half):
                left.errorbar(difference, place, mfc="white", **look)
            else:
                left.errorbar(difference, place, xerr=half, **look)
        left.axvline(0, color=GREY, lw=1, zorder=0)
        left.set_yticks(places, [f"{name} ({n})" for name, n in summary["pairs"].items()])
        left.invert_yaxis()
        left.set_xlabel("accuracy, points over the baseline")
        right.plot(summary["recovery"], places, color=GREEN, marker="s", ls="")
        right.set(xlabel="labels right, %", xlim=(0, 100))
        figure.suptitle(caption, fontsize=9)
    return figure


def gradient_error_curves(errors: pd.DataFrame, caption: str = "") -> Figure:
    """Cosine and length of approximate meta-gradients against the exact one, over training.

    Args:
        errors: :func:`emlc_lib.experiments.gradient_errors.gradient_errors` of one or more seeds.
    """
    looks = {"paper": BLUE, "momentum-aware": ORANGE, "reversed": PINK, "released": GREEN}
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True)
        for kind, part in errors.groupby("kind", sort=False):
            # Dividing by k turns nothing: the two last have the same cosine.
            look = {
                "color": looks[kind],
                "marker": "o",
                "ms": 4,
                "label": kind,
                "ls": "--" if kind == "released" else "-",
            }
            _band(axes[0], part, "step", "cosine", **look)
            _band(axes[1], part, "step", "scale", **look)
        axes[0].set(xlabel="student step", ylabel="cosine to the exact meta-gradient")
        axes[1].axhline(1, color=GREY, ls=":", label="exact")
        axes[1].set(xlabel="student step", ylabel="length, over the exact one's", yscale="log")
        axes[1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure
