"""Metrics against loops and scikit-learn. Sums of up to 10^5 float64 terms: 1e-12 is far above their rounding."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score

from emlc_lib.core.metrics import accuracy, correction_counts, correction_rates


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(n, c=4, seed=0):
    """Soft labels, gates, given labels of which about half are wrong, and true labels."""
    g = generator(seed)
    true = torch.randint(c, (n,), generator=g)
    given = torch.where(torch.rand(n, generator=g) < 0.6, torch.randint(c, (n,), generator=g), true)
    soft = torch.rand(n, c, generator=g).softmax(1)
    return soft, torch.rand(n, generator=g), given, true


def by_loop(soft, gate, given, true):
    counts = [0] * 7 + [0.0] * 3
    for q, w, y, t in zip(soft.tolist(), gate.tolist(), given.tolist(), true.tolist(), strict=True):
        if t < 0:
            counts[5] += 1
            counts[6] += q.index(max(q)) == y
            counts[9] += w
            continue
        counts[0] += 1
        counts[1] += y != t
        counts[2] += q.index(max(q)) == t
        counts[3] += q.index(max(q)) == t and y != t
        counts[4] += q.index(max(q)) == y and y != t
        counts[7 if y == t else 8] += w
    return counts


@pytest.mark.parametrize("n", [1, 7, 500])
def test_accuracy_against_scikit_learn(n):
    scores, _, _, true = sample(n)
    # Scores are logits: their sign and scale do not matter.
    scores = scores * 100 - 50
    assert accuracy(scores, true) == pytest.approx(accuracy_score(true, scores.argmax(1)), rel=1e-15)


def test_accuracy_is_exact_where_float32_is_not():
    """Float32 gives 0.30000001..."""
    labels = torch.tensor([0] * 3 + [1] * 7)
    assert accuracy(torch.tensor([[1.0, 0.0]] * 10), labels) == 0.3


def test_accuracy_of_nothing_is_undefined():
    assert math.isnan(accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))


@pytest.mark.parametrize("n", [1, 200])
def test_counts_against_a_loop(n):
    batch = sample(n)
    value = correction_counts(*batch)
    assert value.dtype == torch.float64
    assert value.tolist() == pytest.approx(by_loop(*batch), rel=1e-12)


def test_the_gate_is_summed_in_float64():
    """10^5 float32 gates of 0.1: summed in float32 their total would be off by far more than 1e-12."""
    n = 100_000
    gate, zeros = torch.full((n,), 0.1), torch.zeros(n, dtype=torch.int64)
    counts = correction_counts(torch.ones(n, 2), gate, zeros, zeros)
    assert counts[7].item() == pytest.approx(n * float(gate[0]), rel=1e-12)


def test_rates_by_hand_and_against_scikit_learn():
    soft, gate, given, true = sample(300)
    rates = correction_rates(correction_counts(soft, gate, given, true))
    assert list(rates) == ["recovery_all", "recovery_wrong", "confirmed_wrong", "gate_right", "gate_wrong"]
    wrong, corrected = given != true, soft.argmax(1)
    assert rates["recovery_all"] == pytest.approx(accuracy_score(true, corrected), rel=1e-12)
    # Among the wrong labels: the share that came out right, which is a micro-averaged recall.
    recall = recall_score(true[wrong], corrected[wrong], average="micro")
    assert rates["recovery_wrong"] == pytest.approx(recall, rel=1e-12)
    kept = accuracy_score(given[wrong], corrected[wrong])
    assert rates["confirmed_wrong"] == pytest.approx(kept, rel=1e-12)
    assert 0.05 < kept < 0.95
    assert rates["gate_right"] == pytest.approx(gate[~wrong].double().mean().item(), rel=1e-12)
    assert rates["gate_wrong"] == pytest.approx(gate[wrong].double().mean().item(), rel=1e-12)


def test_without_a_gate_there_are_no_rates_of_one():
    soft, gate, given, true = sample(300)
    counts = correction_counts(soft, None, given, true)
    assert torch.equal(counts, correction_counts(soft, gate, given, true)[:7])
    rates = correction_rates(counts)
    assert list(rates) == ["recovery_all", "recovery_wrong", "confirmed_wrong"]
    assert rates.items() <= correction_rates(correction_counts(soft, gate, given, true)).items()


def test_rates_of_four_samples():
    """True 0 0 1 1, given 0 1 1 0, corrected 0 0 0 1: two wrong labels, both recovered; one right one spoilt."""
    soft = torch.eye(2)[[0, 0, 0, 1]]
    gate = torch.tensor([0.75, 0.25, 0.5, 0.5])
    counts = correction_counts(soft, gate, torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1]))
    assert counts.tolist() == [4, 2, 3, 2, 0, 0, 0, 1.25, 0.75, 0]
    assert correction_rates(counts) == {
        "recovery_all": 0.75,
        "recovery_wrong": 1.0,
        "confirmed_wrong": 0.0,
        "gate_right": 0.625,
        "gate_wrong": 0.375,
    }


@pytest.mark.parametrize(
    ("given", "undefined"),
    [
        ([0, 1, 1], {"recovery_wrong", "confirmed_wrong", "gate_wrong"}),  # all right
        ([1, 0, 0], {"gate_right"}),  # all wrong
    ],
)
def test_undefined_rates_are_nan(given, undefined):
    soft, gate = torch.eye(2)[[0, 1, 1]], torch.full((3,), 0.5)
    rates = correction_rates(correction_counts(soft, gate, torch.tensor(given), torch.tensor([0, 1, 1])))
    assert {name for name, value in rates.items() if math.isnan(value)} == undefined
    assert rates["recovery_all"] == 1.0


def test_rates_of_nothing_are_nan():
    rates = correction_rates(torch.zeros(10, dtype=torch.float64))
    assert len(rates) == 5
    assert all(math.isnan(value) for value in rates.values())


def test_samples_of_unknown_true_label_count_apart():
    soft, gate, given, true = sample(200)
    known = torch.arange(200) % 3 > 0
    batch = soft, gate, given, torch.where(known, true, -1)
    value = correction_counts(*batch)
    assert value.tolist() == pytest.approx(by_loop(*batch), rel=1e-12)
    rates = correction_rates(correction_counts(soft[known], gate[known], given[known], true[known]))
    assert correction_rates(value) == pytest.approx(rates | {
        "kept": accuracy_score(given[~known], soft[~known].argmax(1)),
        "gate": gate[~known].double().mean().item(),
    }, rel=1e-12)  # fmt: skip
    nothing = correction_rates(correction_counts(soft, None, given, torch.full_like(true, -1)))
    assert nothing.pop("kept") == accuracy_score(given, soft.argmax(1))
    assert len(nothing) == 3
    assert all(math.isnan(rate) for rate in nothing.values())
