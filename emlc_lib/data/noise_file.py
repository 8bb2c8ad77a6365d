"""Noise files: a split and its given labels, for others to use. ``data/README.md`` describes the format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.noise import NoisyLabels, transition_matrix
from ..runtime.checkpoint import read_npz
from ..runtime.files import as_path, write_atomically
from ..runtime.parameters import ConfigError
from .experiment_data import ExperimentData

NEEDED = ("noisy", "labels", "clean")


@dataclass(frozen=True)
class NoiseFile:
    """What a noise file holds; int64, and indices in the order of the data set's training images.

    Attributes:
        dataset: the data set's name; empty if the file does not say.
        noisy: (n,) indices of the noisy set. labels: (n,) their given labels. true_labels: (n,) their true ones.
        clean: (m,) indices of the clean set, none of them in the noisy one. clean_labels: (m,) their labels.
        transition_matrix: (C, C) float64, ``T[i, j] = p(given = j | true = i)`` of what made the labels.
    """

    dataset: str
    noisy: np.ndarray
    labels: np.ndarray
    true_labels: np.ndarray
    clean: np.ndarray
    clean_labels: np.ndarray
    transition_matrix: np.ndarray

    @property
    def sha256(self) -> str:
        """Of n, m and the five integer arrays, in the order above, as little-endian int64; it is of what is in
        the file, and so the same however that is compressed."""
        arrays = self.noisy, self.labels, self.true_labels, self.clean, self.clean_labels
        sizes = [len(self.noisy), len(self.clean)]
        return hashlib.sha256(
            b"".join(np.asarray(a).astype("<i8").tobytes() for a in (sizes, *arrays))
        ).hexdigest()

    @property
    def name(self) -> str:
        """What the file is called unless its user says otherwise; commands of runs call it that, too."""
        return f"labels-{self.sha256[:8]}.npz"

    def sets(self, images: Any) -> tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]:
        """The noisy set and the clean set, each as (images, labels), for :meth:`emlc_lib.EMLCClassifier.fit`.

        Args:
            images: (N, ...) an array or tensor of all training images, e.g. of
                :func:`emlc_lib.data.spec.load_dataset`.

        Raises:
            ConfigError: there are fewer images than the indices need.
        """
        if len(images) <= (last := max(self.noisy.max(), self.clean.max())):
            raise ConfigError(f"images: there are {len(images)}, and the noise file names the one of index {last}")
        return (images[self.noisy], self.labels), (images[self.clean], self.clean_labels)


def as_noise_file(data: ExperimentData, dataset: str) -> NoiseFile:
    """Split and labels of a run.

    Raises:
        ConfigError: the data set has no split of its own making, or its clean set is part of the noisy one.
    """
    if data.split is None or data.corruption is None:
        raise ConfigError(f"dataset: {dataset} comes with a split and labels of its own")
    clean_labels = data.clean_labels.cpu().numpy()
    labels = data.corruption
    split = data.split.noisy, labels.noisy, labels.true, data.split.clean, clean_labels
    return NoiseFile(dataset, *split, labels.expected)


def write_noise_file(noise: NoiseFile, path: Path) -> None:
    """Writes it, atomically; the same noise gives the same bytes."""
    arrays = vars(noise) | {"sha256": noise.sha256}

    def write(to: Path) -> None:
        with open(to, "wb") as file:  # a name would be given the ending .npz
            np.savez_compressed(file, **arrays)

    write_atomically(path, write)


def read_noise_file(path: str | Path, true: np.ndarray | None = None, n_classes: int | None = None) -> NoiseFile:
    """A noise file, of :func:`write_noise_file` or another hand.

    ``noisy``, ``labels`` and ``clean`` must be there; the rest may be missing, if the true labels are given.

    Args:
        true: (N,) the true labels of all training images; None where they are not at hand.
        n_classes: C; None takes as many as occur.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no such archive, an array is missing or cannot be, its true labels are others, or what
            it holds is not what its SHA-256 is of.
    """
    path = as_path(path, "noise_file")
    found = read_npz(path, "noise_file")
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise ConfigError(f"noise_file: {path} has no array {missing[0]!r}; it needs {', '.join(NEEDED)}")

    def refuse(reason: str) -> None:
        raise ConfigError(f"noise_file: {path}: {reason}")

    def integers(name: str, like: str, high: int | None) -> np.ndarray:
        array = found[name]
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
            refuse(f"{name} has {array.dtype} values of shape {array.shape}, not (n,) integers")
        if len(array) != len(found[like]):
            refuse(f"{name} has {len(array)} values, {like} {len(found[like])}")
        if array.min() < 0 or (high is not None and array.max() >= high):
            refuse(f"{name} must lie in [0, {high}), got values from {array.min()} to {array.max()}")
        return array.astype(np.int64)

    n = None if true is None else len(true)
    noisy, clean = integers("noisy", "noisy", n), integers("clean", "clean", n)
    both = np.concatenate([noisy, clean])
    if len(np.unique(both)) < len(both):
        refuse("an image is in noisy or clean twice, or in both")
    truth = {}
    for name, like, indices in (("true_labels", "noisy", noisy), ("clean_labels", "clean", clean)):
        if name not in found and true is None:
            refuse(f"it has no array {name!r}; without the data set's labels it needs that, too")
        truth[name] = integers(name, like, n_classes) if name in found else true[indices]
        if true is not None and (truth[name] != true[indices]).any():
            refuse(f"{name} are not those of the data set's training images")
    labels = integers("labels", "noisy", n_classes)
    classes = n_classes or 1 + max(labels.max(), *(values.max() for values in truth.values()))
    matrix = found.get("transition_matrix")
    if matrix is None:
        matrix = transition_matrix(truth["true_labels"], labels, int(classes))
    elif matrix.shape[0] < classes or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        refuse(f"transition_matrix has shape {matrix.shape}, not ({classes}, {classes})")
    dataset = str(found.get("dataset", ""))
    noise = NoiseFile(dataset, noisy, labels, truth["true_labels"], clean, truth["clean_labels"], matrix)
    if str(found.get("sha256", noise.sha256)) != noise.sha256:
        refuse(f"it holds something else than what its SHA-256 {str(found['sha256'])[:12]}... is of")
    return noise


def as_noisy_labels(noise: NoiseFile) -> NoisyLabels:
    """The noisy set's labels as every other source of noise gives them."""
    return NoisyLabels(noise.labels, noise.true_labels, noise.transition_matrix)
