"""How well wrong human labels are found, and what a student learns despite them."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ...runtime.palette import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, SKY
from .style import look, method_name, style

_COLOURS = (BLUE, SKY, GREEN, ORANGE, AMBER, PINK, GREY)

_MARKERS = "osD^v<>"


def label_errors(table: pd.DataFrame) -> Figure:
    """AUC and precision of each ranking, and test accuracy of each student, by set of labels.

    Args:
        table: what ``benchmarks/label_errors.py`` writes: rows whose ``what`` begins with ``student:`` have a
            ``test_accuracy``, others ``auc`` and ``precision``, all in [0, 1], by ``labels`` and ``seed``. Points
            are means, bars standard deviations over seeds; the grey line is the precision of a random order.

    Raises:
        ValueError: there are more rankings than can be told apart, seven.
    """
    shares = table.groupby("labels")["wrong_share"].mean().sort_values()
    of_students = table["what"].str.startswith("student:")
    rankings, students = table[~of_students], table[of_students]
    if rankings["what"].nunique() > len(_COLOURS):
        raise ValueError(f"table: has more than {len(_COLOURS)} rankings; leave some out")
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(13, 5))
        for axis, column, name in (
            (axes[0], "auc", "AUC of the ranking"),
            (axes[1], "precision", "precision at the true number, %"),
        ):
            factor = 100 if column == "precision" else 1
            looks = zip(_COLOURS, _MARKERS, strict=True)
            _points(
                axis, rankings, column, factor, shares, dict(zip(rankings["what"].unique(), looks, strict=False))
            )
            axis.set_ylabel(name)
        axes[1].plot(range(len(shares)), 100 * shares, color=GREY, ls=":", label="random order")
        names = {what: method_name(what.removeprefix("student: "), 1) for what in students["what"].unique()}
        looks = {what: look(name) for what, name in names.items()}
        _points(axes[2], students, "test_accuracy", 100, shares, looks, names)
        axes[2].set_ylabel("test accuracy of the student, %")
        for axis in axes:
            labels = [
                f"{name.removesuffix('_label').replace('_label', ' ')}\n{100 * s:.0f} %"
                for name, s in shares.items()
            ]
            axis.set_xticks(range(len(shares)), labels)
            axis.tick_params("x", labelsize=9)
            axis.set_xlabel("labels, and how many are wrong")
        (drawn, names), (more, further) = (axis.get_legend_handles_labels() for axis in axes[1:])
        one = table.iloc[0]
        seeds = f"seeds: {table['seed'].nunique()}, bars are standard deviations"
        figure.suptitle(
            f"{one.dataset}, preset {one.preset}, {seeds}; {one.hardware}, torch {one.torch}", fontsize=9
        )
        figure.legend(drawn + more, names + further, fontsize=9, loc="outside lower center", ncols=3)
    return figure


def _points(axis, table, column, factor, shares, looks, names=None) -> None:
    whats = list(looks)
    for i, (what, (colour, marker)) in enumerate(looks.items()):
        groups = factor * table[table["what"] == what].set_index("labels")[column]
        mean, spread = (getattr(groups.groupby(level=0), f)().reindex(shares.index) for f in ("mean", "std"))
        aside = 0.6 / len(whats) * (i - (len(whats) - 1) / 2)
        places = [x + aside for x in range(len(shares))]
        axis.errorbar(
            places,
            mean,
            spread,
            color=colour,
            marker=marker,
            ls="",
            ms=7,
            capsize=3,
            label=(names or {}).get(what, what),
        )
