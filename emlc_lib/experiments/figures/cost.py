"""Figures of time and memory."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...runtime.palette import BLUE, GREEN, GREY, ORANGE, PINK
from ..costs import over_k
from .style import style


def cost_of_steps(cost: pd.DataFrame) -> Figure:
    """Whole steps and the parts of one, in plain SGD steps: medians with quartiles.

    Args:
        cost: the CSV of ``benchmarks.step_cost``; parts are the variants whose name begins with spaces.
    """
    is_part = cost["variant"].str.startswith(" ")
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6))
        _bars(left, cost[~is_part], "whole steps, per noisy batch")
        _bars(right, cost[is_part], "parts of a k = 1 step, and alternatives")
        _told(figure, cost)
    return figure


def cost_of_methods(cost: pd.DataFrame) -> Figure:
    """Whole steps of the methods, in plain SGD steps: medians with quartiles.

    Args:
        cost: the CSV of ``benchmarks.step_cost --methods``.
    """
    with style():
        figure, axis = plt.subplots(figsize=(7.5, 3.8))
        _bars(axis, cost, "whole steps, per noisy batch")
        _told(figure, cost)
    return figure


def _bars(axis: plt.Axes, rows: pd.DataFrame, title: str) -> None:
    names = rows["variant"].str.strip()
    errors = [rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]]
    ours = ~names.str.contains("through|instead|torch.func|plain|double backward")
    colours = np.where(ours, BLUE, GREY)
    axis.barh(names, rows["ratio"], xerr=np.clip(errors, 0, None), color=colours, error_kw={"lw": 1})
    for y, (value, high) in enumerate(zip(rows["ratio"], rows["high"], strict=True)):
        axis.text(max(value, high) + 0.02 * rows["high"].max(), y, f"{value:.2f}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.18 * rows["high"].max())
    axis.set(title=title, xlabel="plain SGD steps")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", labelsize=9)


def _told(figure: Figure, cost: pd.DataFrame) -> None:
    one = cost.iloc[0]
    what = f"{one.model}, {one.noisy} noisy + {one.clean} clean images, {one.repeats} rounds"
    where = f"{one.hardware}, {one.threads} threads, torch {one.torch}"
    figure.text(0.5, -0.02, f"{what}; {where}", ha="center", va="top", fontsize=9)


def cost_growth(growth: pd.DataFrame) -> Figure:
    """Time per noisy batch and peak memory over k.

    Args:
        growth: the CSV of ``benchmarks.step_cost --ks``; variants are named ``NAME k=K``.
    """
    rows = over_k(growth)
    looks = dict(zip(rows["how"].unique(), [(BLUE, "o"), (GREEN, "s"), (PINK, "^"), (ORANGE, "v")], strict=False))
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
        for how, (colour, marker) in looks.items():
            part = rows[rows["how"] == how].sort_values("k")
            left.plot(part["k"], part["ratio"], color=colour, marker=marker, label=how)
            if part["repeats"].min() >= 4:  # quartiles of fewer rounds lie beyond all of them
                left.fill_between(part["k"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
            right.plot(part["k"], part["peak_MiB"], color=colour, marker=marker, label=how)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(sorted(rows["k"].unique()), [f"{k:g}" for k in sorted(rows["k"].unique())])
            axis.minorticks_off()
            axis.set_xlabel("look-ahead steps k")
            axis.set_ylim(bottom=0)
        left.set_ylabel("plain SGD steps per noisy batch")
        right.set_ylabel("memory beyond the networks, MiB")
        right.legend(fontsize=9)
        _told(figure, growth)
    return figure


def data_rates(rates: pd.DataFrame) -> Figure:
    """Images per second of each pipeline by batch size: medians with quartiles, on a logarithmic axis."""
    pipelines = list(rates["pipeline"].unique())
    with style():
        figure, axes = plt.subplots(1, rates["batch"].nunique(), figsize=(11, 2.8), sharex=True, sharey=True)
        for axis, (batch, rows) in zip(np.atleast_1d(axes), rates.groupby("batch"), strict=True):
            for (how, part), colour, marker in zip(
                rows.groupby("how", sort=False), (BLUE, GREY), ("o", "s"), strict=True
            ):
                middle = part["images_per_second"]
                errors = np.clip([middle - part["low"], part["high"] - middle], 0, None)
                places = [pipelines.index(name) for name in part["pipeline"]]
                axis.errorbar(
                    middle, places, xerr=errors, color=colour, marker=marker, ls="", capsize=3, label=how
                )
            axis.set(title=f"batches of {batch}", xlabel="images per second (log)", xscale="log")
            low, high = rates["low"].min(), rates["high"].max()
            ticks = [t for e in range(1, 8) for t in (10**e, 3 * 10**e) if low <= t <= high]
            axis.set_xticks(ticks, [f"{t:,}" for t in ticks])
            axis.minorticks_off()
            axis.set_yticks(range(len(pipelines)), pipelines)
        np.atleast_1d(axes)[0].invert_yaxis()
        np.atleast_1d(axes)[-1].legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        one = rates.iloc[0]
        where = f"{one.hardware}, {one.threads} threads, torch {one.torch}; medians and quartiles"
        figure.text(0.5, -0.02, where, ha="center", va="top", fontsize=9)
    return figure
