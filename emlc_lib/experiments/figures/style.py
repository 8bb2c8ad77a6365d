"""The look of every figure, and how figures name and draw methods; needs the extra ``notebooks``."""

from collections.abc import Iterable
from contextlib import contextmanager

import matplotlib.pyplot as plt
import seaborn as sns

from ...methods import METHODS
from ...runtime.palette import BLUE, GREEN, ORANGE, PINK


@contextmanager
def style():
    """White, light grid, colour-blind palette."""
    settings = {"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True}
    with (
        sns.axes_style("whitegrid", {"grid.color": "0.9"}),
        sns.plotting_context("notebook"),
        sns.color_palette([BLUE, ORANGE, GREEN, PINK]),
        plt.rc_context(settings),
    ):
        yield


def method_name(method: str, k: int) -> str:
    """What a figure calls a method."""
    known = METHODS[method]
    return known.label + (f", k = {k}" if known.looks_ahead and (k > 1 or known.always_with_k) else "")


def look(name: str) -> tuple[str, str]:
    """Colour and marker of a method by the name that :func:`method_name` gives it."""
    if name == "EMLC, k = 5":
        return GREEN, "s"
    known = {method_name(method, 1): cls.look for method, cls in METHODS.items()}
    return known.get(name, (PINK, "x"))


def seed_count(counts: Iterable[int]) -> str:
    """The numbers of seeds behind the points of a figure, in words."""
    low, high = int(min(counts)), int(max(counts))
    return f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds"
