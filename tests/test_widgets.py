"""Interactive figures."""

import io

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from emlc_lib.runtime.widgets import figure_below


def test_the_figure_follows_the_control():
    mpl.use("agg")
    drawn, others = [], plt.get_fignums()

    def draw(value):
        drawn.append(value)
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.bar([0], [value])
        return figure

    control = ipywidgets.IntSlider(3, min=0, max=9)
    box = figure_below({"value": control}, draw)
    assert box.children[0] is control
    first = bytes(box.children[1].value)
    control.value = 7
    assert drawn == [3, 7]
    pictures = [np.asarray(Image.open(io.BytesIO(png))) for png in (first, bytes(box.children[1].value))]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
    assert plt.get_fignums() == others  # or they would fill the memory
