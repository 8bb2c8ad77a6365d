"""Label corruption against Appendix E, literal formulas and published facts about the class names.

Statistical bounds are five standard deviations of the binomial count in question: a correct sampler exceeds one
of a few hundred such bounds with probability below 1e-4, and the seeds are fixed, so no test is flaky.
"""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from emlc_lib.core.noise import (
    NoisyLabels,
    asymmetric_noise,
    human_noise,
    random_successors,
    symmetric_noise,
    transition_matrix,
)
from emlc_lib.data.datasets import CIFAR100_SUPERCLASSES, DATASETS
from emlc_lib.data.prepare import read_human_labels

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

# Appendix E: TRUCK -> AUTOMOBILE, BIRD -> AIRPLANE, DEER -> HORSE, CAT <-> DOG.
CIFAR10_MAP = {
    "airplane": "airplane", "automobile": "automobile", "bird": "airplane", "cat": "dog", "deer": "horse",
    "dog": "cat", "frog": "frog", "horse": "horse", "ship": "ship", "truck": "automobile",
}  # fmt: skip

# fine_label_names of the CIFAR-100 distribution's `meta` file.
CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = CIFAR100_NAMES.split()

# The distribution's coarse label of each fine label, as its data files pair them.
CIFAR100_COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7,
    6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10,
    16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16,
    12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
]  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


def within_five_sigma(observed, probability, n):
    """Whether observed shares of n draws agree with a probability; shares of 0 and 1 must be exact."""
    return np.abs(observed - probability) <= 5 * np.sqrt(probability * (1 - probability) / n) + 1e-12


# 0.29 * 100, 0.57 * 100 and 0.58 * 50 fall below the integer in binary floating point.
@pytest.mark.parametrize("n", [50, 100, 1000, 45_000])
@pytest.mark.parametrize("rate", ["0", "0.003", "0.29", "0.4", "0.57", "0.58", "0.999", "1"])
def test_asymmetric_moves_exactly_floor_of_rate_times_n(n, rate):
    """No class is its own successor here, so every chosen label is a wrong one and can be counted."""
    true = rng(1).integers(5, size=n)
    labels = asymmetric_noise(true, 5, float(rate), rng(), np.array([1, 2, 3, 4, 0]))
    assert labels.wrong.sum() == floor(Fraction(rate) * n)


def test_rates_count_as_they_are_written():
    true = np.zeros(1000, dtype=int)
    counted = [asymmetric_noise(true, 2, i / 1000, rng(), np.array([1, 0])).wrong.sum() for i in range(1001)]
    assert counted == list(range(1001))


@pytest.mark.parametrize(
    ("n", "rate", "count"), [(100, 0.29, 29), (10, 0.99, 9), (7, 0.5, 3), (30, 0.0, 0), (30, 1.0, 30)]
)
def test_symmetric_redraws_exactly_floor_of_rate_times_n(n, rate, count):
    """Among 500 classes a redrawn label is nearly always wrong: over 20 seeds the largest count is the exact one.

    All 29 redraws of a seed miss the true class with probability 0.998^29 = 0.94; that no seed of 20 has it is
    impossible in practice. A sampler that chose each sample independently would exceed the count on some seed.
    """
    true = np.arange(n)
    wrong = [symmetric_noise(true, 500, rate, rng(seed)).wrong.sum() for seed in range(20)]
    assert max(wrong) == count


