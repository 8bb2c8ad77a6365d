"""Batched augmentation on the training device, with every random choice drawn per sample."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime.execution import to_device
from ..runtime.randomness import WHOLE, Share
from .autoaugment import apply_plan, draw_plan
from .spec import Recipe


def _crop_choices(images: Tensor, padding: int, flip: bool, generator: torch.Generator, share: Share):
    """(n, 2) int64 offsets of the crop's row and column, and (n,) bool whether it is mirrored; on the host."""
    whole = len(images) * share.world
    offsets = share.of(torch.randint(2 * padding + 1, (whole, 2), generator=generator))
    mirrored = share.of(torch.randint(2, (whole,), generator=generator)).bool() & flip
    return offsets, mirrored


def _cropped(images: Tensor, padding: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
    n, _, h, w = images.shape
    column, row, index = (torch.arange(size, device=images.device) for size in (w, h, n))
    columns = torch.where(mirrored[:, None], w - 1 - column, column) + offsets[:, 1:]
    rows = row + offsets[:, :1]
    padded = F.pad(images, (padding,) * 4)
    picked = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
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


def augment_noisy(images: Tensor, recipe: Recipe, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
    """Table 4, noisy augmentations: random crop and horizontal flip; none for Clothing1M.

    Images are zero-padded on each side and cropped back to their size at a uniformly random place, and half of
    them are mirrored if the recipe says so.

    Args:
        images: (n, channels, h, w) uint8, on any device, as is the result.
        generator: a CPU generator, so that the choices do not depend on the device.
        share: which samples of a batch of ``n * share.world`` the images are; each is changed as in that batch.
    """
    if not recipe.padding and not recipe.noisy_flip:
        return images
    crop = _crop_choices(images, recipe.padding, recipe.noisy_flip, generator, share)
    return _cropped(images, recipe.padding, *to_device(images.device, *crop))


def augment_clean(
    images: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    share: Share = WHOLE,
    *,
    autoaugment: bool = True,
) -> Tensor:
    """Table 4, clean augmentations: random crop, horizontal flip and AutoAugment. uint8 in, uint8 out.

    ``autoaugment=False`` leaves the last one out, as Table 3's ablation does.
    """
    crop = _crop_choices(images, recipe.padding, recipe.clean_flip, generator, share)
    if not autoaugment or not recipe.policy:
        return _cropped(images, recipe.padding, *to_device(images.device, *crop))
    plan = draw_plan(recipe.policy, len(images), images.shape[-1], generator, share)
    *crop, samples, magnitudes = to_device(images.device, *crop, plan.samples, plan.magnitudes)
    plan = plan._replace(samples=samples, magnitudes=magnitudes)
    return apply_plan(_cropped(images, recipe.padding, *crop), plan)
