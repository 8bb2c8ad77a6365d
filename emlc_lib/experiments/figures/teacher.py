"""Figures of label noise and of the teacher."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ...runtime.palette import BLUE, GREEN, GREY, ORANGE, PINK
from .style import style


def transition_matrices(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Transition matrices side by side, rows true and columns noisy classes, entries in percent."""
    with style():
        figure, axes = plt.subplots(1, len(matrices), figsize=(5.4 * len(matrices), 5))
        for axis, (title, matrix) in zip(np.atleast_1d(axes), matrices.items(), strict=True):
            labels = np.where(matrix >= 0.005, np.round(100 * matrix).astype(int).astype(str), "")
            sns.heatmap(
                matrix, ax=axis, annot=labels, fmt="", vmin=0, vmax=1, cmap="Blues", cbar=False, square=True,
                xticklabels=classes, yticklabels=classes, linewidths=0.5, annot_kws={"fontsize": 8},
            )  # fmt: skip
            axis.set(title=title, xlabel="noisy label", ylabel="true label")
            axis.tick_params(axis="x", rotation=90)
    return figure


def gate_distributions(gate: np.ndarray, wrong: np.ndarray) -> Figure:
    """How the gate w_i is distributed over right and over wrong given labels, both (n,)."""
    bins = np.linspace(0, 1, 26)
    with style():
        figure, axis = plt.subplots(figsize=(6, 3.4))
        for values, colour, name in ((gate[~wrong], BLUE, "right"), (gate[wrong], ORANGE, "wrong")):
            weights = np.full(len(values), 100 / max(len(values), 1))
            label = f"given label {name} (n = {len(values)})"
            axis.hist(values, bins, weights=weights, alpha=0.35, color=colour, label=label)
            axis.hist(values, bins, weights=weights, histtype="step", color=colour, lw=1.8)
        axis.set(xlabel="gate $w_i$, the weight of the given label", ylabel="% of the samples", xlim=(0, 1))
        axis.legend()
    return figure


def teacher_outputs(
    images: np.ndarray, given: np.ndarray, true: np.ndarray, soft_labels: np.ndarray, gate: np.ndarray,
    classes: Sequence[str],
) -> Figure:  # fmt: skip
    """Figure 3, right: the teacher's soft labels for a few samples.

    Args:
        images: (n, h, w) grey values. given, true: (n,) labels. soft_labels: (n, C). gate: (n,).
    """
    n = len(images)
    with style():
        # About as wide as a notebook's page, where a wider figure would be shrunk and its text with it.
        figure, axes = plt.subplots(
            2, n, figsize=(1.35 * n, 3.4), height_ratios=(1, 1.2), sharey="row", squeeze=False
        )  # fmt: skip
        for i in range(n):
            top, bottom = axes[:, i]
            top.imshow(images[i], cmap="gray_r")
            top.set_axis_off()
            verdict = "right" if given[i] == true[i] else "wrong"
            top.set_title(f"given {classes[given[i]]} ({verdict})", fontsize=9)
            colours = [GREY] * len(classes)
            colours[given[i]] = ORANGE
            colours[true[i]] = BLUE
            bottom.bar(range(len(classes)), soft_labels[i], color=colours)
            bottom.set(ylim=(0, 1), xticks=range(len(classes)), xticklabels=classes)
            bottom.set_xlabel(f"gate {gate[i]:.2f}", fontsize=10)
            bottom.tick_params(labelsize=8)
            bottom.grid(visible=False, axis="x")
        axes[1, 0].set_ylabel("$q(y \\mid x, \\tilde{y})$")
        figure.suptitle("soft labels: true class blue, wrong given label orange", fontsize=11)
    return figure


def teacher_architecture() -> Figure:
    """Figure 3, left: the teacher's parts, drawn anew."""
    boxes = {
        "image": (0.0, 2.2, "image $x_i$", GREY),
        "label": (0.0, 0.4, "given label $\\tilde{y}_i$", GREY),
        "features": (2.1, 2.2, "feature\nextractor", BLUE),
        "embedding": (2.1, 0.4, "label\nembedding", GREEN),
        "classifier": (4.2, 2.2, "classifier\n+ softmax", BLUE),
        "mlp": (4.2, 1.1, "MLP (128)\n+ sigmoid", PINK),
        "mix": (6.5, 1.1, "$w_i\\,\\mathbf{1}_{\\tilde{y}_i}+(1-w_i)\\,\\hat{y}_i$", ORANGE),
    }
    arrows = [
        ("image", "features", ""), ("features", "classifier", "$h_i$"), ("features", "mlp", "$h_i$"),
        ("label", "embedding", ""), ("embedding", "mlp", "$z_i$"), ("classifier", "mix", "$\\hat{y}_i$"),
        ("mlp", "mix", "$w_i$"), ("label", "mix", ""),
    ]  # fmt: skip
    width, height = 1.5, 0.72
    with style(), plt.rc_context({"figure.constrained_layout.use": False}):
        figure, axis = plt.subplots(figsize=(9, 3.6))
        for x, y, text, colour in boxes.values():
            wide = width * (1.55 if text.startswith("$w_i") else 1)
            axis.add_patch(
                FancyBboxPatch((x, y), wide, height, "round,pad=0.06", fc=colour, ec=colour, alpha=0.22)
            )
            axis.text(x + wide / 2, y + height / 2, text, ha="center", va="center", fontsize=10)
        for start, end, text in arrows:
            x0, y0 = boxes[start][0] + width + 0.08, boxes[start][1] + height / 2
            x1, y1 = boxes[end][0] - 0.08, boxes[end][1] + height / 2
            if (start, end) == ("label", "mix"):  # below everything else
                x0, y0 = boxes["label"][0] + width / 2, boxes["label"][1] - 0.08
                x1, y1 = boxes["mix"][0] + 0.9, boxes["mix"][1] - 0.08
            bend = "arc3,rad=0.18" if (start, end) == ("label", "mix") else "arc3"
            axis.add_patch(
                FancyArrowPatch(
                    (x0, y0), (x1, y1), arrowstyle="-|>", mutation_scale=12, color="0.3", connectionstyle=bend
                )
            )
            aside = 0.22 if y0 > y1 else -0.25 if y1 > y0 else 0.0  # beside a slanted arrow, not on it
            above = -0.05 if y0 > y1 else 0.13  # a descending arrow's label fits between two boxes
            axis.text((x0 + x1) / 2 + aside, (y0 + y1) / 2 + above, text, ha="center", fontsize=10)
        axis.set(xlim=(-0.2, 9.1), ylim=(-0.15, 3.2))
        axis.set_axis_off()
    return figure
