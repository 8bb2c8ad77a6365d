"""Controls over a figure, for JupyterLab: single labels, a changed label, the meta-gradient, pairs of seeds.

Each is a widget whose picture follows its controls (:mod:`emlc_lib.runtime.widgets`), without Output widgets, so
that a headless run shows its first state and goes on.
"""

import functools

import ipywidgets
import numpy as np
import pandas as pd
import torch
from ipywidgets import Dropdown, FloatRangeSlider, FloatSlider, IntSlider, SelectionSlider
from torch import Tensor

from ..core.teacher import Teacher
from ..data.experiment_data import Scale
from ..runtime.widgets import figure_below
from ..training.correction import soft_labels
from .figures.explorers import counterfactual_gates, label_sheet, paired_seeds, step_weights
from .figures.style import method_name
from .gradient_errors import gradient_errors_of
from .label_record import LabelRecord
from .tables import is_blind, noise_label
from .toy_problem import kinds_of_weights, take_steps

FATES = ("all", "kept", "spoilt", "recovered", "confirmed", "changed")
EIGHT = 8  # images on a page


def explore_labels(record: LabelRecord) -> ipywidgets.VBox:
    """Single images over a training, filtered by what became of their label, by true class and by gate."""
    last = len(record.steps) - 1
    moments = [(f"step {step}", moment) for moment, step in enumerate(record.steps.tolist())]
    controls = {
        "moment": SelectionSlider(options=moments, value=last, description="after", continuous_update=False),
        "fate": Dropdown(options=FATES, description="labels"),
        "label": Dropdown(options=["all", *record.classes.tolist()], description="true class"),
        "gate": FloatRangeSlider(
            value=(0, 1), min=0, max=1, step=0.05, description="gate", continuous_update=False
        ),
        "page": IntSlider(1, min=1, max=1, description="page", continuous_update=False),
    }

    def draw(moment: int, fate: str, label: str, gate: tuple[float, float], page: int):
        found = chosen(record, moment, fate, label, gate)
        pages = max(1, -(-len(found) // EIGHT))
        controls["page"].max = pages  # a page that is gone moves the slider, which draws again
        page = min(page, pages)
        caption = f"{len(found)} of {len(record.given)} images, page {page} of {pages}; {record.origin}"
        return label_sheet(record, moment, found[(page - 1) * EIGHT : page * EIGHT], caption)

    return figure_below(controls, draw)


def chosen(
    record: LabelRecord, moment: int, fate: str = "all", label: str = "all", gate: tuple[float, float] = (0, 1)
) -> np.ndarray:
    """Indices of the images whose label met this fate, of this true class, with a gate in this closed range."""
    low, high = gate
    found = (record.gates[moment] >= low) & (record.gates[moment] <= high)
    if fate != "all":
        found &= record.fate(moment) == fate
    if label != "all":
        found &= record.classes[record.true] == label
    return np.flatnonzero(found)


def explore_counterfactual(teacher: Teacher, record: LabelRecord, scale: Scale) -> ipywidgets.VBox:
    """Another given label for one of a record's images: gate and corrected label, computed live.

    Args:
        teacher: trained, in evaluation mode, on the device of ``scale``.
        scale: has the mean and the standard deviation by which images are standardised.
    """
    given, true, names = record.given.tolist(), record.true.tolist(), list(record.classes)
    images = torch.from_numpy(record.images.copy())
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    image = IntSlider(0, min=0, max=len(given) - 1, description="image", continuous_update=False)
    label = Dropdown(options=[(name, c) for c, name in enumerate(names)], value=given[0], description="given")

    @functools.cache
    def asked(i: int) -> tuple[np.ndarray, np.ndarray]:
        return gates_by_label(teacher, images[i], scale)

    def draw(i: int, c: int):
        return counterfactual_gates(record.images[i], names, *asked(i), c, true[i])

    box = figure_below({"i": image, "c": label}, draw)
    image.observe(lambda change: setattr(label, "value", given[change["new"]]), names="value")
    return box


def gates_by_label(teacher: Teacher, pixels: Tensor, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's prediction (C,) for an image (channels, h, w) uint8, and its gate (C,) for every label."""
    labels = torch.arange(teacher.classifier.head.out_features)
    _, gates, probabilities = soft_labels(teacher, pixels.expand(len(labels), *pixels.shape), labels, scale)
    return probabilities[0].numpy(), gates.numpy()


def explore_meta_gradient(seed: int = 0) -> ipywidgets.VBox:
    """Weights of the steps, and the error of the meta-gradient that they make, on digits in float64."""
    taken = functools.lru_cache(maxsize=200)(take_steps)
    controls = {
        "lr": SelectionSlider(options=[0.005, 0.01, 0.02, 0.05, 0.1], value=0.02, description="eta"),
        "momentum": SelectionSlider(options=[0.0, 0.5, 0.9], value=0.9, description="mu"),
        "k": IntSlider(5, min=1, max=20, description="k"),
        "c": FloatSlider(1, min=-1, max=1, step=0.25, description="c"),
    }
    for control in controls.values():
        control.continuous_update = False

    def draw(lr: float, momentum: float, k: int, c: float):
        steps = taken(seed, lr, momentum, k)
        weights = kinds_of_weights(k, lr, momentum, c)
        errors = {kind: gradient_errors_of(steps.approximate(lr, w), steps.exact) for kind, w in weights.items()}
        return step_weights(weights, pd.DataFrame(errors).T)

    return figure_below(controls, draw)


def explore_pairs(table: pd.DataFrame) -> ipywidgets.VBox:
    """Any two methods of a table of runs, seed by seed, at a noise setting.

    Args:
        table: :func:`emlc_lib.experiments.tables.run_table`. What sees no noisy label serves every setting.
    """
    named = table.assign(
        who=[method_name(method, k) for method, k in zip(table["method"], table["k"], strict=True)],
        noise_setting=[
            noise_label(kind, rate) for kind, rate in zip(table["noise_type"], table["noise"], strict=True)
        ],
    )
    who, settings = list(dict.fromkeys(named["who"])), list(dict.fromkeys(named["noise_setting"]))
    controls = {
        "setting": Dropdown(options=settings, value=settings[-1], description="noise"),
        "a": Dropdown(options=who, value=who[0], description="first"),
        "b": Dropdown(options=who, value=who[min(1, len(who) - 1)], description="second"),
    }

    def accuracy(name: str, setting: str) -> pd.Series:
        rows = named[named["who"] == name]
        rows = rows[(rows["noise_setting"] == setting) | is_blind(rows)]
        return 100 * rows.drop_duplicates("seed").set_index("seed")["test_accuracy"]

    def draw(setting: str, a: str, b: str):
        caption = f"{table['dataset'].iloc[0]}, preset {table['preset'].iloc[0]}, {setting}"
        return paired_seeds(accuracy(a, setting), accuracy(b, setting), (a, b), caption)

    return figure_below(controls, draw)
