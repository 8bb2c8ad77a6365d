"""Warnings about a user's images and about what came of a training on them."""

import hashlib
import warnings

import torch
from torch import Tensor

from .sets import Pair

# A gate this close to one half says nothing of a given label.
UNDECIDED = 0.1


def warn_of_copies(sets: Pair, noisy: Tensor, clean: Tensor) -> None:
    """A UserWarning if images of the noisy set are in the clean set, too, pixel by pixel after resizing.

    They stay in both: what is returned for arrays must have their rows, and blank images may well be equal.

    Args:
        sets: whose images they are.
        noisy, clean: (n, channels, h, h) and (m, channels, h, h) uint8.
    """
    seen = {_digest(image): name for image, name in zip(clean, sets.clean.names, strict=True)}
    found = ((name, seen.get(_digest(image))) for image, name in zip(noisy, sets.noisy.names, strict=True))
    copies = [(name, other) for name, other in found if other is not None]
    if copies:
        name, other = copies[0]
        warnings.warn(
            f"{sets.noisy.parameter}: images that are in the clean set, too: {len(copies)} (first {name!r}, there "
            f"{other!r}); as their labels are known, take them out of the noisy set",
            UserWarning, stacklevel=3,
        )  # fmt: skip


def warn_of_no_correction(correction: dict[str, Tensor]) -> None:
    """A UserWarning if the teacher changed no label, or if its gates stayed near one half.

    Args:
        correction: from :func:`emlc_lib.training.correction.corrections`.
    """
    undecided = ((correction["gate"] - 0.5).abs() < UNDECIDED).double().mean().item()
    cure = "more epochs, more images in the clean set or better features (start) may help"
    if undecided > 0.9:
        message = (
            f"the gate stayed near one half for {undecided:.0%} of the labels: it has not learned yet; {cure}"
        )
    elif torch.equal(correction["given"], correction["corrected"]):
        message = f"no label was changed: all may be right, or the teacher has not learned enough; {cure}"
    else:
        return
    warnings.warn(message, UserWarning, stacklevel=3)


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
