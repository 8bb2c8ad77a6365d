"""Figures have named axes and draw what they are given; the bench and the look-ahead study run."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from emlc_lib import figures
from emlc_lib.lookahead import compare_weights

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def headless():
    mpl.use("agg")
    yield
    mpl.pyplot.close("all")


@pytest.fixture(scope="module")
def errors():
    return compare_weights(ks=[1, 3], lrs=[0.02], momenta=[0.0, 0.9], seeds=[0], warm=3)


def test_the_look_ahead_study(errors):
    """One step is exact whatever the weights; with momentum the aware weights are closer at k = 3."""
    one = errors[errors["k"] == 1]
    assert (one["relative_error"] < 1e-12).all()  # float64 rounding
    assert (abs(one["cosine"] - 1) < 1e-12).all()
    three = errors[(errors["k"] == 3) & (errors["momentum"] == 0.9)].set_index("weights")["relative_error"]
    assert three["momentum-aware"] < 0.1 < three["paper"]
    plain = errors[errors["momentum"] == 0].pivot_table(index="k", columns="weights", values="relative_error")
    assert np.allclose(plain["paper"], plain["momentum-aware"], rtol=1e-12)


def named(figure):
    return all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)


def test_look_ahead_errors(errors):
    figure = figures.look_ahead_errors(errors)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_ylabel() == "relative error to exact"
    assert figure.axes[2].get_xlabel() == "look-ahead steps k"


def test_transition_matrices_have_true_rows_and_noisy_columns():
    matrix = np.array([[0.75, 0.25], [0.0, 1.0]])
    (axis,) = figures.transition_matrices({"one": matrix}, ["a", "b"]).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("noisy label", "true label")
    assert [t.get_text() for t in axis.texts] == ["75", "25", "", "100"]


def test_gate_distributions_are_percentages():
    gate, wrong = np.array([0.1, 0.2, 0.9, 0.95]), np.array([True, True, False, False])
    (axis,) = figures.gate_distributions(gate, wrong).axes
    heights = [p.get_height() for p in axis.patches if hasattr(p, "get_height")]
    assert sum(heights) == pytest.approx(200)  # two groups of 100 % each
    assert named(axis.figure)


def test_teacher_figures():
    soft = np.full((2, 3), 1 / 3)
    labels = np.array([0, 1])
    figure = figures.teacher_outputs(np.zeros((2, 8, 8)), labels, labels, soft, np.array([0.5, 0.25]), "abc")
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["gate 0.50", "gate 0.25"]
    assert figures.teacher_architecture().axes[0].patches


@pytest.mark.parametrize("corrects", [True, False])
def test_training_curves(corrects):
    columns = ["student_test_accuracy", "student_clean_accuracy"]
    if corrects:
        columns += ["teacher_test_accuracy", "recovery_all", "recovery_wrong", "gate_right", "gate_wrong"]
    epochs = pd.DataFrame({"epoch": [1, 2]} | {name: [0.5, 0.6] for name in columns})
    figure = figures.training_curves(epochs, title="a run")
    assert len(figure.axes) == (3 if corrects else 1)
    assert named(figure)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["student, test"].get_ydata()) == [50, 60]


def test_the_bench_runs(tmp_path):
    csv = tmp_path / "cost.csv"
    command = [sys.executable, "-m", "benchmarks.step_cost", "--model", "small_cnn", "--noisy=4", "--clean=4",
               "--repeats", "2", "--threads", "1", "--device", "cpu", "--no-memory", f"--csv={csv}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(csv).set_index("variant")
    assert table.loc["plain SGD", "ratio"] == pytest.approx(1)
    assert {"EMLC k=1", "EMLC k=5", "autograd through the update, k=1"} <= set(table.index)
    assert (table["seconds"] > 0).all()
