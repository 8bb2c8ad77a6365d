"""What this project knows of a data set, in one object, and the data sets that are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ..runtime.parameters import ConfigError, DataUnavailable, did_you_mean
from ..runtime.places import data_root
from .autoaugment import Policy

if TYPE_CHECKING:
    from .experiment_data import ExperimentData
    from .parameters import DataParameters


class Constants(NamedTuple):
    """Mean and standard deviation of each channel of images scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Recipe(NamedTuple):
    """What is done to the images of a batch.

    Attributes:
        padding: pixels of the random crop.
        noisy_flip, clean_flip: whether noisy and clean batches are mirrored at random.
        policy: AutoAugment's, for clean batches.
    """

    padding: int
    noisy_flip: bool
    clean_flip: bool
    policy: Policy | None


class ViewRecipe(NamedTuple):
    """How strongly SimCLR's views differ from their image.

    Attributes:
        smallest: the smallest share of the image's area that a crop keeps.
        flip: whether half of the views are mirrored.
        jitter: the largest relative change of brightness, contrast and saturation (SimCLR's strength 0.5: 0.4).
        hue: the largest turn of the hue, as a share of the circle.
        grey: the probability that a view loses its colour.
    """

    smallest: float
    flip: bool
    jitter: float
    hue: float
    grey: float


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


@dataclass(frozen=True)
class DatasetSpec:
    """Everything that this project knows of a data set. :meth:`register` makes it a value of ``dataset``.

    Attributes:
        name: the value of ``dataset``.
        constants: by which images are standardised.
        recipe: the augmentation of noisy and clean batches.
        views: SimCLR's augmentation; None where nothing is pretrained on it.
        load: the whole set, given the data root and whether missing files may be downloaded; it raises
            DataUnavailable. None for a set that stays on disk.
        prepare: in place of ``load`` and of random splits: the data of a run, from lists that the set comes with.
        folder: below the data root; None for a set that needs no files there.
        noise_types: those that it may have.
        look_alikes: what asymmetric noise turns a class into, by name (Appendix E); the others stay.
        presets: those that it may have, each with the values that it needs in place of the preset's. ``auto`` is
            ``paper`` on CUDA, if that is among them, else the first.
        models: that SimCLR pretrains unless told otherwise, without CUDA and with it.
        notebook: that trains on it.
    """

    name: str
    constants: Constants
    recipe: Recipe
    views: ViewRecipe | None = None
    load: Callable[[Path, bool], ImageSet] | None = None
    prepare: Callable[[DataParameters], ExperimentData] | None = None
    folder: str | None = None
    noise_types: tuple[str, ...] = ("symmetric", "asymmetric", "file")
    look_alikes: Mapping[str, str] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: tuple[str, str] = ("resnet_narrow", "resnet34")
    notebook: str = "03_cifar"

    @property
    def in_memory(self) -> bool:
        """Whether it is loaded as a whole and split here."""
        return self.load is not None

    def register(self) -> DatasetSpec:
        """Makes it known by its name; processes that are started later must do so, too.

        Raises:
            ConfigError: there is such a data set, or it has no data or no preset.
        """
        if self.name in (*DATASETS, OWN.name):
            raise ConfigError(f"name: there is a data set {self.name} already")
        if (self.load is None) == (self.prepare is None) or not self.presets:
            raise ConfigError(f"load: {self.name} needs either load or prepare, and a preset at least")
        DATASETS[self.name] = self
        return self

    def successors(self, classes: list[str]) -> np.ndarray:
        """(C,) int64: the class that asymmetric noise turns each class into, itself if it has no look-alike.

        Raises:
            ConfigError: ``look_alikes`` names something that is no class.
        """
        if unknown := sorted({*itertools.chain(*self.look_alikes.items())} - {*classes}):
            raise ConfigError(f"look_alikes: {unknown[0]!r} is no class of {self.name}: {', '.join(classes)}")
        index = {name: i for i, name in enumerate(classes)}
        return np.array([index[self.look_alikes.get(name, name)] for name in classes])


DATASETS: dict[str, DatasetSpec] = {}

# A user's own images, whose labels are real ones; what depends on the images is yet to be filled in.
OWN = DatasetSpec("own", Constants((), ()), Recipe(0, False, False, None), noise_types=("real",))


def spec_of(name: object) -> DatasetSpec:
    """The data set of that name.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ConfigError(f"dataset: {name!r} is not one of {', '.join(DATASETS)}{did_you_mean(name, DATASETS)}")
    return DATASETS[name]


def is_available(name: str, root: Path | None = None) -> bool:
    """Whether a data set can be used without a download (its files exist; they may be damaged)."""
    folder = spec_of(name).folder
    return folder is None or ((root or data_root()) / folder).is_dir()


def load_dataset(name: str, *, root: Path | None = None, download: bool = True) -> ImageSet:
    """A data set from the data root; downloaded through torchvision where it is missing.

    Args:
        name: ``digits`` (scikit-learn's, ships with the package), ``fashion_mnist``, ``cifar10``, ``cifar100``, or
            one that was registered.
        root: the data root; None takes :func:`data_root`.
        download: whether a missing set may be fetched (torchvision shows the progress).

    Raises:
        ConfigError: an unknown name, or a set that does not fit into memory: :func:`prepare` draws from it.
        DataUnavailable: the files are missing or damaged and cannot be downloaded.
    """
    spec = spec_of(name)
    if spec.load is None:
        raise ConfigError(f"dataset: {name} stays on disk; emlc_lib.data.prepare.prepare draws from it")
    images = spec.load(root or data_root(), download)
    for part in ("train", "test"):
        n, m = (len(getattr(images, f"{part}_{what}")) for what in ("images", "labels"))
        if n != m or not n:
            raise DataUnavailable(f"dataset: {name} is damaged: {n} {part} images and {m} labels")
    return images
