"""The most suspicious images at a glance."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..runtime.palette import BLUE, GREY

# Pixels of the longer side.
SMALL = 32


def contact_sheet(
    images: Sequence[np.ndarray], table: pd.DataFrame, *, columns: int = 6, title: str = ""
) -> Figure:
    """Images with their given and corrected labels, in rows from the upper left.

    Args:
        images: n arrays (h, w) or (h, w, 3), uint8, of any sizes.
        table: n rows of ``EMLCClassifier.correct_labels``, in the order of the images. Corrected labels that
            differ from the given one are blue.
        columns: images per row.
        title: of the sheet.

    Raises:
        ValueError: there are no images, or not as many as rows.
    """
    if len(images) != len(table) or not len(images):
        raise ValueError(f"images: {len(images)} images for {len(table)} rows")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    with plt.rc_context({"figure.constrained_layout.use": True}):
        figure, axes = plt.subplots(rows, columns, figsize=(1.9 * columns, 2.45 * rows + 0.4), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, image, row in zip(axes.flat, images, table.itertuples(), strict=False):
            # Squares of a few pixels are hard to recognise.
            smooth = "bicubic" if max(image.shape[:2]) < SMALL else None
            axis.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255, interpolation=smooth)
            changed = row.given_label != row.corrected_label
            verdict = f"\N{RIGHTWARDS ARROW} {_short(row.corrected_label)}" if changed else "kept"
            at = dict(transform=axis.transAxes, ha="center", parse_math=False)
            axis.text(0.5, 1.13, f"given {_short(row.given_label)}", va="bottom", fontsize=9, **at)
            axis.text(
                0.5, 1.015, f"{verdict} ({row.probability:.0%})", va="bottom", fontsize=9,
                color=BLUE if changed else GREY, weight="bold" if changed else "normal", **at,
            )  # fmt: skip
            name = f"{row.rank}.  {_short(row.path, 26)}" if "path" in table else f"{row.rank}."
            axis.text(0.5, -0.03, name, va="top", fontsize=7, color=GREY, **at)
        note = "above: given and corrected label, its probability; below: rank of suspicion"
        figure.get_layout_engine().set(h_pad=0.08)
        figure.suptitle("\n".join(filter(None, [title, note])), fontsize=10)
    return figure


def _short(text: object, most: int = 18) -> str:
    """The text, or its end where that is what tells paths apart."""
    whole = str(text)
    return whole if len(whole) <= most else f"...{whole[3 - most :]}"