def test_symmetric_redraws_over_all_classes():
    """At rate 1 the label says nothing: every row is uniform, the true class included."""
    n, c = 40_000, 4
    true = rng(1).integers(c, size=n)
    labels = symmetric_noise(true, c, 1.0, rng())
    np.testing.assert_allclose(labels.expected, np.full((c, c), 0.25), rtol=1e-15)
    assert within_five_sigma(labels.empirical, 0.25, np.bincount(true)[:, None]).all()
    # Without the true class among the draws this would be 1.
    assert within_five_sigma(labels.wrong.mean(), 0.75, n)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_symmetric_transitions(rate):
    """T = (1 - rate) I + rate / C, and a large sample agrees with it entry by entry."""
    n, c = 60_000, 10
    true = rng(1).integers(c, size=n)
    labels = symmetric_noise(true, c, rate, rng())
    literal = np.array([[rate / c + (1 - rate if i == j else 0) for j in range(c)] for i in range(c)])
    # Both are a handful of float64 operations on numbers below one.
    np.testing.assert_allclose(labels.expected, literal, rtol=0, atol=1e-15)
    assert within_five_sigma(labels.empirical, literal, np.bincount(true)[:, None]).all()
    assert within_five_sigma(labels.wrong.mean(), rate * (c - 1) / c, n)


def test_asymmetric_transitions():
    """Appendix E's map: look-alikes get the rate, classes without one keep their label for certain."""
    n, rate = 60_000, 0.4
    true = rng(1).integers(10, size=n)
    labels = asymmetric_noise(true, 10, rate, rng(), DATASETS["cifar10"].successors(CIFAR10))
    literal = np.eye(10)
    for i, j in [(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)]:
        literal[i, i], literal[i, j] = 1 - rate, rate
    np.testing.assert_allclose(labels.expected, literal, rtol=0, atol=1e-15)
    assert within_five_sigma(labels.empirical, literal, np.bincount(true)[:, None]).all()
    # Half of the classes have a look-alike.
    assert within_five_sigma(labels.wrong.mean(), rate / 2, n)


def test_expected_matrix_is_that_of_the_rounded_count():
    """floor(0.5 * 5) = 2 of 5 samples are redrawn: the process has the share 0.4."""
    labels = symmetric_noise([0, 0, 1, 1, 1], 2, 0.5, rng())
    np.testing.assert_allclose(labels.expected, [[0.8, 0.2], [0.2, 0.8]], rtol=1e-15)
    labels = asymmetric_noise([0, 0, 1, 1, 1], 2, 0.5, rng(), np.array([1, 0]))
    np.testing.assert_allclose(labels.expected, [[0.6, 0.4], [0.4, 0.6]], rtol=1e-15)


def test_rows_are_true_classes():
    """T[i, j] = p(noisy = j | true = i): class 0 turns into class 1 and never back, so T is not symmetric."""
    true = np.array([0] * 60 + [1] * 40)
    labels = asymmetric_noise(true, 2, 0.5, rng(), np.array([1, 1]))
    moved = (labels.noisy[:60] == 1).sum()
    np.testing.assert_allclose(labels.expected, [[0.5, 0.5], [0.0, 1.0]], rtol=1e-15)
    np.testing.assert_allclose(labels.empirical, [[1 - moved / 60, moved / 60], [0.0, 1.0]], rtol=1e-15)
    assert 0 < moved < 60


def test_transition_matrix_by_counting():
    true = np.array([0, 0, 0, 1, 3, 3, 3, 3])
    noisy = np.array([0, 1, 1, 3, 3, 0, 1, 1])
    expected = [
        [1 / 3, 2 / 3, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 0],  # class 2 does not occur: a row that changes nothing
        [1 / 4, 2 / 4, 0, 1 / 4],
    ]
    np.testing.assert_allclose(transition_matrix(true, noisy, 4), expected, rtol=1e-15)


def test_wrong_and_empirical_are_of_the_labels():
    labels = NoisyLabels(np.array([0, 1, 1]), np.array([0, 0, 1]), np.full((2, 2), 0.5))
    assert labels.wrong.tolist() == [False, True, False]
    assert labels.empirical.tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_every_sample_is_chosen_equally_often():
    """Over 500 seeds each of 40 samples is chosen Binomial(500, 0.3) times."""
    true = np.zeros(40, dtype=int)
    seeds = 500
    share = sum(asymmetric_noise(true, 2, 0.3, rng(s), np.array([1, 0])).wrong for s in range(seeds)) / seeds
    assert within_five_sigma(share, 0.3, seeds).all()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_labels_are_a_function_of_the_generator_and_the_input_is_kept(kind):
    def corrupt(true, seed):
        if kind == "symmetric":
            return symmetric_noise(true, 5, 0.6, rng(seed))
        return asymmetric_noise(true, 5, 0.6, rng(seed), np.array([1, 2, 3, 4, 0]))

    true = rng(1).integers(5, size=200)
    before = true.copy()
    first, again, other = corrupt(true, 3), corrupt(list(true), 3), corrupt(true, 4)
    assert np.array_equal(first.noisy, again.noisy)
    assert not np.array_equal(first.noisy, other.noisy)
    assert np.array_equal(true, before)
    assert np.array_equal(first.true, before)
    assert first.noisy.dtype == first.true.dtype == np.int64


