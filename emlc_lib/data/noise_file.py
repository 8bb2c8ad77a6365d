"""Noise files: a split and its given labels, for others to use. ``data/README.md`` describes the format."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.noise import NoisyLabels, transition_matrix
from ..runtime.checkpoint import read_npz, write_npz
from ..runtime.files import as_path
from ..runtime.parameters import ConfigError
from .experiment_data import ExperimentData

NEEDED = ("noisy", "labels", "true_labels", "clean", "clean_labels")


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
    """Split and labels of a run on a data set with a split, as :func:`emlc_lib.data.prepare.prepare` gives it."""
    labels, split = data.corruption, data.split
    clean = split.clean, data.clean_labels.cpu().numpy()
    return NoiseFile(dataset, split.noisy, labels.noisy, labels.true, *clean, labels.expected)


def write_noise_file(noise: NoiseFile, path: Path) -> None:
    """Writes it, atomically; the same noise gives the same bytes.

    Raises:
        ConfigError: a clean image is in the noisy set, as with ``splits="released"``.
    """
    if np.isin(noise.clean, noise.noisy).any():
        raise ConfigError("splits: clean images are in the noisy set; no noise file has that")
    write_npz(path, vars(noise) | {"sha256": noise.sha256})


def read_noise_file(path: str | Path) -> NoiseFile:
    """A noise file, of :func:`write_noise_file` or another hand, which may leave out what is not an integer.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no such archive, an array is missing or cannot be, or what it holds is not what its
            SHA-256 is of.
    """
    path = as_path(path, "noise_file")
    found = read_npz(path, "noise_file")
    missing = [name for name in NEEDED if name not in found]
    if missing:
        raise ConfigError(f"noise_file: {path} has no array {missing[0]!r}; it needs {', '.join(NEEDED)}")

    def refuse(reason: str) -> None:
        raise ConfigError(f"noise_file: {path}: {reason}")

    arrays = {name: np.asarray(found[name]) for name in NEEDED}
    for name, like in zip(NEEDED, ("noisy",) * 3 + ("clean",) * 2, strict=True):
        array = arrays[name]
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
            refuse(f"{name} has {array.dtype} values of shape {array.shape}, not (n,) integers")
        if len(array) != len(arrays[like]):
            refuse(f"{name} has {len(array)} values, {like} {len(arrays[like])}")
        if array.min() < 0:
            refuse(f"{name} has negative values")
        arrays[name] = array.astype(np.int64)
    both = np.concatenate([arrays["noisy"], arrays["clean"]])
    if len(np.unique(both)) < len(both):
        refuse("an image is in noisy or clean twice, or in both")
    classes = 1 + max(int(arrays[name].max()) for name in ("labels", "true_labels", "clean_labels"))
    matrix = transition_matrix(arrays["true_labels"], arrays["labels"], classes)
    if "transition_matrix" in found:
        matrix = np.asarray(found["transition_matrix"])
        if matrix.ndim != 2 or len(set(matrix.shape)) > 1 or matrix.dtype.kind != "f" or len(matrix) < classes:
            refuse(f"transition_matrix has {matrix.dtype} values of shape {matrix.shape}, not (C, C) shares")
        if not ((matrix >= 0).all() and np.allclose(matrix.sum(axis=1), 1)):  # NaN fails, too
            refuse("transition_matrix has rows that are no shares of 1")
    noise = NoiseFile(str(found.get("dataset", "")), *arrays.values(), matrix)
    if str(found.get("sha256", noise.sha256)) != noise.sha256:
        refuse(f"it holds something else than what its SHA-256 {str(found['sha256'])[:12]}... is of")
    return noise


def labels_of(noise: NoiseFile, dataset: str, true: np.ndarray, n_classes: int) -> NoisyLabels:
    """The noisy set's labels as every other source of noise gives them.

    Args:
        dataset: that it is to be of. true: (N,) the true labels of all training images. n_classes: C.

    Raises:
        ConfigError: it is of another data set.
    """
    if noise.dataset not in ("", dataset):
        raise ConfigError(f"noise_file: is of {noise.dataset}, not of {dataset}")
    if max(noise.noisy.max(), noise.clean.max()) >= len(true):
        raise ConfigError(f"noise_file: has indices beyond the {len(true)} training images of {dataset}")
    for name, indices in (("true_labels", noise.noisy), ("clean_labels", noise.clean)):
        if (getattr(noise, name) != true[indices]).any():
            raise ConfigError(f"noise_file: its {name} are not those of the training images of {dataset}")
    if noise.labels.max() >= n_classes:
        raise ConfigError(f"noise_file: labels must lie in [0, {n_classes}), got {noise.labels.max()}")
    matrix = noise.transition_matrix
    if len(matrix) > n_classes:
        raise ConfigError(f"noise_file: transition_matrix is of {len(matrix)} classes, {dataset} has {n_classes}")
    if len(matrix) < n_classes:  # counted from the labels that there are
        matrix = transition_matrix(noise.true_labels, noise.labels, n_classes)
    return NoisyLabels(noise.labels, noise.true_labels, matrix)
