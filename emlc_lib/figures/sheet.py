"""The most suspicious images at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import BLUE, GREY, style


def contact_sheet(
    images: Sequence[np.ndarray], table: pd.DataFrame, *, columns: int = 6, title: str = ""
) -> Figure:
    """Images with their given and corrected labels, in rows from the upper left.

    Args:
        images: n arrays (h, w) or (h, w, 3), uint8, of any sizes.
        table: n rows of :meth:`emlc_lib.estimator.EMLCClassifier.correct_labels`, in the order of the images.
            Corrected labels that differ from the given one are blue.
        columns: images per row.
        title: of the sheet.

    Raises:
        ValueError: there are no images, or not as many as rows.
    """
    if len(images) != len(table) or not len(images):
        raise ValueError(f"images: {len(images)} images for {len(table)} rows")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(1.9 * columns, 2.45 * rows + 0.4), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, image, row in zip(axes.flat, images, table.itertuples(), strict=False):
            axis.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255)
            changed = row.given_label != row.corrected_label
            verdict = f"{_short(row.corrected_label)} ({row.probability:.0%})"
            axis.set_title(f"{row.rank}. {_short(row.given_label)}", fontsize=9, pad=3, parse_math=False)
            axis.text(
                0.5, -0.04, verdict, transform=axis.transAxes, ha="center", va="top", fontsize=9,
                color=BLUE if changed else GREY, weight="bold" if changed else "normal", parse_math=False,
            )  # fmt: skip
            if "path" in table:
                axis.text(
                    0.5, -0.17, _short(row.path, 26), transform=axis.transAxes, ha="center", va="top", fontsize=6,
                    color=GREY, parse_math=False,
                )  # fmt: skip
        note = "above: rank and given label; below: corrected label and its probability"
        figure.suptitle("\n".join(filter(None, [title, note])), fontsize=10)
    return figure


def _short(text: object, most: int = 18) -> str:
    """The text, or its end where that is what tells paths apart."""
    whole = str(text)
    return whole if len(whole) <= most else f"...{whole[3 - most :]}"
