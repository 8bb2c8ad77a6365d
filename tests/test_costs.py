"""What is said of tables of time and memory, against numbers by hand."""

import time

import pandas as pd
import pytest
import torch

from benchmarks.networks import accuracy
from emlc_lib.data.spec import ImageSet
from emlc_lib.experiments.costs import by_variant, memory_growth, over_k, records, share_of_time, speedups

GROWTH = pd.DataFrame(
    {
        "variant": ["plain SGD", "EMLC k=1", "EMLC, exact k=1", "EMLC k=20", "EMLC, exact k=20"],
        "seconds": [1.0, 3.0, 6.0, 2.5, 5.0],
        "peak_MiB": [90, 200, 300, 500, 330],
    }
)


def test_variants_are_split_into_how_and_k():
    rows = over_k(GROWTH)
    assert list(zip(rows["how"], rows["k"], strict=True)) == [
        ("EMLC", 1), ("EMLC, exact", 1), ("EMLC", 20), ("EMLC, exact", 20),
    ]  # fmt: skip


def test_memory_grows_from_the_first_k_to_the_last():
    grown = memory_growth(GROWTH)
    assert grown.loc["EMLC"].tolist() == [200, 500, 2.5]
    assert grown.loc["EMLC, exact", "factor"] == 1.1


def test_shares_of_time_are_of_seconds():
    assert share_of_time(GROWTH, "EMLC k=1", "plain SGD") == 3
    assert by_variant(GROWTH.assign(variant="  " + GROWTH["variant"]), "seconds")["EMLC k=20"] == 2.5


def test_speedups_are_of_whole_batches():
    rows = [
        ("crop", how, batch, speed)
        for batch in (64, 512)
        for how, speed in (("one by one, x", 10), ("batched, y", batch))
    ]
    rates = pd.DataFrame(rows, columns=["pipeline", "how", "batch", "images_per_second"])
    assert speedups(rates).loc["crop"].to_dict() == {64: 6.4, 512: 51.2}


def test_a_record_is_the_mean_of_its_seeds_and_says_how_sure_it_is_of_its_target():
    accuracy = [0.752, 0.756, 0.757]
    runs = pd.DataFrame({"test_accuracy": accuracy, "seconds": [10.0, 12.0, 14.0], "hardware": "x", "threads": 2})
    (row,) = records(runs.assign(target=0.75, record="first")).to_dict("records")
    assert (row["n"], row["accuracy"], row["seconds"], row["std of seconds"]) == (3, 75.5, 12.0, 2.0)
    # By hand: t = 0.005 / (0.0026458 / sqrt 3) = 3.2733 with two degrees of freedom.
    t = 3.2733
    assert row["p"] == round(0.5 - t / (2 * (2 + t**2) ** 0.5), 4)


@pytest.mark.slow
def test_a_network_learns_in_the_processor_time_that_it_is_given():
    """Ten classes of their own brightness, so that a second suffices to be above chance, 0.1."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 10
    images = (25 * labels[:, None, None, None] + torch.randint(20, (600, 3, 32, 32), generator=generator)).byte()
    labels = labels.numpy()
    data = ImageSet("cifar10", [str(c) for c in range(10)], images[:512], labels[:512], images[512:], labels[512:])
    before = time.process_time()
    found = accuracy("airbench, 16-32-128-128", 0.1, data)
    assert 6 < time.process_time() - before < 60  # a step, and the evaluation, are longer on a slower machine
    assert found["accuracy"] > 0.3
    assert found["epochs"] > 1
