"""Clothing1M (section 4.2), drawn from disk in training; ``emlc clothing1m`` checks a folder.

The clean set is the published clean training list, the epoch is chosen on the published validation list. The
noisy labels are the crawled ones; nobody knows the true labels of those images, so they are -1 and the recovery
of labels is not a number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.noise import NoisyLabels, transition_matrix
from ...runtime.parameters import ConfigError, DataUnavailable
from ...runtime.places import data_root
from ...runtime.randomness import Stream, numpy_generator
from ..experiment_data import ExperimentData, on_device
from ..images import DiskImages
from ..splits import Split
from .folder import CLASSES, CROP, PARTS, RESIZE, copied, inspect_folder, read_annotations, read_left_out

if TYPE_CHECKING:
    from ..parameters import DataParameters

COMMAND = "emlc clothing1m"

ON_REQUEST = "Clothing1M is given by its authors on request; 11_clothing1m says whom to ask."


def prepare_clothing1m(
    config: DataParameters, folder: Path | None = None, *, sides: tuple[int, int] | None = None
) -> ExperimentData:
    """The data of a run on Clothing1M; images are decoded as batches are drawn.

    With ``n_clean`` or ``n_noisy`` a random part of a list is taken, a function of ``config.seed``. The indices of
    the returned split are places in the lists of usable images (clean, noisy and validation each in their own).
    ``corruption.expected`` is the transition matrix among the clean training images that have both labels.

    Args:
        config: with ``dataset="clothing1m"``.
        folder: None takes ``clothing1m`` below the data root.
        sides: in pixels, of the square that images are squeezed to and of the middle that is cut out of it; None
            takes 256 and 224. Smaller ones make a trial fast. They are no part of the run's digest.

    Raises:
        DataUnavailable: files are missing, unlabelled or listed twice; the message says which and what to do.
        ConfigError: sizes that the lists cannot give; the message names the parameter.
    """
    folder = folder or data_root() / "clothing1m"
    resize, crop = sides or (RESIZE, CROP)
    report = inspect_folder(folder)
    if report.missing_files:
        raise DataUnavailable(f"dataset: {report}. {ON_REQUEST}")
    if not report.usable:
        raise DataUnavailable(f"dataset: {report}\n'{COMMAND} check FOLDER --leave-out' goes on without them.")
    annotations, left_out = read_annotations(folder), read_left_out(folder)
    keys = {
        part: np.array([k for k in found if k not in left_out], dtype=str)
        for part, found in annotations.keys.items()
    }
    rng = numpy_generator(config.seed, Stream.SPLIT)
    clean = _some("n_clean", config.n_clean, len(keys["clean_train"]), rng)
    noisy = _some("n_noisy", config.n_noisy, len(keys["noisy_train"]), rng)
    for name, part, chosen in (("batch_size", "noisy", noisy), ("clean_batch_size", "clean", clean)):
        if getattr(config, name) > len(chosen):
            raise ConfigError(f"{name}: {getattr(config, name)} is more than the {len(chosen)} {part} samples")
    keys["clean_train"], keys["noisy_train"] = keys["clean_train"][clean], keys["noisy_train"][noisy]

    def images(part: str) -> DiskImages:
        place = (lambda key: copied(folder, key)) if config.resized_copy else (lambda key: folder / key)
        paths = [str(place(key)) for key in keys[part]]
        return DiskImages(paths, side=crop, resize=None if config.resized_copy else resize, device=config.device)

    def labels(part: str) -> torch.Tensor:
        known = annotations.labels[PARTS[part]]
        return torch.tensor([known[key] for key in keys[part]], dtype=torch.int64, device=config.device)

    given = labels("noisy_train")
    unknown = np.full(len(given), -1)
    transitions = _transitions(annotations.labels, annotations.keys["clean_train"], left_out)
    return ExperimentData(
        list(CLASSES),
        *on_device(config.spec.constants, config.device),
        config.spec.recipe,
        noisy_images=images("noisy_train"),
        noisy_labels=given,
        true_labels=torch.from_numpy(unknown).to(config.device),
        clean_images=images("clean_train"),
        clean_labels=labels("clean_train"),
        validation_images=images("clean_val"),
        validation_labels=labels("clean_val"),
        test_images=images("clean_test"),
        test_labels=labels("clean_test"),
        corruption=NoisyLabels(given.cpu().numpy(), unknown, transitions),
        split=Split(clean, noisy, np.arange(len(keys["clean_val"]))),
    )


def _some(name: str, wanted: int | None, there: int, rng: np.random.Generator) -> np.ndarray:
    # The permutation is drawn in any case, so that one size does not change the other set.
    order = rng.permutation(there)
    if wanted is not None and wanted > there:
        raise ConfigError(f"{name}: {wanted} is more than the {there} images of the list")
    return np.sort(order[:wanted])


def _transitions(labels: dict[str, dict[str, int]], keys: list[str], left_out: set[str]) -> np.ndarray:
    both = [(labels["clean"][k], labels["noisy"][k]) for k in keys if k in labels["noisy"] and k not in left_out]
    true, noisy = np.array(both, dtype=np.int64).reshape(-1, 2).T
    return transition_matrix(true, noisy, len(CLASSES))
