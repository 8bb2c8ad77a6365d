"""The look of every figure, and a figure below a control."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart and which prints.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
SKY, AMBER, BLACK = "#56B4E9", "#E69F00", "#222222"


@contextmanager
def style():
    """The look of every figure: white, light grid, colour-blind palette."""
    settings = {"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True}
    with (
        sns.axes_style("whitegrid", {"grid.color": "0.9"}),
        sns.plotting_context("notebook"),
        sns.color_palette([BLUE, ORANGE, GREEN, PINK]),
        plt.rc_context(settings),
    ):
        yield


def figure_below(control: ipywidgets.ValueWidget, draw: Callable[[Any], Figure]) -> ipywidgets.VBox:
    """A control and, below it, the figure that ``draw`` makes of its value, drawn anew when that changes.

    In place of ``ipywidgets.interact``, whose Output widget can keep nbclient, and with it papermill and nbval,
    waiting for ever (nbclient, issue 312).
    """
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})

    def update(_=None) -> None:
        picture.value = _png(draw(control.value))

    control.observe(update, names="value")
    update()
    # At its left edge, or the box would stretch it.
    return ipywidgets.VBox([control, picture], layout={"align_items": "flex-start"})


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
