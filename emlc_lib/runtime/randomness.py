"""Random streams: every draw of a run is a function of its seed, the stream's purpose and an index.

Nothing is carried from draw to draw, so a resumed run needs no generator state, and two methods with the
same seed see the same batches and augmentations.
"""

from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np
import torch


class Stream(IntEnum):
    """The purposes. The numbers are part of every result; new ones are appended.

    20, 21 and 30 to 32 belong to methods; later methods have numbers above 1000 (``Method.stream``).
    """

    SPLIT = 1
    NOISE = 2
    STUDENT_WEIGHTS = 3
    TEACHER_WEIGHTS = 4
    NOISY_ORDER = 5
    CLEAN_ORDER = 6
    NOISY_AUGMENTATION = 7
    CLEAN_AUGMENTATION = 8
    CORRUPTION = 9
    START_ORDER = 10
    START_AUGMENTATION = 11
    PRETRAIN_WEIGHTS = 12
    PRETRAIN_ORDER = 13
    PRETRAIN_AUGMENTATION = 14
    FLIP_MAP = 15
    RELEASED_NOISY = 16
    RELEASED_VALIDATION = 17
    STRONG_AUGMENTATION = 18
    FOLDS = 40


T = TypeVar("T")


class Share(NamedTuple):
    """What one of ``world`` processes takes of a whole batch: every ``world``-th sample from ``rank`` on.

    Draws are made for the whole batch by every process, so that a sample's do not depend on who trains on it.
    """

    rank: int = 0
    world: int = 1

    def of(self, whole: T) -> T:
        """The share of a sequence, or of a tensor's rows."""
        return whole[self.rank :: self.world]


WHOLE = Share()


def numpy_generator(seed: int, stream: Stream) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng([seed, stream])


def torch_generator(seed: int, stream: int, index: int = 0) -> torch.Generator:
    """A CPU generator for one purpose and one index (a step or an epoch)."""
    state = np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
