"""What kinds of information are worth: made-up accuracies whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from emlc_lib.experiments.figures.results import information_over_noise
from emlc_lib.experiments.information import (
    EPOCH,
    IN_EMLCS_TIME,
    KINDS,
    best_information,
    by_information,
    crossings,
    in_emlcs_time,
)
from emlc_lib.runtime.places import REPOSITORY
from emlc_lib.training.presets import make_config

NOISY, CLEAN, IMAGES, CORRECTED = KINDS

# In percent, at noise 20, 60 and 80 %; each seed is one point above the seed before.
MEANS = {"cross_entropy": (80, 60, 20), "emlc": (70, 65, 55), "clean_only": (50,), "fixmatch": (58,)}


def table(seeds=3):
    rows = [
        {"method": method, "k": 1, "noise_type": "symmetric", "noise": noise, "seed": seed}
        | {"test_accuracy": (mean + seed) / 100}
        for method, means in MEANS.items()
        for noise, mean in zip((0.2, 0.6, 0.8), means, strict=False)
        for seed in range(seeds)
    ]
    others = [
        {"method": "emlc", "k": 5, "noise_type": "symmetric", "noise": 0.2, "seed": 0, "test_accuracy": 0.99},
        {"method": "emlc", "k": 1, "noise_type": "asymmetric", "noise": 0.4, "seed": 0, "test_accuracy": 0.99},
    ]
    return pd.DataFrame(rows + others)


def test_what_sees_no_noise_serves_every_rate():
    found = by_information(table())
    assert list(found.columns) == list(KINDS)
    assert found[CLEAN].tolist() == pytest.approx([50, 51, 52] * 3)
    assert found.loc[(0.6, 2), NOISY] == pytest.approx(62)
    assert by_information(table().query("method != 'fixmatch'"))[IMAGES].isna().all()


def test_the_best_is_paired_by_seed():
    rows = table()
    # One seed further apart: a spread of 3 / sqrt(3) over (10, 10, 13).
    rows.loc[
        (rows["method"] == "cross_entropy") & (rows["noise"] == 0.2) & (rows["seed"] == 2), "test_accuracy"
    ] += 0.03
    found = best_information(rows).set_index("noise")
    assert found["best"].tolist() == [NOISY, CORRECTED, IMAGES]
    assert found["next"].tolist() == [CORRECTED, NOISY, CORRECTED]
    assert found.loc[0.2, "difference"] == 11
    assert found.loc[0.2, "±"] == pytest.approx(4.303 * 1, abs=0.01)  # t(2) at 97.5 % times sqrt(3) / sqrt(3)
    assert found["verdict"].tolist() == ["clear"] * 3


def test_where_lines_cross():
    found = crossings(table()).set_index(["first", "second"])["at"]
    # 80 - 50 d = 70 - 12.5 d, with d the rate above 20 % over 40 points of noise: 20 d = 10 + 5 d.
    assert found[NOISY, CORRECTED] == pytest.approx(0.2 + 0.4 * 10 / 15, abs=0.006)
    assert found[NOISY, IMAGES] == pytest.approx(0.6 + 0.2 * 2 / 40, abs=0.006)
    assert (CORRECTED, CLEAN) not in found.index
    assert set(found.index) == {(NOISY, CORRECTED), (NOISY, IMAGES), (NOISY, CLEAN), (CORRECTED, IMAGES)}


def test_the_figure_has_a_line_per_kind():
    (axis,) = information_over_noise(by_information(table())).axes
    lines = [container.lines[0] for container in axis.containers]
    assert len(lines) == len(KINDS)
    assert lines[0].get_ydata() == pytest.approx([81, 61, 21])
    assert np.allclose(lines[1].get_ydata(), 51)


def test_the_steps_of_equal_time_are_those_of_the_preset_and_near_emlcs():
    """By preset ``small`` itself; whole epochs are at most a seventh off."""
    config = make_config(preset="small", dataset="cifar10", device="cpu", precision="float32")
    assert (50_000 - config.n_clean) // config.batch_size == EPOCH
    assert IN_EMLCS_TIME["emlc"] == config.epochs * EPOCH
    costs = pd.read_csv(REPOSITORY / "figures" / "step_cost_small_cpu.csv").query("k == 1")
    costs = costs.set_index("method")["of EMLC's"]
    for method, steps in IN_EMLCS_TIME.items():
        assert 6 / 7 < costs[method] * steps / IN_EMLCS_TIME["emlc"] < 1.05, method


@pytest.mark.parametrize(("name", "n"), [("small_equal_time_cifar10", 21), ("small_cifar10", 15)])
def test_rows_in_emlcs_time(name, n):
    """All of the first table; of the second EMLC with k = 1 alone."""
    rows = in_emlcs_time(pd.read_csv(REPOSITORY / "figures" / f"{name}.csv"))
    assert len(rows) == n
    assert set(rows["method"]) == (
        {"emlc"} if name == "small_cifar10" else {"cross_entropy", "clean_only", "fixmatch"}
    )
