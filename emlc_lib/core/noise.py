"""Label corruption: symmetric, asymmetric (Appendix E) and human.

Every transition matrix in this project is oriented as ``T[i, j] = p(noisy = j | true = i)``:
rows are true classes and sum to one.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NoisyLabels:
    """Labels after corruption, with what is needed to judge a correction of them.

    Attributes:
        noisy: (n,) int64, the labels a method may see.
        true: (n,) int64, the labels before corruption; for evaluation only. -1 where nobody knows them.
        expected: (C, C) float64, the transition matrix of the corruption process; for human labels, which
            have no such process, the empirical one.
    """

    noisy: np.ndarray
    true: np.ndarray
    expected: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(n,) bool: which labels differ from the true ones, where those are known."""
        return (self.noisy != self.true) & (self.true >= 0)

    @property
    def wrong_share(self) -> float:
        """The share of wrong labels among those whose true ones are known; NaN if none are."""
        known = int((self.true >= 0).sum())
        return float(self.wrong.sum() / known) if known else float("nan")

    @property
    def empirical(self) -> np.ndarray:
        """(C, C) float64: the observed transition matrix (see :func:`transition_matrix`)."""
        return transition_matrix(self.true, self.noisy, len(self.expected))


def transition_matrix(true: np.ndarray, noisy: np.ndarray, n_classes: int) -> np.ndarray:
    """Observed ``T[i, j] = #(true = i, noisy = j) / #(true = i)``, shape (C, C).

    The row of a class that does not occur among ``true`` is the unit row, so that rows always sum to one. Samples
    whose true label is unknown, -1, do not count.
    """
    known = true >= 0
    pairs = n_classes * true[known] + noisy[known]
    counts = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.eye(n_classes))


def symmetric_noise(true, n_classes: int, rate: float, rng: np.random.Generator) -> NoisyLabels:
    """Appendix E: exactly floor(rate * n) labels, chosen at random, are redrawn uniformly over all C classes.

    A redrawn label can hit the true class, so the expected share of wrong labels is rate * (C - 1) / C.

    Args:
        true: (n,) integer labels in [0, C).
        rate: the share of redrawn labels, from 0 to 1.
        rng: the source of all randomness.

    Raises:
        ValueError: rate outside [0, 1], or a label outside [0, C).
    """
    true = _checked_labels(true, n_classes)
    chosen = _chosen(len(true), rate, rng)
    noisy = true.copy()
    noisy[chosen] = rng.integers(n_classes, size=len(chosen))
    share = len(chosen) / max(len(true), 1)
    return NoisyLabels(noisy, true, (1 - share) * np.eye(n_classes) + share / n_classes)


def asymmetric_noise(
    true, n_classes: int, rate: float, rng: np.random.Generator, successor: np.ndarray
) -> NoisyLabels:
    """Appendix E: exactly floor(rate * n) labels, chosen at random among all, move to a look-alike class.

    Args:
        true: (n,) integer labels in [0, C).
        rate: the share of chosen samples, from 0 to 1. Samples of a class without a look-alike keep their
            label, so the share of wrong labels can be lower (CIFAR-10: half of it in expectation).
        rng: the source of all randomness.
        successor: (C,) integers, the class that each class turns into (see :func:`successor_classes`).

    Raises:
        ValueError: rate outside [0, 1], a label or a successor outside [0, C).
    """
    true = _checked_labels(true, n_classes)
    successor = _checked_labels(successor, n_classes, "successor")
    if len(successor) != n_classes:
        raise ValueError(f"successor: {len(successor)} entries for {n_classes} classes")
    chosen = _chosen(len(true), rate, rng)
    noisy = true.copy()
    noisy[chosen] = successor[true[chosen]]
    share = len(chosen) / max(len(true), 1)
    expected = (1 - share) * np.eye(n_classes)
    np.add.at(expected, (np.arange(n_classes), successor), share)
    return NoisyLabels(noisy, true, expected)


def random_successors(n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """(C,) int64: for each class another one, drawn uniformly, as the released code's flips have it.

    Raises:
        ValueError: fewer than two classes.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: {n_classes} leave no other class to flip to")
    return (np.arange(n_classes) + rng.integers(1, n_classes, size=n_classes)) % n_classes


def human_noise(true, n_classes: int, labels) -> NoisyLabels:
    """Labels that people gave (CIFAR-10N, CIFAR-100N), in the order of ``true``.

    Raises:
        ValueError: another number of labels than samples, or a label outside [0, C).
    """
    true = _checked_labels(true, n_classes)
    noisy = _checked_labels(labels, n_classes, "human_labels")
    if len(noisy) != len(true):
        raise ValueError(f"human_labels: {len(noisy)} labels for {len(true)} training images")
    return NoisyLabels(noisy, true, transition_matrix(true, noisy, n_classes))


def _checked_labels(labels, n_classes: int, name: str = "labels") -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {labels.shape}")
    if len(labels) and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name}: must be integers, got {labels.dtype} values")
    labels = labels.astype(np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= n_classes):
        raise ValueError(f"{name}: must lie in [0, {n_classes}), got values from {labels.min()} to {labels.max()}")
    return labels


def _chosen(n: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    if not 0 <= rate <= 1:  # also refuses NaN
        raise ValueError(f"noise: must be a number from 0 to 1, got {rate}")
    # 0.29 * 100 is 28.999999999999996 in floating point and must count as 29.
    count = int(np.floor(rate * n + 1e-9))
    return rng.choice(n, size=count, replace=False)
