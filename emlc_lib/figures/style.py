"""The look of every figure."""

from __future__ import annotations

from contextlib import contextmanager

import matplotlib.pyplot as plt
import seaborn as sns

# Okabe and Ito's palette, which the colour-blind can tell apart and which prints.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"


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
