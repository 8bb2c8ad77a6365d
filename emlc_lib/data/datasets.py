"""Data sets, disjoint splits and their corruption, as tensors on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_md5
import numpy as np
import torch
from ..runtime.parameters import DataUnavailable, did_you_mean
from ..runtime.places import data_root


# Per-channel mean and standard deviation of the training images scaled to [0, 1].
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "digits": ((0.3053,), (0.3758,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "clothing1m": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's, which its start is used to
}


class FashionMNIST(datasets.FashionMNIST):
    """Without what old versions of torchvision stored beside the original files: those are pickles."""

    def _check_legacy_exist(self) -> bool:
        return False


# Folder below the data root, and torchvision's class.
_LOCATIONS: dict[str, tuple[str, type]] = {
    "fashion_mnist": ("FashionMNIST/raw", FashionMNIST),
    "cifar10": ("cifar-10-batches-py", datasets.CIFAR10),
    "cifar100": ("cifar-100-python", datasets.CIFAR100),
}


@dataclass(frozen=True)
class ImageSet:
    """A whole labelled data set in memory.

    Attributes:
        name: the data set's name.
        classes: C class names, in label order.
        train_images, test_images: (n, channels, h, w) uint8.
        train_labels, test_labels: (n,) int64.
    """

    name: str
    classes: list[str]
    train_images: Tensor
    train_labels: np.ndarray
    test_images: Tensor
    test_labels: np.ndarray


def is_available(name: str, root: Path | None = None) -> bool:
    """Whether :func:`load_dataset` can work without a download (the files exist; they may be damaged)."""
    root = root or data_root()
    if name == "digits":
        return True
    if name == "clothing1m":
        return (root / name).is_dir()
    folder, _ = _location(name)
    return (root / folder).is_dir()


def _location(name: str) -> tuple[str, type]:
    if str(name) not in _LOCATIONS:
        known = ["digits", *_LOCATIONS]
        raise ValueError(f"dataset: {name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")
    return _LOCATIONS[name]


def load_dataset(name: str, *, root: Path | None = None, download: bool = True) -> ImageSet:
    """One of the supported data sets, from the data root; downloaded through torchvision where missing.

    Args:
        name: ``digits`` (scikit-learn's, ships with the package), ``fashion_mnist``, ``cifar10``, ``cifar100``.
        root: the data root; None takes :func:`data_root`.
        download: whether a missing set may be fetched (torchvision shows the progress).

    Raises:
        ValueError: an unknown name, or ``clothing1m``, which does not fit into memory: :func:`prepare` reads it.
        DataUnavailable: the files are missing or damaged and cannot be downloaded.
    """
    if name == "clothing1m":
        raise ValueError("dataset: clothing1m stays on disk; emlc_lib.data.prepare.prepare draws from it")
    if name == "digits":
        return _digits()
    root = root or data_root()
    folder, cls = _location(name)
    try:
        # torchvision checks the MD5 of files that are there before it downloads anything.
        train, test = (_open(cls, root, part, download) for part in (True, False))
    except (OSError, RuntimeError, EOFError, AssertionError, ValueError) as error:
        bad = "; ".join([*_damaged(cls, root / folder), str(error)])
        raise DataUnavailable(
            f"dataset: {name} is missing or damaged and could not be downloaded ({bad}). "
            f"Put its files into {root / folder} (as torchvision lays them out), "
            f"or set EMLC_DATA to the folder that holds {folder}."
        ) from error
    images = ImageSet(name, list(train.classes), *_as_tensors(train), *_as_tensors(test))
    for part, n, m in (
        ("training", len(images.train_images), len(images.train_labels)),
        ("test", len(images.test_images), len(images.test_labels)),
    ):
        if n != m:
            raise DataUnavailable(
                f"dataset: {name} is damaged: {n} {part} images but {m} labels in {root / folder}"
            )
    return images


def _damaged(cls: type, folder: Path) -> list[str]:
    """What is wrong with which of CIFAR's files, if any are there; the other set's have no published checksums."""
    files = [*getattr(cls, "train_list", ()), *getattr(cls, "test_list", ())]
    if files:
        files.append((cls.meta["filename"], cls.meta["md5"]))
    there = {name: md5 for name, md5 in files if (folder / name).is_file()}
    bad = [f"{name} has another MD5 sum" for name, md5 in there.items() if not check_md5(folder / name, md5)]
    return bad + [f"{name} is not there" for name, _ in files if there and name not in there]


def _open(cls: type, root: Path, train: bool, download: bool):
    try:
        return cls(root, train=train, download=False)
    except RuntimeError:
        if not download:
            raise
        return cls(root, train=train, download=True)


def _as_tensors(dataset) -> tuple[Tensor, np.ndarray]:
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), np.asarray(dataset.targets, dtype=np.int64)


def _digits() -> ImageSet:
    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    labels = digits.target.astype(np.int64)
    # The package has no test set: a quarter of the samples, stratified, the same in every run.
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    return ImageSet(
        "digits", [str(c) for c in range(10)], images[train], labels[train], images[test], labels[test]
    )
