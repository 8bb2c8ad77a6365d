"""Separation of classes against a loop, and maps of a real student."""

import numpy as np
import pandas as pd
import pytest

from emlc_lib import ConfigError, make_config, run
from emlc_lib.data.datasets import load_dataset
from emlc_lib.experiments.embedding_maps import (
    AT_NOISES,
    START,
    captions,
    check_number,
    map_embeddings,
    separation,
)
from emlc_lib.runtime.places import REPOSITORY


def silhouette_by_loop(points, labels):
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    values = []
    for i, label in enumerate(labels):
        own = [distances[i, j] for j in range(len(labels)) if labels[j] == label and j != i]
        others = [distances[i, labels == c].mean() for c in set(labels) - {label}]
        a, b = np.mean(own), min(others)
        values.append((b - a) / max(a, b))
    return np.mean(values)


def test_the_silhouette_against_a_loop():
    """1e-9: float64 means in another order."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    points = rng.normal(size=(60, 4)) + labels[:, None]
    assert separation(points, labels)["silhouette"] == pytest.approx(silhouette_by_loop(points, labels), rel=1e-9)


def test_separate_classes_and_no_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    apart = rng.normal(size=(400, 5)) + 100 * labels[:, None]
    assert separation(apart, labels)["knn"] == 1.0
    assert separation(apart, labels)["silhouette"] > 0.9
    mixed = separation(rng.normal(size=(400, 5)), labels)
    # Chance is 0.25 with a deviation of 0.02 over 400 samples.
    assert mixed["knn"] < 0.35
    assert abs(mixed["silhouette"]) < 0.05


def test_a_map_of_a_student(tmp_path):
    config = make_config(
        dataset="digits", preset="smoke", noise=0.2, epochs=3, method="cross_entropy", device="cpu"
    )
    finished = run(config, root=tmp_path, show=False)
    images = load_dataset("digits")
    points, numbers = map_embeddings([("student", finished)], images, n=120)
    assert list(points.columns) == ["name", "seed", "label", "class", "x", "y"]
    before, row = numbers.to_dict("records")
    for _, part in points.groupby("name"):
        assert np.array_equal(part["label"], images.test_labels[:120])
    # Random weights, which are the run's own: training separates the classes further.
    assert before["name"] == START
    assert before["digest"] == config.digest
    assert np.isnan(before["test_accuracy"])
    assert before["silhouette"] < row["silhouette"] - 0.03
    assert row["digest"] == config.digest
    assert row["n"] == 120
    assert row["test_accuracy"] == pytest.approx(finished.result["test_accuracy"], abs=1e-4)
    # Far above the 0.1 of chance, or the labels and the embeddings would not belong together.
    assert row["knn"] > 0.5
    again, _ = map_embeddings([("student", finished)], images, n=120)
    assert points.equals(again)


def test_captions_name_the_accuracy_where_there_is_one():
    rows = [("start", 0.0123, 0.5, np.nan), ("MLC", -0.01, 0.604, 0.55), ("MLC", 1, 1, 1)]
    numbers = pd.DataFrame(rows, columns=["name", "silhouette", "knn", "test_accuracy"])
    assert captions(numbers) == {
        "start": "silhouette 0.012, 10-NN 50.0 %",
        "MLC": "silhouette -0.010, 10-NN 60.4 %, test 55.0 %",
    }


def test_too_few_images_for_a_cross_validation_are_refused():
    images = load_dataset("digits")
    check_number(100, images)
    with pytest.raises(ConfigError, match=r"^n: the first 50 test images have 1 of class '3'"):
        check_number(50, images)


def test_the_committed_maps_at_two_rates_are_of_the_study():
    """The digest is a run's own, so a name stands for the configuration that the study makes of it."""
    numbers = pd.read_csv(REPOSITORY / "figures" / "tsne_small_cifar10_numbers.csv")
    assert list(numbers["name"]) == [START, *AT_NOISES]
    for row in numbers[1:].itertuples():
        common = {"dataset": "cifar10", "preset": "small", "precision": "bfloat16", "device": "cpu"}
        assert make_config(**common, **AT_NOISES[row.name], seed=row.seed).digest == row.digest
