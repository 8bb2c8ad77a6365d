"""What EMLC gains over the quality of its start: differences by scipy, and the figure draws them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.small_tables import MODEL, STARTS, start_probes
from emlc_lib.experiments.figures.results import gains_over_starts
from emlc_lib.experiments.starts import ALL_EPOCHS, NARROW, RANDOM_START, gains, of_epochs
from emlc_lib.networks.weights import shipped_weights_file

ACCURACIES = {
    (RANDOM_START, "emlc", 0.9): (0.31, 0.35, 0.33), (RANDOM_START, "cross_entropy", 0.9): (0.30, 0.29, 0.34),
    (RANDOM_START, "clean_only", 0.9): (0.40, 0.41, 0.43), (RANDOM_START, "emlc", 0.5): (0.51, 0.52, 0.55),
    (ALL_EPOCHS, "emlc", 0.9): (0.77, 0.78, 0.79), (ALL_EPOCHS, "cross_entropy", 0.9): (0.66, 0.65, 0.68),
}  # fmt: skip
FIRST = next(iter(STARTS))
PROBES = pd.DataFrame({"name": [ALL_EPOCHS, NARROW, RANDOM_START], "linear": [0.8, 0.6, 0.4], "model": "net"})


def table() -> pd.DataFrame:
    rows = [
        {
            "name": name,
            "method": method,
            "noise_type": "symmetric",
            "noise": noise,
            "k": 1,
            "seed": seed,
            "test_accuracy": value,
        }
        for (name, method, noise), values in ACCURACIES.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_and_by_the_probe():
    """Against scipy's paired t-test; what looks at no noisy label was run at one rate and serves both."""
    found = gains(table(), PROBES)
    assert list(zip(found["linear"], found["noise"], found["other"], strict=True)) == [
        (40.0, 0.5, "clean_only"), (40.0, 0.9, "cross_entropy"), (40.0, 0.9, "clean_only"),
        (80.0, 0.9, "cross_entropy"),
    ]  # fmt: skip
    for row in found.to_dict("records"):
        rate = 0.9 if row["other"] == "clean_only" else row["noise"]
        ours, theirs = ACCURACIES[row["name"], "emlc", row["noise"]], ACCURACIES[row["name"], row["other"], rate]
        test = stats.ttest_rel(np.array(ours), np.array(theirs))
        low, high = 100 * np.array(test.confidence_interval(0.95))
        # Rounding of float64 in another order of operations.
        assert row["difference"] == pytest.approx((low + high) / 2, rel=1e-9)
        assert row["±"] == pytest.approx((high - low) / 2, rel=1e-9)
        assert row["verdict"] == ("clear" if test.pvalue < 0.05 else "undecided")
        assert row["n"] == 3
        assert row["emlc"] == pytest.approx(100 * np.mean(ours), rel=1e-12)
    assert set(found["verdict"]) == {"clear", "undecided"}


def test_a_start_twice_is_refused():
    with pytest.raises(ValueError, match="seeds: 0 is there twice"):
        gains(pd.concat([table(), table()]), PROBES)


def test_the_figure_has_a_panel_per_rate_and_a_bar_per_difference():
    found = gains(table(), PROBES)
    figure = gains_over_starts(found, "what it is")
    assert [axis.get_title() for axis in figure.axes] == ["90 % noise", "50 % noise"]
    for axis, noise in zip(figure.axes, (0.9, 0.5), strict=True):
        rows = found[found["noise"] == noise]
        drawn = [container.lines[0].get_ydata()[0] for container in axis.containers]
        assert sorted(drawn) == sorted(rows["difference"])
        assert {text.get_text() for text in axis.texts} == set(rows["name"])


def test_probes_are_those_of_the_cards(tmp_path):
    """The random start's are in the card of the weights that began there."""
    folder = tmp_path / str(FIRST)
    folder.mkdir()
    card = json.loads(shipped_weights_file("cifar10", MODEL).with_suffix(".json").read_text())
    (folder / shipped_weights_file("cifar10", MODEL).with_suffix(".json").name).write_text(
        json.dumps(card | {"epochs": FIRST, "linear": 0.61, "knn": 0.55, "minutes": 4.5})
    )
    found = start_probes(tmp_path).set_index("name")
    assert set(found.index) == {ALL_EPOCHS, NARROW, RANDOM_START, of_epochs(FIRST)}
    assert found["linear"][of_epochs(FIRST)] == 0.61
    assert found["linear"][ALL_EPOCHS] == card["linear"]
    assert found["linear"][RANDOM_START] == card["untrained"]["linear"] < found["linear"].drop(RANDOM_START).min()
    assert (found["epochs"] == [200, 0, 80, 5]).all()
