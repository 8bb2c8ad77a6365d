"""A user's noisy and clean images as the :class:`ExperimentData` that every method trains on."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.experiment_data import ExperimentData, on_device
from ..data.images import InputError
from ..data.spec import DatasetSpec
from ..runtime.parameters import did_you_mean
from ..runtime.user_tables import alike
from .images import Images, read_labels
from .sources import as_images


class Pair(NamedTuple):
    """Noisy and clean images, disjoint where they are files, and the classes of both, sorted."""

    noisy: Images
    clean: Images
    classes: np.ndarray


def pair(noisy: Any, clean: Any, classes: Any = None) -> Pair:
    """Both sets and their classes, checked; no image file is opened.

    Args:
        noisy: as for :func:`emlc_lib.estimator.sources.as_images`.
        clean: the same; or, if the noisy images are files, the path of a CSV file of path,label.
        classes: all labels that may occur; None takes those of the noisy set.

    Raises:
        InputError: there is no image; a label is not among the classes; the clean set lacks a class; there are
            fewer than two classes; or fewer than two noisy images are not in the clean set.
    """
    noisy = as_images(noisy, "noisy", labelled=True)
    if isinstance(clean, str | Path) and not Path(clean).is_dir():
        if noisy.folder is None:
            raise InputError(f"clean: {clean} is no folder; a CSV file is only for noisy images that are files")
        clean = read_labels(clean, noisy.folder, "clean")
    clean = as_images(clean, "clean", labelled=True)
    if classes is None:
        known = np.unique(noisy.labels)
    else:
        known = np.asarray(classes)
        if known.ndim != 1 or known.dtype.kind not in "biuU" or len(np.unique(known)) != len(known):
            raise InputError("classes: must be strings or integers, none of them twice")
        known = np.unique(known)
    check_labels(noisy, known)
    check_labels(clean, known, "" if classes is not None else "; those that no given label is of need classes")
    if len(known) < 2:
        raise InputError(f"{noisy.parameter}: there is only one class, {known[0]}")
    lacking = known[~np.isin(known, clean.labels)]
    if len(lacking):
        raise InputError(
            f"{clean.parameter}: there is no image of class {_list(lacking)}; the clean set needs every class"
        )
    if noisy.folder and clean.folder and noisy.folder.resolve() == clean.folder.resolve():
        verified = set(clean.names)
        noisy = noisy.without(verified)
        if not len(noisy):
            raise InputError(
                f"{clean.parameter}: it has every image of {noisy.parameter}; none is left to correct"
            )
    if len(noisy) < 2:
        raise InputError(f"{noisy.parameter}: only one image is not verified; at least 2 are needed")
    return Pair(noisy, clean, known)


def check_labels(images: Images, classes: np.ndarray, hint: str = "") -> None:
    """Raises an InputError, which ends with the hint, if a label is not among the classes."""
    if (images.labels.dtype.kind == "U") != (classes.dtype.kind == "U"):
        raise InputError(
            f"{images.parameter}: labels are {_kind(images.labels)}, but the classes are {_kind(classes)}"
        )
    unknown = np.flatnonzero(~np.isin(images.labels, classes))
    if len(unknown):
        first = unknown[0]
        label = images.labels[first].item()
        raise InputError(
            f"{images.parameter}: label {label!r} of {images.names[first]!r} is not one of the classes "
            f"{_list(classes)}{_nearly(label, classes) or hint}"
        )


def experiment_data(pair: Pair, noisy: Tensor, clean: Tensor, spec: DatasetSpec, device: str) -> ExperimentData:
    """The data of a training; the test set is empty, and the true labels are unknown.

    Args:
        pair: whose labels and classes they are.
        noisy, clean: (n, channels, h, h) and (m, channels, h, h) uint8, in the pair's order.
        spec: from :func:`emlc_lib.estimator.features.own_spec`.
        device: where the data go.
    """
    clean, clean_labels = clean.to(device), codes(pair.clean.labels, pair.classes).to(device)
    given = codes(pair.noisy.labels, pair.classes).to(device)
    return ExperimentData(
        [str(c) for c in pair.classes],
        *on_device(spec.constants, device),
        spec.recipe,
        noisy_images=noisy.to(device),
        noisy_labels=given,
        true_labels=torch.full_like(given, -1),
        clean_images=clean,
        clean_labels=clean_labels,
        validation_images=clean,
        validation_labels=clean_labels,
        test_images=clean[:0],
        test_labels=clean_labels[:0],
    )


def codes(labels: np.ndarray, classes: np.ndarray) -> Tensor:
    """(n,) int64, the place of each label among the sorted classes."""
    return torch.from_numpy(np.searchsorted(classes, labels)).long()


def _list(values: np.ndarray) -> str:
    shown = ", ".join(repr(value.item()) for value in values[:20])
    return shown + (f" and {len(values) - 20} more" if len(values) > 20 else "")


def _nearly(label: object, classes: np.ndarray) -> str:
    same = [name for name in map(str, classes) if alike(name) == alike(str(label))]
    if same:
        return f"; {label!a} and {same[0]!a} differ in blanks, or in how accents are written"
    return did_you_mean(label, map(str, classes))


def _kind(labels: np.ndarray) -> str:
    return "strings" if labels.dtype.kind == "U" else "integers"
