"""SimCLR's augmentations for a whole batch on its device, with every random choice drawn per sample.

Crop, resize and flip are one affine resampling; brightness, contrast, saturation, hue and the loss of colour are
one affine map of each image's colours. So a view costs one ``grid_sample`` and one small matrix product.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.spec import ViewRecipe
from ..runtime.execution import matmul_precision, to_device

# ITU-R 601, as torchvision's grey conversion has it; and the matrix of the YIQ colour space, whose second and
# third coordinates hold the hue as an angle.
LUMA = (0.299, 0.587, 0.114)

YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


JITTER_PROBABILITY = 0.8


class Choices(NamedTuple):
    """The random choices of one view of n images.

    Attributes:
        crop: (n, 2, 3), see :func:`crop_maps`.
        colours, contrast: (n, channels, channels) and (n,), see :func:`colour_maps`.
    """

    crop: Tensor
    colours: Tensor
    contrast: Tensor


def random_view(images: Tensor, recipe: ViewRecipe, size: int, generator: torch.Generator) -> Tensor:
    """One random view of every image.

    Args:
        images: (n, channels, h, w) uint8, on any device, channels 1 or 3.
        recipe: the strength of each change.
        size: side of the views in pixels.
        generator: a CPU generator, so that the choices do not depend on the device.

    Returns:
        (n, channels, size, size) float32 in [0, 1], channels last.
    """
    choices = view_choices(*images.shape[:2], recipe, generator)
    return chosen_view(images, Choices(*to_device(images.device, *choices)), size)


def view_choices(n: int, channels: int, recipe: ViewRecipe, generator: torch.Generator) -> Choices:
    """The choices of :func:`random_view` for n images, on the host."""
    return Choices(crop_maps(n, recipe, generator), *colour_maps(n, channels, recipe, generator))


@matmul_precision("float32")
def chosen_view(images: Tensor, choices: Choices, size: int) -> Tensor:
    """:func:`random_view` of images (n, channels, h, w) uint8 by choices that are on their device."""
    x = images.contiguous(memory_format=torch.channels_last).float() / 255
    n, channels = x.shape[:2]
    grid = F.affine_grid(choices.crop, [n, channels, size, size], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return apply_colours(x, choices.colours, choices.contrast)


def crop_maps(n: int, recipe: ViewRecipe, generator: torch.Generator) -> Tensor:
    """(n, 2, 3) affine maps for ``affine_grid``: a crop of random area, aspect ratio (3/4 to 4/3) and place."""
    draw = torch.rand(n, 4, generator=generator)
    area = recipe.smallest + (1 - recipe.smallest) * draw[:, 0]
    ratio = torch.exp((2 * draw[:, 1] - 1) * math.log(4 / 3)).sqrt()
    width, height = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 2] = (2 * draw[:, 2] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[:, 3] - 1) * (1 - height)
    mirrored = torch.randint(2, (n,), generator=generator).bool() & recipe.flip
    theta[:, 0, 0] = torch.where(mirrored, -width, width)
    theta[:, 1, 1] = height
    return theta


def colour_maps(n: int, channels: int, recipe: ViewRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random colour changes: (n, channels, channels) matrices and (n,) contrast factors.

    The matrices hold brightness, saturation, hue and loss of colour. Contrast is apart, because it needs each
    image's mean; see :func:`apply_colours`.
    """
    draw = 2 * torch.rand(n, 4, generator=generator) - 1
    jittered = torch.rand(n, generator=generator) < JITTER_PROBABILITY
    grey = torch.rand(n, generator=generator) < recipe.grey
    factors = torch.where(jittered[:, None], 1 + recipe.jitter * draw[:, :3], torch.ones(()))
    brightness, contrast, saturation = factors.unbind(1)
    matrix = brightness[:, None, None] * torch.eye(channels)
    if channels == 3:
        turn = torch.where(jittered, recipe.hue * draw[:, 3], torch.zeros(()))
        saturation = torch.where(grey, torch.zeros(()), saturation)
        matrix = saturation_matrix(saturation) @ hue_matrix(turn) @ matrix
    return matrix, contrast


def saturation_matrix(factor: Tensor) -> Tensor:
    """(n, 3, 3): blends every colour with its grey value; factor (n,) 0 is grey, 1 leaves it as it is."""
    grey = torch.tensor(LUMA).expand(3, 3)
    return factor[:, None, None] * torch.eye(3) + (1 - factor)[:, None, None] * grey


def hue_matrix(turn: Tensor) -> Tensor:
    """(n, 3, 3): rotates the hue in YIQ by ``turn`` (n,), a share of the circle; keeps the grey value."""
    angle = 2 * math.pi * turn
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.zeros(len(turn), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cos
    rotation[:, 1, 2], rotation[:, 2, 1] = -sin, sin
    yiq = torch.tensor(YIQ)
    return torch.linalg.inv(yiq) @ rotation @ yiq


def apply_colours(x: Tensor, matrix: Tensor, contrast: Tensor) -> Tensor:
    """Maps colours by ``matrix``, blends with the image's mean grey value by ``contrast``, and clips to [0, 1].

    Args:
        x: (n, channels, h, w) in [0, 1]. matrix: (n, channels, channels). contrast: (n,), 1 changes nothing.
    """
    n, channels, h, w = x.shape
    # Pixels as rows: with channels last this is a view.
    pixels = x.permute(0, 2, 3, 1).reshape(n, h * w, channels)
    pixels = pixels @ (contrast[:, None, None] * matrix).transpose(1, 2)
    mean = (pixels.mean(1) @ _luma(channels, x.device)) / contrast
    pixels = pixels + ((1 - contrast) * mean)[:, None, None]
    return pixels.clamp_(0, 1).reshape(n, h, w, channels).permute(0, 3, 1, 2)


@lru_cache
def _luma(channels: int, device: torch.device) -> Tensor:
    # Made once: a new tensor of given numbers is a copy to the device that the host waits for.
    return torch.tensor(LUMA if channels == 3 else (1.0,), device=device)
