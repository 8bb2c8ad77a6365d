"""From a configuration to the data of its run: loaded, split, corrupted, on the run's device."""

from __future__ import annotations

import torch
from ..core import noise
from .datasets import ImageSet, NORMALISATION, load_dataset
from .experiment_data import ExperimentData
from .label_sources import read_human_labels
from .look_alikes import successor_classes
from .splits import split_as_released, split_clean_noisy
from ..runtime.randomness import Stream, numpy_generator
from .parameters import DataParameters


def prepare(config: DataParameters, images: ImageSet | None = None) -> ExperimentData:
    """Loads, splits and corrupts the data of a run, and moves it to the run's device.

    Split and corruption are functions of ``config.seed`` and of the noise parameters alone: every method, k
    and preset with the same sizes sees the same samples and the same wrong labels.
    """
    if config.dataset == "clothing1m":
        from .clothing1m.prepare import prepare_clothing1m  # which builds on this module

        return prepare_clothing1m(config)
    human = None
    if config.noise_type == "human":  # before what may be a long download
        human = read_human_labels(config.human_labels, config.human_key)
    images = images or load_dataset(config.dataset)
    n_classes = len(images.classes)
    split_rng, noise_rng = (numpy_generator(config.seed, s) for s in (Stream.SPLIT, Stream.NOISE))
    sizes = (images.train_labels, n_classes, config.n_clean, config.n_noisy)
    if config.splits == "released":
        others = [numpy_generator(config.seed, s) for s in (Stream.RELEASED_NOISY, Stream.RELEASED_VALIDATION)]
        split = split_as_released(*sizes, [split_rng, *others])
    else:
        split = split_clean_noisy(*sizes, split_rng)
    if config.batch_size > len(split.noisy):
        raise ValueError(f"batch_size: {config.batch_size} is more than the {len(split.noisy)} noisy samples")
    true = images.train_labels[split.noisy]
    if config.noise_type == "symmetric":
        corruption = noise.symmetric_noise(true, n_classes, config.noise, noise_rng)
    elif config.noise_type == "asymmetric":
        if config.asymmetric_map == "random":
            successor = noise.random_successors(n_classes, numpy_generator(config.seed, Stream.FLIP_MAP))
        else:
            successor = successor_classes(config.dataset, images.classes)
        corruption = noise.asymmetric_noise(true, n_classes, config.noise, noise_rng, successor)
    else:
        whole = noise.human_noise(images.train_labels, n_classes, human)
        corruption = noise.human_noise(true, n_classes, whole.noisy[split.noisy])
    mean, std = NORMALISATION[config.dataset]
    device = torch.device(config.device)
    return ExperimentData(
        classes=images.classes,
        mean=torch.tensor(mean, device=device)[:, None, None],
        std=torch.tensor(std, device=device)[:, None, None],
        noisy_images=images.train_images[split.noisy].to(device),
        noisy_labels=torch.from_numpy(corruption.noisy).to(device),
        true_labels=torch.from_numpy(corruption.true).to(device),
        clean_images=images.train_images[split.clean].to(device),
        clean_labels=torch.from_numpy(images.train_labels[split.clean]).to(device),
        validation_images=images.train_images[split.validation].to(device),
        validation_labels=torch.from_numpy(images.train_labels[split.validation]).to(device),
        test_images=images.test_images.to(device),
        test_labels=torch.from_numpy(images.test_labels).to(device),
        corruption=corruption,
        split=split,
    )
