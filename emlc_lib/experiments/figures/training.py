"""Figures of one training."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...runtime.palette import BLUE, GREY, ORANGE
from .style import style


def training_curves(epochs: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy, label recovery (Figure 1: all labels solid, wrong ones dashed) and gate over epochs.

    Args:
        epochs: one run's log, one row per epoch; recovery and gate are drawn where they are known.
    """
    known = epochs.dropna(axis="columns", how="all")  # of real noise nobody knows the true labels
    corrects, gated = "recovery_all" in known, "gate_right" in known
    panels = 1 + corrects + gated
    with style():
        figure, axes = plt.subplots(1, panels, figsize=(1 + 4 * panels, 3.6), squeeze=False)
        axes = axes[0]
        x = epochs["epoch"]
        axes[0].plot(x, 100 * epochs["student_test_accuracy"], color=BLUE, marker="o", ms=4, label="student, test")
        if "teacher_test_accuracy" in epochs:
            axes[0].plot(
                x, 100 * epochs["teacher_test_accuracy"], color=ORANGE, marker="s", ms=4, label="teacher, test"
            )
        axes[0].plot(x, 100 * epochs["student_clean_accuracy"], color=GREY, ls=":", label="student, clean set")
        axes[0].set(ylabel="accuracy, %")
        if corrects:
            axes[1].plot(x, 100 * epochs["recovery_all"], color=BLUE, label="all labels")
            axes[1].plot(x, 100 * epochs["recovery_wrong"], color=BLUE, ls="--", label="wrong labels")
            axes[1].set(ylabel="labels recovered, %", ylim=(0, 100))
        if gated:
            axes[2].plot(x, epochs["gate_right"], color=BLUE, label="right labels")
            axes[2].plot(x, epochs["gate_wrong"], color=ORANGE, ls="--", label="wrong labels")
            axes[2].set(ylabel="mean gate $w_i$", ylim=(0, 1))
        for axis in axes:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(fontsize=9)
        figure.suptitle(title, fontsize=11)
    return figure


def pretraining_loss(epochs: pd.DataFrame, chance: float) -> Figure:
    """SimCLR's mean loss per epoch; ``chance`` is the loss of a network that tells no views apart."""
    with style():
        figure, axis = plt.subplots(figsize=(6, 3.4))
        axis.plot(epochs["epoch"], epochs["loss"], color=BLUE, marker="o" if len(epochs) < 20 else None, ms=4)
        axis.axhline(chance, color=GREY, ls=":", label="all views alike, log(2n - 1)")
        axis.set(xlabel="epoch", ylabel="NT-Xent")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    return figure


def pretraining_curves(curves: pd.DataFrame, caption: str = "") -> Figure:
    """SimCLR over the time that it took: its loss, and what two probes know of the classes.

    Args:
        curves: ``dataset``, ``epoch``, ``minutes`` from the beginning, ``loss``, and ``linear`` and ``knn``, the
            accuracies in [0, 1] of the probes, empty where they were not taken.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for (name, part), colour in zip(curves.groupby("dataset", sort=False), (BLUE, ORANGE), strict=False):
            left.plot(part["minutes"], part["loss"], color=colour, label=name)
            probed = part.dropna(subset="knn")
            for probe, line in (("linear", "-"), ("knn", ":")):
                right.plot(
                    probed["minutes"],
                    100 * probed[probe],
                    color=colour,
                    marker="o",
                    ls=line,
                    label=f"{name}, {probe}",
                )
            for row in probed.itertuples():
                right.annotate(
                    f"{row.epoch}",
                    (row.minutes, 100 * row.linear),
                    (-4, 7),
                    textcoords="offset points",
                    fontsize=9,
                )
        left.set(xlabel="minutes", ylabel="NT-Xent")
        right.set(xlabel="minutes (above the points: epochs)", ylabel="probe, %")
        right.margins(y=0.12)
        left.legend()
        right.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle(caption, fontsize=9)
    return figure


def learning_rate_plans(plans: Mapping[str, np.ndarray], steps_per_epoch: int) -> Figure:
    """Learning rates over a training, on a logarithmic scale; a later plan is thinner and over the earlier ones.

    Args:
        plans: up to three; by name, the learning rate at each step (T,).
        steps_per_epoch: for the axis.
    """
    with style():
        figure, axis = plt.subplots(figsize=(7, 3.2))
        for (name, rates), colour, width in zip(plans.items(), (GREY, ORANGE, BLUE), (7, 4.5, 2), strict=False):
            edges = np.arange(len(rates) + 1) / steps_per_epoch
            axis.stairs(rates, edges, baseline=None, color=colour, lw=width, label=name)
        axis.set(xlabel="epoch", ylabel="learning rate", yscale="log")
        axis.legend()
    return figure


def image_strip(images: np.ndarray) -> Figure:
    """Images in rows and columns, (rows, columns, h, w) or (rows, columns, h, w, 3), without any gap."""
    rows, columns = images.shape[:2]
    grey = images.ndim == 4
    joined = np.concatenate([np.concatenate(list(row), axis=1) for row in images], axis=0)
    with style():
        figure, axis = plt.subplots(figsize=(1.1 * columns, 1.1 * rows))
        axis.imshow(joined, cmap="gray_r" if grey else None)
        axis.set_axis_off()
    return figure


def nearest_neighbours(
    queries: np.ndarray, query_labels: np.ndarray, found: np.ndarray, found_labels: np.ndarray,
    classes: Sequence[str],
) -> Figure:  # fmt: skip
    """One row per query: the image, then its nearest neighbours; those of another class are framed.

    Args:
        queries: (n, h, w) or (n, h, w, 3) images; query_labels: (n,).
        found: (n, k, ...) images of the neighbours, nearest first; found_labels: (n, k).
    """
    n, k = found_labels.shape
    with style():
        figure, axes = plt.subplots(n, k + 1, figsize=(1.15 * (k + 1), 1.35 * n), squeeze=False)
        for i in range(n):
            for j in range(k + 1):
                axis = axes[i, j]
                image = found[i, j - 1] if j else queries[i]
                label = found_labels[i, j - 1] if j else query_labels[i]
                axis.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.set_title(classes[label], fontsize=8, pad=3, weight="bold" if j == 0 else "normal")
                wrong = label != query_labels[i]
                for spine in axis.spines.values():
                    spine.set(visible=bool(wrong), edgecolor=ORANGE, linewidth=3)
    return figure