@pytest.mark.parametrize("rate", [1.7, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_rates_outside_zero_to_one_are_refused(kind, rate):
    arguments = (np.zeros(10, dtype=int), 2, rate, rng())
    with pytest.raises(ValueError, match=r"^noise: .*from 0 to 1"):
        symmetric_noise(*arguments) if kind == "symmetric" else asymmetric_noise(*arguments, np.array([1, 0]))


@pytest.mark.parametrize("true", [[0, 1, 4], [0, -1]])
def test_labels_out_of_range_are_refused(true):
    with pytest.raises(ValueError, match=r"labels: must lie in \[0, 4\)"):
        symmetric_noise(true, 4, 0.5, rng())
    with pytest.raises(ValueError, match=r"labels: must lie in \[0, 4\)"):
        asymmetric_noise(true, 4, 0.5, rng(), np.arange(4))


def test_other_malformed_labels_are_refused():
    with pytest.raises(ValueError, match="labels: expected one dimension"):
        symmetric_noise(np.eye(3, dtype=int), 4, 0.5, rng())
    with pytest.raises(ValueError, match=r"^successor: must lie in \[0, 3\)"):
        asymmetric_noise([0, 1, 2], 3, 0.5, rng(), np.array([1, 2, 3]))


class TestSuccessors:
    def test_cifar10(self):
        assert DATASETS["cifar10"].successors(CIFAR10).tolist() == [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]
        turned = [CIFAR10[j] for j in DATASETS["cifar10"].successors(CIFAR10)]
        assert turned == [CIFAR10_MAP[name] for name in CIFAR10]

    def test_classes_are_found_by_name_and_not_by_place(self):
        backwards = CIFAR10[::-1]
        turned = [backwards[j] for j in DATASETS["cifar10"].successors(backwards)]
        assert turned == [CIFAR10_MAP[name] for name in backwards]

    def test_digits_have_the_mnist_map_of_patrini(self):
        """2 -> 7, 3 -> 8, 5 <-> 6, 7 -> 1."""
        assert DATASETS["digits"].successors(list("0123456789")).tolist() == [0, 1, 7, 8, 4, 6, 5, 1, 8, 9]

    def test_fashion_mnist(self):
        classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"]
        assert DATASETS["fashion_mnist"].successors([*classes, "Ankle boot"]).tolist() == [
            6,
            1,
            4,
            3,
            2,
            5,
            6,
            5,
            8,
            7,
        ]

    def test_cifar100_is_circular_in_each_superclass(self):
        """The next class number with the same coarse label, and after the last the first."""
        expected = []
        for i, coarse in enumerate(CIFAR100_COARSE):
            group = [j for j in range(100) if CIFAR100_COARSE[j] == coarse]
            expected.append(group[(group.index(i) + 1) % 5])
        successor = DATASETS["cifar100"].successors(CIFAR100)
        assert successor.tolist() == expected
        assert sorted(successor) == list(range(100))
        by_name = {CIFAR100[i]: CIFAR100[j] for i, j in enumerate(successor)}
        assert (by_name["beaver"], by_name["whale"]) == ("dolphin", "beaver")


class TestSuperclasses:
    def test_twenty_groups_of_five_and_a_hundred_names(self):
        names = [name for group in CIFAR100_SUPERCLASSES.values() for name in group]
        assert [len(group) for group in CIFAR100_SUPERCLASSES.values()] == [5] * 20
        assert len(set(names)) == 100
        # The class numbers of CIFAR-100 are alphabetical.
        assert sorted(names) == CIFAR100

    @pytest.mark.parametrize("superclass", CIFAR100_SUPERCLASSES)
    def test_groups_are_in_the_order_of_class_numbers(self, superclass):
        group = CIFAR100_SUPERCLASSES[superclass]
        assert list(group) == sorted(group)

    def test_members_are_the_distributions(self):
        """Coarse labels are numbered in the table's order, which is the distribution's."""
        expected = [tuple(CIFAR100[i] for i in range(100) if CIFAR100_COARSE[i] == coarse) for coarse in range(20)]
        assert list(CIFAR100_SUPERCLASSES.values()) == expected


class TestHumanLabels:
    def archive(self, folder, **columns):
        path = folder / "labels.npz"
        np.savez(path, **columns)
        return path

    def test_a_column_is_read(self, tmp_path):
        path = self.archive(tmp_path, worse_label=np.array([3, 1, 2], np.uint8), aggre_label=np.array([0, 1, 2]))
        for given in (path, str(path)):
            labels = read_human_labels(given, "worse_label")
            assert labels.tolist() == [3, 1, 2]
            assert labels.dtype == np.int64

    def test_labels_and_their_empirical_matrix(self):
        labels = human_noise([0, 0, 1, 1], 3, [0, 2, 1, 1])
        assert labels.noisy.tolist() == [0, 2, 1, 1]
        assert labels.true.tolist() == [0, 0, 1, 1]
        assert labels.expected.tolist() == labels.empirical.tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]]


