"""What the explorers of :mod:`emlc_lib.experiments.explorers` draw."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...runtime.palette import BLUE, GREEN, GREY, ORANGE
from ..label_record import LabelRecord
from ..statistics import paired
from .style import style


def label_sheet(record: LabelRecord, moment: int, chosen: Sequence[int], caption: str = "") -> Figure:
    """Images with what the teacher says of their labels, and what the student would have wanted.

    Below each image: the prediction y^ (outlined) and the corrected label q (filled), the true class in blue and a
    wrong given one in orange; below that the gain of each class (:meth:`LabelRecord.gains`), scaled to the largest
    of the image.

    Args:
        moment: of the record, from 0. chosen: indices of at most eight images.
    """
    # Places by hand: laying out so many axes would keep a control waiting.
    with style(), plt.rc_context({"figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(10, 7))
        figure.suptitle(caption, fontsize=10, y=0.985)
        if not len(chosen):
            figure.text(0.5, 0.5, "no image is like that at this moment", ha="center")
            return figure
        soft, fate, gains = record.soft_labels(moment), record.fate(moment), record.gains(moment)
        ratios = [1.25, 0.9, 0.6]
        places = {"left": 0.04, "right": 0.99, "top": 0.9, "bottom": 0.09, "hspace": 0.15, "wspace": 0.08}
        axes = figure.subplots(7, 4, height_ratios=[*ratios, 0.9, *ratios], gridspec_kw=places)
        for axis in axes.flat:
            axis.set_axis_off()
        for place, i in enumerate(chosen[:8]):
            top = 4 * (place // 4)  # a row is left between the two
            picture, labels, wish = axes[top : top + 3, place % 4]
            _picture(picture, record.images[i])
            given, true = record.classes[record.given[i]], record.classes[record.true[i]]
            picture.set_title(
                f"given {given}, is {true}\n{fate[i]}, gate {record.gates[moment, i]:.2f}", fontsize=8
            )
            colours = _colours(len(record.classes), record.given[i], record.true[i])
            labels.bar(range(len(colours)), soft[i], color=colours)
            labels.bar(range(len(colours)), record.probabilities[moment, i], fill=False, edgecolor="0.2", lw=0.8)
            labels.set(ylim=(0, 1.02), xticks=[], yticks=[])
            wish.bar(range(len(colours)), gains[i] / max(np.abs(gains[i]).max(), 1e-12), color=colours)
            wish.axhline(0, color="0.3", lw=0.8)
            wish.set(ylim=(-1.05, 1.05), yticks=[])
            _class_ticks(wish, record.classes)
            if place % 4 == 0:
                labels.set_ylabel("q, $\\hat{y}$", fontsize=8)
                wish.set_ylabel("gain", fontsize=8)
            for axis in (labels, wish):
                axis.set_axis_on()
                axis.grid(False)
    return figure


def counterfactual_gates(
    image: np.ndarray, classes: Sequence[str], probabilities: np.ndarray, gates: np.ndarray, given: int, true: int
) -> Figure:
    """What the teacher would make of an image under every label that it might have been given.

    Args:
        image: (h, w) or (h, w, 3) uint8. probabilities: (C,) its prediction.
        gates: (C,), that of each class if it were the given label. given, true: classes.
    """
    colours = _colours(len(classes), given, true)
    corrected = gates[given] * np.eye(len(classes))[given] + (1 - gates[given]) * probabilities
    with style():
        figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), width_ratios=(0.9, 1.2, 1.2, 1.2))
        _picture(axes[0], image)
        axes[0].set_title(f"is {classes[true]}, given {classes[given]}", fontsize=10)
        panels = {
            "prediction $\\hat{y}$": probabilities,
            "gate, if given this label": gates,
            f"corrected q, gate {gates[given]:.2f}": corrected,
        }
        for axis, (title, values) in zip(axes[1:], panels.items(), strict=True):
            axis.bar(range(len(classes)), values, color=colours)
            axis.set(ylim=(0, 1.02), title=title)
            axis.title.set_fontsize(10)
            axis.grid(False, axis="x")
            _class_ticks(axis, classes)
    return figure


def step_weights(weights: Mapping[str, Sequence[float]], errors: pd.DataFrame) -> Figure:
    """The weights of k steps, and how far the meta-gradients that they make are from the exact one.

    Args:
        weights: by kind, oldest step first.
        errors: by kind, columns ``relative_error``, ``cosine`` and ``scale``.
    """
    colours = dict(zip(weights, (BLUE, ORANGE), strict=False))
    k = len(next(iter(weights.values())))
    with style():
        figure, axes = plt.subplots(1, 4, figsize=(11, 3), width_ratios=(2, 1, 1, 1))
        for i, (kind, values) in enumerate(weights.items()):
            places = np.arange(1 - k, 1) + 0.2 * (2 * i - 1)
            axes[0].bar(places, values, width=0.4, color=colours[kind], label=kind)
        axes[0].set(xlabel="step, 0 is the newest", title="weight of the step")
        axes[0].legend(fontsize=8)
        for axis, (measure, title) in zip(
            axes[1:],
            {"relative_error": "relative error", "cosine": "cosine", "scale": "length, over exact"}.items(),
            strict=True,
        ):
            bars = axis.bar(range(len(errors)), errors[measure], color=[colours[kind] for kind in errors.index])
            axis.bar_label(bars, fmt="%.3f", fontsize=9)
            axis.set(xticks=range(len(errors)), title=title, ylim=(0, 1.18 * max(1, errors[measure].max())))
            axis.set_xticklabels(errors.index, fontsize=8)
        for axis in axes:
            axis.title.set_fontsize(10)
    return figure


def paired_seeds(first: pd.Series, second: pd.Series, names: tuple[str, str], caption: str = "") -> Figure:
    """Two methods seed by seed, their differences, and the 95 % interval of the mean difference.

    Args:
        first, second: accuracies in percent by seed. names: of the two.
    """
    both = pd.concat([first, second], axis=1, keys=("first", "second")).dropna()
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        figure.suptitle(caption, fontsize=9)
        if both.empty:
            figure.text(0.5, 0.5, "no seed has both", ha="center")
            return figure
        for seed, row in both.iterrows():
            left.plot([0, 1], row, color=GREY, marker="o", mfc=BLUE, mec=BLUE)
            left.annotate(f"{seed}", (1, row["second"]), xytext=(6, 0), textcoords="offset points", fontsize=8)
        left.set(xticks=[0, 1], xticklabels=names, xlim=(-0.3, 1.3), ylabel="test accuracy, %")
        found = paired(first, second)
        difference = both["first"] - both["second"]
        right.scatter(difference, np.zeros(len(difference)), color=BLUE, zorder=3)
        if found.n > 1:
            right.errorbar(found.mean, 0.25, xerr=found.half, color=GREEN, marker="s", capsize=4)
        right.axvline(0, color="0.3", lw=1)
        right.set(ylim=(-0.4, 0.7), yticks=[], xlabel=f"{names[0]} minus {names[1]}, points")
        seeds = None if found.clear else found.seeds_to_decide
        decided = f"; about {seeds} seeds would decide" if seeds else ""
        right.set_title(f"{found.interval}, n = {found.n}: {found.verdict}{decided}", fontsize=10)
    return figure


def _picture(axis: Axes, image: np.ndarray) -> None:
    axis.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
    axis.set_axis_off()


def _colours(n: int, given: int, true: int) -> list[str]:
    colours = [GREY] * n
    colours[given] = ORANGE
    colours[true] = BLUE
    return colours


def _class_ticks(axis: Axes, classes: Sequence[str]) -> None:
    """Names below the bars where there are few classes."""
    if len(classes) <= 20:
        long = max(len(str(name)) for name in classes) > 2
        axis.set_xticks(range(len(classes)), classes, rotation=90 if long else 0, fontsize=7)
    else:
        axis.set_xticks([])
