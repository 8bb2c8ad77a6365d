"""A figure below its controls; needs the extra ``notebooks``."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def figure_below(
    controls: ipywidgets.ValueWidget | Mapping[str, ipywidgets.ValueWidget], draw: Callable[..., Figure]
) -> ipywidgets.VBox:
    """Controls and, below them, the figure that ``draw`` makes of their values, drawn anew when one changes.

    In place of ``ipywidgets.interact``, whose Output widget can keep nbclient, and with it papermill and nbval,
    waiting for ever (nbclient, issue 312).

    Args:
        controls: one, whose value is the argument of ``draw``, or several by the name of the argument.
    """
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
    several = isinstance(controls, Mapping)
    widgets = list(controls.values()) if several else [controls]

    def update(_: Any = None) -> None:
        values = {name: control.value for name, control in controls.items()} if several else None
        picture.value = _png(draw(**values) if several else draw(controls.value))

    for control in widgets:
        control.observe(update, names="value")
    update()
    # At its left edge, or the box would stretch it.
    return ipywidgets.VBox([*widgets, picture], layout={"align_items": "flex-start"})


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
