"""Augmented batches as a function of the step: no loader state, so nothing to save or to lose."""

from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.execution import to_device
from ..runtime.parallel import own_share
from ..runtime.parameters import ConfigError
from ..runtime.randomness import WHOLE, Share, Stream, torch_generator
from ..runtime.schedules import steps_by
from .augment import augment_clean, augment_noisy, normalise
from .experiment_data import ExperimentData
from .images import DiskImages
from .parameters import DataParameters


class NoisyBatch(NamedTuple):
    """Images (n, channels, h, w) float32, given labels and, for evaluation only, true labels (n,).

    ``index`` (n,) int64 says which samples of the noisy set they are; None where a stand-in has no such set.
    """

    x: Tensor
    given: Tensor
    true: Tensor
    index: Tensor | None = None


class CleanBatch(NamedTuple):
    """Images (m, channels, h, w) float32 and labels (m,)."""

    x: Tensor
    labels: Tensor


class Batches:
    """Shuffled, augmented, normalised batches of a run's noisy and clean sets.

    Batch t is made of the t-th slice of an endless sequence of permutations of the set. Incomplete batches at
    the end of a permutation are skipped; another permutation leaves out other samples.

    Where several processes train together, each gets its share of the very batches that one process would get:
    disjoint, equal parts, with every sample's augmentation the same. Permutations are functions of the seed and of
    the pass, so a sharded sampler's epoch is set by construction.

    Args:
        share: this process's; None takes it from the process group, if there is one.

    Raises:
        ConfigError: (when drawing) a batch cannot be divided equally among the processes.
    """

    def __init__(self, config: DataParameters, data: ExperimentData, share: Share | None = None):
        self.config, self.data = config, data
        self.share = own_share() if share is None else share
        self._order = lru_cache(maxsize=4)(self._permutation)
        self._by_class = lru_cache(maxsize=1)(self._permutation_by_class)

    @property
    def steps_per_epoch(self) -> int:
        """Complete noisy batches in one pass."""
        return len(self.data.noisy_labels) // self.config.batch_size

    def last_step(self, epoch: int, period: int) -> int:
        """The steps taken by the end of an epoch (counted from 1), rounded up to a multiple of ``period``."""
        return steps_by(epoch, self.steps_per_epoch, period)

    def noisy(self, t: int) -> NoisyBatch:
        """The noisy batch of step t, of size ``batch_size``, or this process's share of it."""
        data, seed = self.data, self.config.seed
        index = self._slice(Stream.NOISY_ORDER, len(data.noisy_labels), self.config.batch_size, t)
        x = self.weak(index, torch_generator(seed, Stream.NOISY_AUGMENTATION, t), self.share)
        self._prefetch(data.noisy_images, Stream.NOISY_ORDER, self.config.batch_size, t + 1)
        return NoisyBatch(x, data.noisy_labels[index], data.true_labels[index], index)

    def weak(self, index: Tensor, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
        """Samples of the noisy set, (n, channels, h, w) float32, with noisy batches' augmentation, each its own.

        For methods that choose samples themselves. One that is chosen twice has two views. ``share`` as in
        :func:`~emlc_lib.data.augment.augment_noisy`.
        """
        images = self.data.noisy_images[index]
        if self.config.augment:
            images = augment_noisy(images, self.data.recipe, generator, share)
        return self._float(images)

    def strong(self, batch: NoisyBatch, t: int) -> Tensor:
        """The images of step t's noisy batch with clean batches' augmentation, AutoAugment included."""
        generator = torch_generator(self.config.seed, Stream.STRONG_AUGMENTATION, t)
        return self._augmented(self.data.noisy_images[batch.index], generator)

    def clean(self, t: int, size: int, *, start: bool = False, weak: bool = False) -> CleanBatch:
        """The clean batch of step t, of ``size`` samples, or this process's share of it.

        ``start`` takes the warm-up's own random streams; ``weak`` leaves AutoAugment out.
        """
        data, seed = self.data, self.config.seed
        order = Stream.START_ORDER if start else Stream.CLEAN_ORDER
        augmentation = Stream.START_AUGMENTATION if start else Stream.CLEAN_AUGMENTATION
        index = self._slice(order, len(data.clean_labels), size, t)
        batch = self._clean(index, torch_generator(seed, augmentation, t), weak)
        self._prefetch(data.clean_images, order, size, t + 1)
        return batch

    def balanced_clean(self, t: int, per_class: int) -> CleanBatch:
        """A clean batch with ``per_class`` samples of every class, sorted by class; (C per_class, ...).

        Batch t is the t-th slice of an endless sequence of permutations within each class. Of classes with more
        samples than the smallest one has, each permutation leaves out others.
        """
        per_pass = self._smallest_class // per_class
        if not per_pass:
            raise ConfigError(f"n_clean: a class has fewer than {per_class} clean samples")
        first = t % per_pass * per_class
        index = self._by_class(t // per_pass)[:, first : first + per_class].flatten()
        return self._clean(self.share.of(index), torch_generator(self.config.seed, Stream.CLEAN_AUGMENTATION, t))

    def _clean(self, index: Tensor, generator: torch.Generator, weak: bool = False) -> CleanBatch:
        return CleanBatch(
            self._augmented(self.data.clean_images[index], generator, weak), self.data.clean_labels[index]
        )

    def _augmented(self, images: Tensor, generator: torch.Generator, weak: bool = False) -> Tensor:
        if self.config.augment:
            strong = self.config.autoaugment and not weak
            images = augment_clean(images, self.data.recipe, generator, self.share, autoaugment=strong)
        return self._float(images)

    def _prefetch(self, images: Tensor | DiskImages, stream: Stream, size: int, t: int) -> None:
        """Lets images on disk be decoded for batch t while the batch before it is worked on."""
        if isinstance(images, DiskImages):
            images.prefetch(self._slice(stream, len(images), size, t))

    def _float(self, images: Tensor) -> Tensor:
        images = normalise(images, self.data.mean, self.data.std)
        return images.contiguous(memory_format=torch.channels_last)

    def _slice(self, stream: Stream, n: int, size: int, t: int) -> Tensor:
        if size % self.share.world:
            raise ConfigError(f"processes: {self.share.world} cannot share a batch of {size} equally")
        per_pass = n // size
        order = self._order(stream, n, t // per_pass)
        first = t % per_pass * size
        return self.share.of(order[first : first + size])

    def _permutation(self, stream: Stream, n: int, index: int) -> Tensor:
        return self._placed(torch.randperm(n, generator=torch_generator(self.config.seed, stream, index)))

    @cached_property
    def _clean_labels(self) -> Tensor:
        """The clean labels on the host, which would wait for the device at every look."""
        return self.data.clean_labels.cpu()

    @cached_property
    def _smallest_class(self) -> int:
        return int(self._clean_labels.bincount(minlength=self.data.n_classes).min())

    def _permutation_by_class(self, index: int) -> Tensor:
        """(C, size of the smallest class), the clean samples of every class in the order of a permutation."""
        generator = torch_generator(self.config.seed, Stream.CLEAN_ORDER, index)
        order = torch.randperm(len(self._clean_labels), generator=generator)
        labels = self._clean_labels[order]
        rows = [order[labels == c][: self._smallest_class] for c in range(self.data.n_classes)]
        return self._placed(torch.stack(rows))

    def _placed(self, index: Tensor) -> Tensor:
        return to_device(self.data.noisy_labels.device, index)[0]
