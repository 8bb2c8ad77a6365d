"""A figure below its controls; needs the extra ``notebooks``."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def figure_below(controls: Mapping[str, ipywidgets.ValueWidget], draw: Callable[..., Figure]) -> ipywidgets.VBox:
    """Controls and, below them, the figure that ``draw`` makes of their values, drawn anew when one changes.

    In place of ``ipywidgets.interact``, whose Output widget can keep nbclient, and with it papermill and nbval,
    waiting for ever (nbclient, issue 312).

    Args:
        controls: each by the name of its argument of ``draw``.
    """
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})

    def update(_: Any = None) -> None:
        picture.value = _png(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(update, names="value")
    update()
    # At its left edge, or the box would stretch it.
    return ipywidgets.VBox([*controls.values(), picture], layout={"align_items": "flex-start"})


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
