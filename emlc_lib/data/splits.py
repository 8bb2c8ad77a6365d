"""Clean and noisy parts of a training set (section 4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.parameters import ConfigError


@dataclass(frozen=True)
class Split:
    """Indices into the training set, each sorted; clean and noisy ones are disjoint unless asked otherwise.

    Attributes:
        clean: (m,) the class-balanced clean set.
        noisy: (n,) the noisy set.
        validation: (m,) the class-balanced set that the epoch is chosen on: the clean set unless asked otherwise.
    """

    clean: np.ndarray
    noisy: np.ndarray
    validation: np.ndarray


def split_clean_noisy(
    labels: np.ndarray, n_classes: int, n_clean: int, n_noisy: int | None, rng: np.random.Generator
) -> Split:
    """A class-balanced clean set and a noisy set from the rest, disjoint by construction (section 4.1).

    Args:
        labels: (n,) true training labels.
        n_clean: m, a multiple of the number of classes.
        n_noisy: size of the noisy set; None takes every sample that is not clean.
        rng: the source of all randomness.

    Raises:
        ConfigError: sizes that the data cannot give; the message names n_clean or n_noisy.
    """
    if n_clean % n_classes:
        raise ConfigError(f"n_clean: {n_clean} is not a multiple of the {n_classes} classes")
    per_class = n_clean // n_classes
    counts = np.bincount(labels, minlength=n_classes)
    if counts.min() < per_class:
        raise ConfigError(f"n_clean: class {counts.argmin()} has only {counts.min()} of {per_class} samples")
    order = rng.permutation(len(labels))
    clean = np.concatenate([order[labels[order] == c][:per_class] for c in range(n_classes)])
    rest = order[~np.isin(order, clean)]
    if n_noisy is not None:
        if n_noisy > len(rest):
            raise ConfigError(f"n_noisy: {n_noisy} is more than the {len(rest)} samples that are not clean")
        rest = rest[:n_noisy]
    if not len(rest):
        raise ConfigError(f"n_clean: {n_clean} leaves no sample for the noisy set")
    clean = np.sort(clean)
    return Split(clean, np.sort(rest), clean)


def split_as_released(
    labels: np.ndarray,
    n_classes: int,
    n_clean: int,
    n_noisy: int | None,
    generators: Sequence[np.random.Generator],
) -> Split:
    """The released code's splits: clean, noisy and validation set come from three independent shuffles.

    Nearly all clean and validation images are in the noisy set too, if that is as large as it can be, and the
    validation set takes n_clean more clean labels. For comparison only.

    Args:
        labels, n_classes, n_clean, n_noisy: as for :func:`split_clean_noisy`.
        generators: three; the first gives the same clean set as it gives :func:`split_clean_noisy`.
    """
    clean, noisy, validation = (split_clean_noisy(labels, n_classes, n_clean, n_noisy, rng) for rng in generators)
    return Split(clean.clean, noisy.noisy, validation.clean)
