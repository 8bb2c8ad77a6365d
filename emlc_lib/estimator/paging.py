"""The suspicious images of a table, page by page."""

from pathlib import Path

import ipywidgets
import pandas as pd

from ..runtime.widgets import figure_below
from .folder import sheet_of


def page_through(table: pd.DataFrame, folder: str | Path, *, per_page: int = 12) -> ipywidgets.VBox:
    """A widget to page through images, the most suspicious first.

    Args:
        table: rows of ``EMLCClassifier.correct_labels``, with paths relative to ``folder``.
        per_page: how many images are shown at once.
    """
    ranked = table.sort_values("rank")
    pages = -(-len(ranked) // per_page)

    def draw(page):
        rows = ranked[(page - 1) * per_page : page * per_page]
        figure = sheet_of(rows, folder, title=f"page {page} of {pages}")
        figure.set_dpi(70)  # the notebook's file keeps the first page
        return figure

    return figure_below({"page": ipywidgets.BoundedIntText(1, min=1, max=pages, description="page")}, draw)
