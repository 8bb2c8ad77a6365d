"""Properties of noise, splits, measures and losses that hold for every input; the inputs are always the same."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emlc_lib.core.losses import corrupt_half, gate_loss, soft_cross_entropy
from emlc_lib.core.metrics import accuracy, correction_counts, correction_rates
from emlc_lib.core.noise import (
    asymmetric_noise,
    human_noise,
    random_successors,
    symmetric_noise,
    transition_matrix,
)
from emlc_lib.data.splits import split_as_released, split_clean_noisy
from emlc_lib.experiments.label_errors import ranking_quality

# Neither a clock nor a store of failures decides what is tried.
quickly = settings(deadline=None, derandomize=True, max_examples=60, database=None)

SEEDS = st.integers(0, 2**32 - 1)
RATES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.29, 0.5, 0.57, 1.0]))


def rng(seed):
    return np.random.default_rng(seed)


@st.composite
def labelled(draw):
    """Labels (n,) of n_classes classes, some of which may not occur."""
    n_classes = draw(st.integers(2, 12))
    n = draw(st.integers(0, 80))
    return rng(draw(SEEDS)).integers(n_classes, size=n), n_classes


@st.composite
def corrupted(draw):
    """Symmetric or asymmetric noise, the successors that it may turn a class into, its rate and its seed."""
    (true, n_classes), rate, seed = draw(labelled()), draw(RATES), draw(SEEDS)
    if draw(st.booleans()):
        return symmetric_noise(true, n_classes, rate, rng(seed)), None, rate, seed
    successor = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=n_classes, max_size=n_classes)))
    return asymmetric_noise(true, n_classes, rate, rng(seed), successor), successor, rate, seed


def is_floor(count, rate, n):
    """Whether count is floor(rate * n), up to a rate that falls short of an integer by rounding."""
    return -1e-9 <= rate * n - count < 1


class TestNoise:
    @quickly
    @given(corrupted())
    def test_labels_stay_in_range_and_wrong_ones_are_at_most_those_that_were_redrawn(self, case):
        labels, successor, rate, _ = case
        n, n_classes = len(labels.true), len(labels.expected)
        assert labels.noisy.shape == (n,)
        assert np.isin(labels.noisy, np.arange(n_classes)).all()
        assert labels.wrong.sum() <= rate * n + 1e-9
        if successor is not None:
            assert (labels.noisy[labels.wrong] == successor[labels.true[labels.wrong]]).all()

    @quickly
    @given(labelled(), RATES, SEEDS)
    def test_the_count_is_exact_where_every_redrawn_label_is_wrong(self, case, rate, seed):
        true, n_classes = case
        labels = asymmetric_noise(true, n_classes, rate, rng(seed), random_successors(n_classes, rng(seed)))
        assert is_floor(labels.wrong.sum(), rate, len(true))

    @quickly
    @given(corrupted())
    def test_rows_are_distributions_over_noisy_labels(self, case):
        labels, successor, rate, _ = case
        for matrix in (labels.expected, labels.empirical):
            assert (matrix >= 0).all()
            # At most 12 numbers of at most one are added.
            np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-14)
        # p(noisy | true) is zero in the sample where it is zero in the process: rows are true classes.
        assert (labels.empirical[(labels.expected == 0) & (np.eye(len(labels.expected)) == 0)] == 0).all()
        # The share of redrawn samples is that of the rounded count, the same in each row.
        n, c = len(labels.true), len(labels.expected)
        moves = np.full(c, (c - 1) / c) if successor is None else (successor != np.arange(c)).astype(float)
        left = 1 - np.diag(labels.expected)
        share = left.max() / moves.max() if moves.any() else 0
        np.testing.assert_allclose(left, share * moves, rtol=0, atol=1e-14)
        if n and moves.any():
            assert is_floor(round(share * n), rate, n)

    @quickly
    @given(labelled(), SEEDS)
    def test_without_noise_nothing_changes(self, case, seed):
        true, n_classes = case
        successor = random_successors(n_classes, rng(seed))
        for labels in (
            symmetric_noise(true, n_classes, 0.0, rng(seed)),
            asymmetric_noise(true, n_classes, 0.0, rng(seed), successor),
            human_noise(true, n_classes, true),
        ):
            assert np.array_equal(labels.noisy, true)
            assert np.array_equal(labels.expected, np.eye(n_classes))

    @quickly
    @given(labelled(), SEEDS)
    def test_observed_transitions_are_counts(self, case, seed):
        """Weighted by the classes' sizes, the columns add up to the counts of the noisy labels."""
        true, n_classes = case
        noisy = rng(seed).integers(n_classes, size=len(true))
        matrix = transition_matrix(true, noisy, n_classes)
        sizes = np.bincount(true, minlength=n_classes)
        np.testing.assert_allclose(sizes @ matrix, np.bincount(noisy, minlength=n_classes), rtol=0, atol=1e-11)


