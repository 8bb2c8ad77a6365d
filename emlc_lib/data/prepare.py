"""From a configuration to the data of its run: loaded, split, corrupted, on the run's device."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ..core import noise
from ..runtime.checkpoint import read_npz
from ..runtime.files import as_path
from ..runtime.parameters import ConfigError
from ..runtime.randomness import Stream, numpy_generator
from .datasets import ImageSet, load_dataset
from .experiment_data import ExperimentData, on_device
from .noise_file import labels_of, read_noise_file
from .parameters import DataParameters
from .splits import Split, split_as_released, split_clean_noisy


def prepare(config: DataParameters, images: ImageSet | None = None) -> ExperimentData:
    """Loads, splits and corrupts the data of a run, and moves it to the run's device.

    Split and corruption are functions of ``config.seed`` and of the noise parameters alone: every method, k
    and preset with the same sizes sees the same samples and the same wrong labels. Those of a noise file are the
    file's, whatever the seed.

    Raises:
        DataUnavailable: files are missing or damaged. FileNotFoundError: there is no such file of labels.
        ConfigError: sizes or labels that the data set cannot give; the message names the parameter.
    """
    spec = config.spec
    if spec.prepare is not None:
        return spec.prepare(config)
    human = None
    if config.noise_type == "human":  # before what may be a long download
        human = read_human_labels(config.human_labels, config.human_key)
    if config.noise_type == "file" and not as_path(config.noise_file, "noise_file").is_file():
        raise FileNotFoundError(f"noise_file: {config.noise_file} is not a file")
    images = images or load_dataset(config.dataset)
    if config.noise_type == "file":
        split, corruption = _of_file(config, images)
    else:
        split = _split(config, images)
        corruption = _corruption(config, images, split, human)
    if config.batch_size > len(split.noisy):
        raise ConfigError(f"batch_size: {config.batch_size} is more than the {len(split.noisy)} noisy samples")
    if config.clean_batch_size > len(split.clean):
        size = config.clean_batch_size
        raise ConfigError(f"clean_batch_size: {size} is more than the {len(split.clean)} clean samples")
    device = torch.device(config.device)

    def labels(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(device)

    return ExperimentData(
        images.classes,
        *on_device(spec.constants, device),
        spec.recipe,
        noisy_images=images.train_images[split.noisy].to(device),
        noisy_labels=labels(corruption.noisy),
        true_labels=labels(corruption.true),
        clean_images=images.train_images[split.clean].to(device),
        clean_labels=labels(images.train_labels[split.clean]),
        validation_images=images.train_images[split.validation].to(device),
        validation_labels=labels(images.train_labels[split.validation]),
        test_images=images.test_images.to(device),
        test_labels=labels(images.test_labels),
        corruption=corruption,
        split=split,
    )


def check_data(configs: Iterable[DataParameters]) -> None:
    """Raises what :func:`prepare` would of any of these configurations; each kind is tried once."""
    tried = DataParameters.model_fields.keys() - {"seed", "noise", "device", "augment", "autoaugment"}
    for config in {str(config.model_dump(include=tried)): config for config in configs}.values():
        prepare(config)


def _of_file(config: DataParameters, images: ImageSet) -> tuple[Split, noise.NoisyLabels]:
    file = read_noise_file(config.noise_file)
    if config.noise_sha256 not in (None, file.sha256):
        raise ConfigError(
            f"noise_file: {config.noise_file} holds something else than before; its SHA-256 is another"
        )
    labels = labels_of(file, config.dataset, images.train_labels, len(images.classes))
    return Split(file.clean, file.noisy, file.clean), labels


def _split(config: DataParameters, images: ImageSet) -> Split:
    sizes = (images.train_labels, len(images.classes), config.n_clean, config.n_noisy)
    rng = numpy_generator(config.seed, Stream.SPLIT)
    if config.splits == "disjoint":
        return split_clean_noisy(*sizes, rng)
    others = [numpy_generator(config.seed, s) for s in (Stream.RELEASED_NOISY, Stream.RELEASED_VALIDATION)]
    return split_as_released(*sizes, [rng, *others])


def _corruption(
    config: DataParameters, images: ImageSet, split: Split, human: np.ndarray | None
) -> noise.NoisyLabels:
    true, n_classes = images.train_labels[split.noisy], len(images.classes)
    if human is not None:
        try:
            whole = noise.human_noise(images.train_labels, n_classes, human)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return noise.human_noise(true, n_classes, whole.noisy[split.noisy])
    rng = numpy_generator(config.seed, Stream.NOISE)
    if config.noise_type == "symmetric":
        return noise.symmetric_noise(true, n_classes, config.noise, rng)
    if config.asymmetric_map == "random":
        successor = noise.random_successors(n_classes, numpy_generator(config.seed, Stream.FLIP_MAP))
    else:
        successor = config.spec.successors(images.classes)
    return noise.asymmetric_noise(true, n_classes, config.noise, rng, successor)


def read_human_labels(path: str | Path, key: str) -> np.ndarray:
    """One label column of an ``.npz`` file of human labels, e.g. ``worse_label`` of CIFAR-10N; (n,) int64.

    Args:
        path: a NumPy ``.npz`` archive whose arrays are (n,) integers in torchvision's sample order.
        key: the array's name.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: the file is not such an archive, or has no array of that name.
    """
    path = as_path(path, "human_labels")
    columns = read_npz(path, "human_labels")
    if key not in columns:
        raise ConfigError(f"human_key: {key!r} is not in {path.name}; it holds {', '.join(sorted(columns))}")
    labels = columns[key]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"human_labels: {key} of {path.name} holds {labels.dtype} values, not integers")
    return labels.astype(np.int64).ravel()
