"""The look of every figure."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager

import matplotlib.pyplot as plt
import seaborn as sns

# Okabe and Ito's palette, which the colour-blind can tell apart and which prints.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"


SKY, AMBER, BLACK = "#56B4E9", "#E69F00", "#222222"


# Colour and marker of every method's name.
LOOKS = {
    "EMLC, k = 1": (BLUE, "o"),
    "EMLC, k = 5": (GREEN, "s"),
    "MLC": (ORANGE, "v"),
    "MSLC": (PINK, "^"),
    "MW-Net": (AMBER, "P"),
    "MLNT": (SKY, "X"),
    "FasTEN": (BLACK, "*"),
    "cross-entropy, noisy labels": (GREY, "<"),
    "clean labels only": (GREY, "D"),
}


_NAMES = {
    "mlc": "MLC",
    "mslc": "MSLC",
    "mwnet": "MW-Net",
    "mlnt": "MLNT",
    "fasten": "FasTEN",
    "cross_entropy": "cross-entropy, noisy labels",
    "clean_only": "clean labels only",
}


def method_name(method: str, k: int) -> str:
    """What a figure calls a method."""
    if method == "emlc":
        return f"EMLC, k = {k}"
    return _NAMES.get(method, method) + (f", k = {k}" if method == "mlc" and k > 1 else "")


def seed_count(counts: Iterable[int]) -> str:
    """The numbers of seeds behind the points of a figure, in words."""
    low, high = int(min(counts)), int(max(counts))
    return f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"


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