@st.composite
def sizes(draw):
    """Labels with enough samples of every class for a clean set of the size, and a size of the noisy set."""
    n_classes, per_class = draw(st.integers(2, 8)), draw(st.integers(1, 6))
    counts = draw(st.lists(st.integers(per_class, 15), min_size=n_classes, max_size=n_classes))
    counts[0] += 1  # so that something is left for the noisy set
    labels = rng(draw(SEEDS)).permutation(np.repeat(np.arange(n_classes), counts))
    n_clean = n_classes * per_class
    n_noisy = draw(st.one_of(st.none(), st.integers(1, len(labels) - n_clean)))
    return labels, n_classes, n_clean, n_noisy


class TestSplits:
    @quickly
    @given(sizes(), SEEDS)
    def test_disjoint_balanced_and_of_the_sizes_asked_for(self, case, seed):
        labels, n_classes, n_clean, n_noisy = case
        split = split_clean_noisy(*case, rng(seed))
        assert not set(split.clean) & set(split.noisy)
        assert (np.bincount(labels[split.clean], minlength=n_classes) == n_clean // n_classes).all()
        assert len(split.noisy) == (len(labels) - n_clean if n_noisy is None else n_noisy)
        for part in (split.clean, split.noisy):
            assert (np.diff(part) > 0).all()  # sorted, none twice
            assert np.isin(part, np.arange(len(labels))).all()
        assert split.validation is split.clean

    @quickly
    @given(sizes(), SEEDS)
    def test_without_a_size_the_noisy_set_is_all_the_rest(self, case, seed):
        labels, n_classes, n_clean, n_noisy = case
        whole = split_clean_noisy(labels, n_classes, n_clean, None, rng(seed))
        assert np.array_equal(np.sort([*whole.clean, *whole.noisy]), np.arange(len(labels)))
        part = split_clean_noisy(labels, n_classes, n_clean, n_noisy, rng(seed))
        assert np.array_equal(part.clean, whole.clean)
        assert set(part.noisy) <= set(whole.noisy)

    @quickly
    @given(sizes(), SEEDS)
    def test_as_released_every_set_has_its_size_and_the_clean_one_is_the_same(self, case, seed):
        labels, n_classes, n_clean, _ = case
        split = split_as_released(*case, [rng(seed), rng(seed + 1), rng(seed + 2)])
        disjoint = split_clean_noisy(*case, rng(seed))
        assert np.array_equal(split.clean, disjoint.clean)
        assert len(split.noisy) == len(disjoint.noisy)
        assert (np.bincount(labels[split.validation], minlength=n_classes) == n_clean // n_classes).all()


@st.composite
def corrections(draw):
    """Corrected labels, gates, given and true labels of n samples; some true ones are unknown."""
    n, n_classes, seed = draw(st.integers(1, 40)), draw(st.integers(2, 6)), draw(SEEDS)
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(n, n_classes, generator=generator, dtype=torch.float64)
    gate = torch.rand(n, generator=generator, dtype=torch.float64)
    given_labels, true = (torch.randint(n_classes, (n,), generator=generator) for _ in range(2))
    unknown = torch.rand(n, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return soft / soft.sum(1, keepdim=True), gate, given_labels, torch.where(unknown, -1, true)


class TestCorrection:
    @quickly
    @given(corrections(), st.lists(st.integers(0, 40), max_size=4), st.booleans())
    def test_counts_add_up_over_any_cut_into_batches(self, case, cuts, gated):
        soft, gate, given_labels, true = case
        cuts = [0, *sorted(min(cut, len(true)) for cut in cuts), len(true)]
        parts = [
            correction_counts(soft[a:b], gate[a:b] if gated else None, given_labels[a:b], true[a:b])
            for a, b in itertools.pairwise(cuts)
        ]
        whole = correction_counts(soft, gate if gated else None, given_labels, true)
        # The gates are the only ones that are no integers: up to 40 numbers below one.
        torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-13)

    @quickly
    @given(corrections(), SEEDS)
    def test_the_order_of_samples_does_not_count(self, case, seed):
        order = torch.from_numpy(rng(seed).permutation(len(case[0])))
        permuted = correction_counts(*(values[order] for values in case))
        torch.testing.assert_close(permuted, correction_counts(*case), rtol=0, atol=1e-13)

    @quickly
    @given(corrections())
    def test_rates_are_shares_or_undefined(self, case):
        rates = correction_rates(correction_counts(*case))
        known, wrong = (case[3] >= 0).any(), ((case[3] >= 0) & (case[2] != case[3])).any()
        for name, rate in rates.items():
            # A mean of gates is a quotient of two rounded sums.
            assert np.isnan(rate) or 0 <= rate <= 1 + 1e-12
            assert not (np.isnan(rate) and name == "recovery_all" and known)
        assert np.isnan(rates["recovery_wrong"]) == np.isnan(rates["gate_wrong"]) == (not wrong)
        if wrong:
            assert rates["recovery_wrong"] + rates["confirmed_wrong"] <= 1 + 1e-12

    @quickly
    @given(corrections())
    def test_labels_that_are_kept_are_recovered_where_they_are_right(self, case):
        soft, gate, given_labels, true = case
        kept = torch.nn.functional.one_hot(given_labels, soft.shape[1]).double()
        counts = correction_counts(kept, gate, given_labels, true)
        n, wrong, recovered, recovered_wrong, confirmed = counts[:5].tolist()
        assert (recovered, recovered_wrong, confirmed) == (n - wrong, 0, wrong)

    @quickly
    @given(corrections())
    def test_accuracy_is_the_recovery_of_known_labels(self, case):
        soft, _, _, true = case
        known = true >= 0
        rate = correction_rates(correction_counts(*case))["recovery_all"]
        if known.any():
            assert accuracy(soft[known], true[known]) == pytest.approx(rate, abs=1e-15)


@st.composite
def ranked(draw):
    """Scores with ties, and which labels are wrong: some, not all."""
    n, seed = draw(st.integers(2, 50)), draw(SEEDS)
    wrong = rng(seed).random(n) < draw(st.floats(0, 1))
    wrong[:2] = [True, False]
    return rng(seed + 1).integers(0, draw(st.integers(1, 30)), n) / 32, rng(seed).permutation(wrong)


class TestRankings:
    @quickly
    @given(ranked(), st.floats(0.1, 10), st.floats(-5, 5))
    def test_only_the_order_counts(self, case, scale, shift):
        suspicion, wrong = case
        first = ranking_quality(suspicion, wrong)
        for transformed in (scale * suspicion + shift, np.exp(suspicion), suspicion**3):
            # Equal scores stay equal; those of 1/32 and more apart stay apart.
            assert ranking_quality(transformed, wrong) == pytest.approx(first, abs=1e-12)

    @quickly
    @given(ranked())
    def test_turned_round_the_areas_add_up_to_one(self, case):
        suspicion, wrong = case
        there, back = (ranking_quality(sign * suspicion, wrong)["auc"] for sign in (1, -1))
        # Sums of at most 50 terms below one.
        assert there + back == pytest.approx(1, abs=1e-12)

    @quickly
    @given(ranked(), SEEDS)
    def test_the_area_does_not_depend_on_the_order_of_the_images(self, case, seed):
        suspicion, wrong = case
        order = rng(seed).permutation(len(wrong))
        permuted = ranking_quality(suspicion[order], wrong[order])["auc"]
        assert permuted == pytest.approx(ranking_quality(suspicion, wrong)["auc"], abs=1e-12)

    @quickly
    @given(ranked())
    def test_the_truth_ranks_best(self, case):
        suspicion, wrong = case
        assert ranking_quality(wrong.astype(float), wrong) == {"auc": 1.0, "precision": 1.0}
        assert all(0 <= value <= 1 for value in ranking_quality(suspicion, wrong).values())
        assert ranking_quality(np.zeros(len(wrong)), wrong)["auc"] == 0.5


def logits_of(seed, n, n_classes, scale):
    return scale * torch.randn(n, n_classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = st.tuples(SEEDS, st.integers(1, 20), st.integers(2, 8), st.floats(0, 30))


class TestLosses:
    @quickly
    @given(SHAPES, SEEDS, st.floats(-100, 100))
    def test_soft_cross_entropy_is_least_at_the_soft_labels(self, shape, seed, shift):
        """CE(q, p) >= H(q), with equality at p = q; adding a number to all logits changes nothing."""
        logits, soft = logits_of(*shape), logits_of(seed, *shape[1:]).softmax(1)
        value, entropy = soft_cross_entropy(logits, soft), -torch.special.xlogy(soft, soft).sum(1).mean()
        # Sums of at most 8 terms, each a product of a probability with a logarithm of at most a few hundred.
        assert value >= entropy - 1e-12
        torch.testing.assert_close(soft_cross_entropy(soft.log(), soft), entropy, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(soft_cross_entropy(logits + shift, soft), value, rtol=1e-11, atol=1e-11)

    @quickly
    @given(SHAPES, SEEDS, st.floats(0, 1))
    def test_soft_cross_entropy_is_linear_in_the_soft_labels(self, shape, seed, w):
        logits = logits_of(*shape)
        first, second = logits_of(seed, *shape[1:]).softmax(1), logits_of(seed + 1, *shape[1:]).softmax(1)
        mixed = soft_cross_entropy(logits, w * first + (1 - w) * second)
        expected = w * soft_cross_entropy(logits, first) + (1 - w) * soft_cross_entropy(logits, second)
        torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)

    @quickly
    @given(SHAPES, SEEDS)
    def test_the_gates_loss_is_positive_and_turns_round_with_its_labels(self, shape, seed):
        gate = logits_of(*shape)[:, 0]
        clean = torch.from_numpy(rng(seed).random(len(gate)) < 0.5)
        value = gate_loss(gate, clean)
        assert value >= 0
        torch.testing.assert_close(gate_loss(-gate, ~clean), value, rtol=1e-12, atol=1e-15)

    @quickly
    @given(SHAPES, SEEDS, st.sampled_from(["adversarial", "random", "none"]))
    def test_at_most_half_of_a_clean_batch_is_corrupted(self, shape, seed, strategy):
        logits = logits_of(*shape)
        n, n_classes = logits.shape
        labels = torch.from_numpy(rng(seed).integers(n_classes, size=n))
        value = corrupt_half(labels, logits, strategy, torch.Generator().manual_seed(seed))
        assert torch.equal(value[n // 2 :], labels[n // 2 :])
        assert ((value >= 0) & (value < n_classes)).all()
        changed = (value != labels).sum()
        assert {"adversarial": changed == n // 2, "random": changed <= n // 2, "none": changed == 0}[strategy]
