"""Figures have named axes and draw what they are given; the bench and the look-ahead study run."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from emlc_lib.estimator.contact_sheet import contact_sheet
from emlc_lib.experiments.figures.cost import cost_growth, cost_of_steps, data_rates
from emlc_lib.experiments.figures.label_errors import label_errors
from emlc_lib.experiments.figures.meta import look_ahead_errors
from emlc_lib.experiments.figures.paper import (
    accuracy_over_k,
    embedding_maps,
    gradient_error_curves,
    label_recovery,
    meta_losses,
    option_effects,
)
from emlc_lib.experiments.figures.results import accuracy_over_noise
from emlc_lib.experiments.figures.teacher import (
    gate_distributions,
    teacher_architecture,
    teacher_outputs,
    transition_matrices,
)
from emlc_lib.experiments.figures.training import (
    image_strip,
    learning_rate_plans,
    nearest_neighbours,
    pretraining_curves,
    pretraining_loss,
    training_curves,
)
from emlc_lib.experiments.toy_problem import compare_weights
from emlc_lib.methods.emlc import EMLC

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
    figure = look_ahead_errors(errors)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_ylabel() == "relative error to exact"
    assert figure.axes[2].get_xlabel() == "look-ahead steps k"


def test_transition_matrices_have_true_rows_and_noisy_columns():
    matrix = np.array([[0.75, 0.25], [0.0, 1.0]])
    (axis,) = transition_matrices({"one": matrix}, ["a", "b"]).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("noisy label", "true label")
    assert [t.get_text() for t in axis.texts] == ["75", "25", "", "100"]


def test_gate_distributions_are_percentages():
    gate, wrong = np.array([0.1, 0.2, 0.9, 0.95]), np.array([True, True, False, False])
    (axis,) = gate_distributions(gate, wrong).axes
    heights = [p.get_height() for p in axis.patches if hasattr(p, "get_height")]
    assert sum(heights) == pytest.approx(200)  # two groups of 100 % each
    assert named(axis.figure)


def test_teacher_figures():
    soft = np.full((2, 3), 1 / 3)
    labels = np.array([0, 1])
    figure = teacher_outputs(np.zeros((2, 8, 8)), labels, labels, soft, np.array([0.5, 0.25]), "abc")
    assert [axis.get_xlabel() for axis in figure.axes[2:]] == ["gate 0.50", "gate 0.25"]
    assert teacher_architecture().axes[0].patches


@pytest.mark.parametrize(("corrects", "gated"), [(True, True), (True, False), (False, False)])
def test_training_curves(corrects, gated):
    columns = ["student_test_accuracy", "student_clean_accuracy"]
    if corrects:
        columns += ["recovery_all", "recovery_wrong"]
    if gated:
        columns += ["teacher_test_accuracy", "gate_right", "gate_wrong"]
    epochs = pd.DataFrame({"epoch": [1, 2]} | {name: [0.5, 0.6] for name in columns})
    figure = training_curves(epochs, title="a run")
    assert len(figure.axes) == 1 + corrects + gated
    assert named(figure)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["student, test"].get_ydata()) == [50, 60]


def test_training_curves_leave_out_what_nobody_knows():
    measured = ["recovery_all", "recovery_wrong", "gate_right", "gate_wrong"]
    epochs = pd.DataFrame({"epoch": [1, 2], "student_test_accuracy": [0.5, 0.6], "student_clean_accuracy": 0.5})
    assert len(training_curves(epochs.assign(**dict.fromkeys(measured, np.nan))).axes) == 1


def test_learning_rate_plans_are_steps_over_epochs():
    plans = {"falls": np.array([0.1, 0.1, 0.01]), "stays": np.full(2, 0.1)}
    (axis,) = learning_rate_plans(plans, steps_per_epoch=2).axes
    assert named(axis.figure)
    assert axis.get_yscale() == "log"
    falls, stays = (patch.get_data() for patch in axis.patches)
    assert list(falls.values) == [0.1, 0.1, 0.01]
    assert list(falls.edges) == [0, 0.5, 1, 1.5]
    assert list(stays.edges) == [0, 0.5, 1]


def bench(folder, module, *options):
    """The table that a benchmark of one thread and two repeats writes."""
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{module}",
        *options,
        "--repeats=2",
        "--threads=1",
        "--device=cpu",
    ]
    done = subprocess.run([*command, f"--csv={folder / 'table.csv'}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(folder / "table.csv")
    said = " ".join([*options, "--repeats=2", "--threads=1", "--device=cpu"])
    assert set(table["command"]) == {f"python -m benchmarks.{module} {said} --csv=FILE"}
    return table


SMALL = ["--model=small_cnn", "--noisy=8", "--clean=4"]


@pytest.mark.slow
def test_the_bench_runs(tmp_path):
    table = bench(tmp_path, "step_cost", *SMALL, "--no-memory").set_index("variant")
    assert table.loc["plain SGD", "ratio"] == pytest.approx(1)
    assert {"EMLC k=1", "EMLC k=5", "through the update by autograd, k=1"} <= set(table.index)
    assert (table["seconds"] > 0).all()
    cost_of_steps(table.reset_index())


@pytest.mark.slow
def test_the_bench_of_growth_runs(tmp_path):
    table = bench(tmp_path, "step_cost", *SMALL, "--ks", "2")
    assert len(table) == 1 + 4
    figure = cost_growth(table)
    assert named(figure)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[2]] * 4


@pytest.mark.slow
def test_the_bench_of_the_methods_runs(tmp_path):
    table = bench(tmp_path, "step_cost", *SMALL, "--methods", "--no-memory").set_index("variant")
    assert {"MLC, double backward", "MLC, forward mode", "MW-Net", "FasTEN"} <= set(table.index)
    assert (table["seconds"] > 0).all()


@pytest.mark.slow
def test_the_bench_of_the_data_runs(tmp_path):
    table = bench(tmp_path, "data_throughput", "--sizes", "8")
    assert len(table) == 6
    assert (table["images_per_second"] > 0).all()
    assert data_rates(table).axes[0].get_xlabel()


def test_autograd_through_the_updates_is_the_exact_meta_gradient():
    """What the bench compares with computes the same thing: k = 2 with momentum, against exact_vectors."""
    from benchmarks import variants

    args = Namespace(model="small_cnn", noisy=6, clean=4, device="cpu")
    unrolled = variants.ThroughTheUpdates(args, 2)
    exact = variants.build(args, EMLC, k=2, meta_weights="exact", corruption="none")
    for part in (unrolled.method, exact):
        part.student.double(), part.teacher.double()
        part.batches._noisy = part.batches._noisy._replace(x=part.batches._noisy.x.double())
        part.batches._clean = part.batches._clean._replace(x=part.batches._clean.x.double())
    unrolled()
    for t in range(2):
        exact.step(t)
    # The bench's clean labels are all right ones for the gate, a term that does not touch the classifier's head.
    a, b = (m.teacher.classifier.head.weight.grad for m in (unrolled.method, exact))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # float64 rounding


def test_accuracy_over_noise_draws_means_and_deviations():
    rows = []
    for method, k, noise, accuracy in [
        ("emlc", 1, 0.2, 0.7), ("emlc", 1, 0.9, 0.6), ("cross_entropy", 1, 0.2, 0.6),
        ("cross_entropy", 1, 0.9, 0.3), ("clean_only", 1, 0.2, 0.5),
    ]:  # fmt: skip
        for seed in (0, 1):
            row = {"method": method, "k": k, "noise": noise, "seed": seed, "test_accuracy": accuracy + seed / 100}
            rows.append(row | {"dataset": "digits", "preset": "smoke", "noise_type": "symmetric"})
    figure = accuracy_over_noise(pd.DataFrame(rows), "what it is")
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_xticklabels()] == ["symmetric\n20 %", "symmetric\n90 %"]
    means = {c.get_label(): list(c.lines[0].get_ydata()) for c in axis.containers}
    assert means["EMLC, k = 1"] == pytest.approx([70.5, 60.5])
    assert means["cross-entropy, noisy labels"] == pytest.approx([60.5, 30.5])
    assert axis.lines[-1].get_ydata()[0] == pytest.approx(50.5) or any(
        line.get_ydata()[0] == pytest.approx(50.5) for line in axis.lines
    )
    assert figure.get_suptitle() == "what it is"


def test_pretraining_figures():
    epochs = pd.DataFrame({"epoch": [1, 2, 3], "loss": [5.0, 4.0, 3.5]})
    (axis,) = pretraining_loss(epochs, 6.2).axes
    assert named(axis.figure)
    assert list(axis.lines[0].get_ydata()) == [5.0, 4.0, 3.5]
    curve = epochs.assign(
        dataset="cifar10", minutes=[0.1, 0.2, 0.3], knn=[np.nan, 0.5, 0.6], linear=[np.nan, 0.6, 0.7]
    )
    left, right = pretraining_curves(curve, "what it is").axes
    assert named(left.figure)
    assert left.lines[0].get_xydata().tolist() == [[0.1, 5.0], [0.2, 4.0], [0.3, 3.5]]
    linear, knn = (line.get_xydata().tolist() for line in right.lines)
    assert (linear, knn) == ([[0.2, 60.0], [0.3, 70.0]], [[0.2, 50.0], [0.3, 60.0]])
    assert [text.get_text() for text in right.texts] == ["2", "3"]
    images = np.random.default_rng(0).random((2, 3, 4, 4, 3))
    (axis,) = image_strip(images).axes
    assert axis.images[0].get_array().shape == (8, 12, 3)
    assert (axis.images[0].get_array()[4:, 8:] == images[1, 2]).all()
    figure = nearest_neighbours(images[:, 0], np.array([0, 1]), images[:, 1:], np.array([[0, 1], [1, 1]]), "ab")
    framed = [any(spine.get_visible() for spine in axis.spines.values()) for axis in figure.axes]
    assert framed == [False, False, True, False, False, False]


def curves():
    steps = np.arange(1, 6)
    rows = [
        {
            "name": name,
            "seed": seed,
            "step": s,
            "epoch": s / 5,
            "recovery_all": 0.1 * s,
            "recovery_wrong": 0.05 * s,
        }
        | {"meta_loss": (1.0 + seed) / s if name != "MSLC" else np.nan}
        for name in ("EMLC, k = 1", "MLC", "MSLC")
        for seed in (0, 1)
        for s in steps
    ]
    return pd.DataFrame(rows)


def test_label_recovery_is_solid_for_all_and_dashed_for_wrong_labels():
    table = pd.concat([curves().assign(noise=0.9), curves().assign(noise=0.5, recovery_all=0.7)])
    figure = label_recovery(table, given={0.9: 0.19, 0.5: 0.55})
    axis, other = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["90 % noise", "50 % noise"]
    assert [list(line.get_ydata()) for line in other.lines[:3:2]] == [[70] * 5] * 2
    assert named(figure)
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 5]
    assert [line.get_linestyle() for line in drawn] == ["-", "--"] * 3
    assert drawn[0].get_ydata() == pytest.approx([10, 20, 30, 40, 50])
    assert drawn[1].get_ydata() == pytest.approx([5, 10, 15, 20, 25])
    assert len({line.get_color() for line in drawn}) == 3
    assert any(list(line.get_ydata()) == [19, 19] for line in axis.lines)


def test_meta_losses_are_means_over_seeds_and_leave_out_who_has_none():
    figure = meta_losses(curves())
    (axis,) = figure.axes
    assert named(figure)
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["EMLC, k = 1", "MLC"]
    assert axis.lines[0].get_ydata() == pytest.approx([1.5 / s for s in range(1, 6)])


def test_embedding_maps_name_every_class_once_per_map():
    rng = np.random.default_rng(0)
    points = pd.DataFrame({"name": ["a"] * 30 + ["b"] * 30, "label": list(range(3)) * 20})
    points["class"] = points["label"].map({0: "cat", 1: "dog", 2: "ship"})
    points[["x", "y"]] = rng.normal(size=(60, 2))
    figure = embedding_maps(points, {"a": "first", "b": "second"})
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    for axis in figure.axes:
        assert [t.get_text() for t in axis.texts] == ["cat", "dog", "ship"]
        assert sum(len(c.get_offsets()) for c in axis.collections) == 30
    assert figure.axes[1].get_xlabel() == "second"


def test_a_map_that_is_in_both_rows_is_drawn_once_and_as_large_as_the_others():
    names = ["start", "a", "b", "c", "d"]
    points = pd.DataFrame({"name": np.repeat(names, 4), "label": 0, "class": "cat", "x": 1.0, "y": 2.0})
    rows = [["start", "a", "b"], ["start", "c", "d"]]
    figure = embedding_maps(points, {name: f"of {name}" for name in names}, rows=rows)
    figure.draw_without_rendering()
    assert {axis.get_title(): axis.get_xlabel() for axis in figure.axes} == {name: f"of {name}" for name in names}
    places = {axis.get_title(): axis.get_position() for axis in figure.axes}
    assert places["start"].x1 < places["a"].x0
    assert places["c"].y1 < places["a"].y0
    # Twice as high without the aspect.
    assert places["start"].height == pytest.approx(places["a"].height, rel=0.01)


def test_accuracy_over_k_gives_every_line_the_common_first_point():
    rows = [(w, k, s) for w in ("paper", "exact") for k in (1, 2, 5) for s in (0, 1) if k > 1 or w == "paper"]
    table = pd.DataFrame(rows, columns=["meta_weights", "k", "seed"])
    table["test_accuracy"] = 0.5 + 0.01 * table["k"] + 0.02 * table["seed"]
    lower = table.assign(noise=0.9, test_accuracy=table["test_accuracy"] - 0.2)
    figure = accuracy_over_k(pd.concat([lower, table.assign(noise=0.5)]))
    assert named(figure)
    assert [axis.get_title() for axis in figure.axes] == ["50 % noise", "90 % noise"]
    for axis, less in zip(figure.axes, (0, 20), strict=True):
        lines = [container.lines[0] for container in axis.containers]
        assert len(lines) == 2
        for line in lines:
            assert line.get_ydata() == pytest.approx([52 - less, 53 - less, 56 - less])


def test_a_contact_sheet_names_both_labels_of_every_image():
    table = pd.DataFrame(
        {
            "path": ["a$b.png", "a/very/long/path/to/an/image.png", "c.png"],
            "given_label": ["cat", "cat", "dog"],
            "corrected_label": ["dog", "cat", "dog"],
            "probability": [0.9, 0.8, 1.0],
            "rank": [1, 2, 3],
        }
    )
    images = [np.zeros((4, 6), np.uint8), np.zeros((9, 5, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)]
    figure = contact_sheet(images, table, columns=2, title="suspicious")
    figure.canvas.draw()  # dollar signs in names are no mathematics
    assert len(figure.axes) == 4
    first, second, _, nothing = ([t.get_text() for t in axis.texts] for axis in figure.axes)
    assert first == ["given cat", "→ dog (90%)", "1.  a$b.png"]
    assert second == ["given cat", "kept (80%)", "2.  ...ng/path/to/an/image.png"]
    assert nothing == []
    with pytest.raises(ValueError, match="images: 2 images for 3 rows"):
        contact_sheet(images[:2], table)


def test_option_effects_keep_their_order_from_the_top():
    columns = {"difference": [0.0, -3.0], "±": [0.5, np.nan], "pairs": [2, 1], "recovery": [60.0, 50.0]}
    left, right = option_effects(pd.DataFrame(columns, index=["base", "other"])).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["base (2)", "other (1)"]
    assert left.yaxis_inverted()
    points = [container.lines[0] for container in left.containers]
    assert [point.get_xdata()[0] for point in points] == [0, -3]
    assert [point.get_markerfacecolor() == "white" for point in points] == [
        False,
        True,
    ]  # one seed has no interval
    assert list(right.lines[0].get_xdata()) == [60, 50]


def test_gradient_error_curves():
    kinds = ("paper", "momentum-aware", "reversed", "released")
    rows = [(0, s, k, 0.9, 0.5) for k in kinds for s in (5, 10)]
    figure = gradient_error_curves(pd.DataFrame(rows, columns=["seed", "step", "kind", "cosine", "scale"]))
    assert named(figure)
    assert len(figure.axes[0].lines) == 4


def test_label_errors_draws_every_ranking_and_student():
    whats = [*(f"ranking {i}" for i in range(7)), "student: emlc", "student: cross_entropy"]
    rows = [
        {"labels": key, "wrong_share": share, "seed": seed, "what": what, "auc": 0.8, "precision": 0.5,
         "test_accuracy": 0.7}
        for key, share in (("worse_label", 0.4), ("aggre_label", 0.1)) for seed in (0, 1) for what in whats
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(dataset="cifar10", preset="quick", hardware="a machine", torch="2.11.0")
    figure = label_errors(table)
    assert named(figure)
    assert figure.get_suptitle().startswith(
        "cifar10, preset quick, seeds: 2, bars are standard deviations; a machine"
    )
    assert [len(axis.containers) for axis in figure.axes] == [7, 7, 2]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["aggre\n10 %", "worse\n40 %"]
    with pytest.raises(ValueError, match="more than 7 rankings"):
        label_errors(pd.DataFrame([*rows, rows[0] | {"what": "one more"}]))
