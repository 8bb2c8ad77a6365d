"""Batched augmentation on the training device, with every random choice drawn per sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .autoaugment import cifar_autoaugment

# Random crop padding in pixels, horizontal flip, AutoAugment of the clean batch.
Recipe = tuple[int, bool, bool]

# Table 4 for CIFAR. A flipped digit is another digit, and the CIFAR policy was not searched for grey images.
RECIPES: dict[str, Recipe] = {
    "digits": (1, False, False),
    "fashion_mnist": (2, True, False),
    "cifar10": (4, True, True),
    "cifar100": (4, True, True),
}


def crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Zero-pads, crops back to size at a random place and, if ``flip``, mirrors half of the images.

    Args:
        images: (n, channels, h, w) uint8, on any device.
        padding: pixels on each side; offsets are uniform in 0..2 * padding.
        generator: a CPU generator, so that the choices do not depend on the device.
    """
    n, _, h, w = images.shape
    offsets = torch.randint(2 * padding + 1, (n, 2), generator=generator)
    mirror = torch.randint(2, (n,), generator=generator).bool() & flip
    columns = torch.arange(w).expand(n, w)
    columns = torch.where(mirror[:, None], w - 1 - columns, columns) + offsets[:, 1:]
    rows = torch.arange(h).expand(n, h) + offsets[:, :1]
    padded = F.pad(images, (padding,) * 4)
    device = images.device
    index = torch.arange(n, device=device)[:, None, None]
    picked = padded[index, :, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (n, channels, h, w) to float32, scaled to [0, 1] and standardised by (channels, 1, 1) constants.

    The result is laid out channels last.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    return standardise(images.float() / 255, mean, std)


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float (n, channels, h, w) in [0, 1], less the mean and over the standard deviation of each channel."""
    return (images - mean) / std


def augment_noisy(images: Tensor, recipe: str | Recipe, generator: torch.Generator) -> Tensor:
    """Table 4, noisy augmentations: random crop and horizontal flip. uint8 in, uint8 out.

    ``recipe`` is a data set's name or a recipe of one's own.
    """
    padding, flip, _ = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return crop_and_flip(images, padding, flip, generator)


def augment_clean(
    images: Tensor, recipe: str | Recipe, generator: torch.Generator, *, autoaugment: bool = True
) -> Tensor:
    """Table 4, clean augmentations: random crop, horizontal flip and CIFAR AutoAugment. uint8 in, uint8 out.

    ``autoaugment=False`` leaves the last one out, as Table 3's ablation does.
    """
    recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
    images = augment_noisy(images, recipe, generator)
    return cifar_autoaugment(images, generator) if autoaugment and recipe[2] else images