def test_a_short_successor_map_is_refused():
    with pytest.raises(ValueError, match="successor: 2 entries for 3 classes"):
        asymmetric_noise([0, 1, 2], 3, 0.5, np.random.default_rng(0), np.array([1, 0]))


def test_samples_of_unknown_truth_are_not_in_the_matrix():
    matrix = transition_matrix(np.array([0, -1, 1, 0, -1]), np.array([1, 1, 1, 0, 0]), 2)
    assert matrix.tolist() == [[0.5, 0.5], [0, 1]]
    unknown = np.full(3, -1)
    assert transition_matrix(unknown, np.array([0, 1, 1]), 2).tolist() == [[1, 0], [0, 1]]


def test_one_label_can_move_too():
    assert asymmetric_noise([0], 2, 1.0, rng(), np.array([1, 0])).expected.tolist() == [[0, 1], [1, 0]]
    assert symmetric_noise([0], 2, 1.0, rng()).expected.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_random_successors_are_other_classes_each_as_often():
    draws = np.stack([random_successors(5, rng(seed)) for seed in range(2000)])
    for c in range(5):
        shares = np.bincount(draws[:, c], minlength=5) / len(draws)
        assert within_five_sigma(shares, np.where(np.arange(5) == c, 0, 0.25), len(draws)).all()
    # Each class has a draw of its own.
    shifts = (draws - np.arange(5)) % 5
    assert {len(set(row)) for row in shifts.tolist()} == {1, 2, 3, 4}
    assert random_successors(2, rng()).tolist() == [1, 0]
    with pytest.raises(ValueError, match="n_classes: 1 leave no other class"):
        random_successors(1, rng())


@pytest.mark.parametrize("bad", [[0.0, 1.7], [True, False], ["0", "1"]])
def test_labels_are_integers(bad):
    with pytest.raises(ValueError, match=r"^labels: must be integers"):
        symmetric_noise(bad, 2, 0.5, rng())
    with pytest.raises(ValueError, match=r"^human_labels: must be integers"):
        human_noise([0, 1], 2, bad)


def test_small_integers_become_int64():
    labels = symmetric_noise(np.array([0, 255], dtype=np.uint8), 256, 0.0, rng())
    assert (labels.noisy.dtype, labels.true.dtype) == (np.int64, np.int64)
    assert len(symmetric_noise([], 2, 0.5, rng()).noisy) == 0
