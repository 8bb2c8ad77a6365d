"""A figure below a control; needs the extra ``notebooks``."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


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
