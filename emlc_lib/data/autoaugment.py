"""AutoAugment (Cubuk et al., 2019) for a batch, with one sub-policy drawn per sample.

torchvision's transform draws one sub-policy per call, so for a whole batch. Here every sample has its own;
samples that drew the same operation are transformed together, on whatever device they are on. The policies and the
colour operations are torchvision's; the tests hold every operation against torchvision's, sample by sample.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as TF

from ..runtime.execution import matmul_precision
from ..runtime.randomness import WHOLE, Share

# Sub-policies, all equally likely, of two operations each: (name, probability, magnitude bin of 0..9).
Policy = tuple[tuple[tuple[str, float, int | None], ...], ...]

# Tables 7 and 9 of Cubuk et al. Some of ImageNet's are in it twice, so that they are drawn twice as often.
CIFAR_POLICY: Policy = tuple(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)
IMAGENET_POLICY: Policy = tuple(AutoAugment(AutoAugmentPolicy.IMAGENET).policies)

# Upper ends of the magnitude ranges, reached at bin 9; translations are shares of the side length.
_RANGE = {
    "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331, "TranslateY": 150 / 331, "Rotate": 30.0,
    "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9,
}  # fmt: skip

SIGNED = frozenset(_RANGE)


def magnitude(operation: str, level: int | None, side: int) -> float:
    """The magnitude at a bin of 0..9: degrees, pixels, bits, a grey value, a factor's distance from 1, or 0."""
    if operation in _RANGE:
        value = _RANGE[operation] * level / 9
        return float(int(value * side)) if operation.startswith("Translate") else value
    if operation == "Posterize":
        return float(round(8 - level * 4 / 9))
    if operation == "Solarize":
        return 255 * (1 - level / 9)
    return 0.0


class Plan(NamedTuple):
    """What is done to a batch: operations one after the other, each to some of the samples.

    Attributes:
        operations: names, with the number of samples that each is applied to.
        samples: (sum of these numbers,) int64, which samples, in the order of the operations.
        magnitudes: of the same shape, float; see :func:`magnitude` for units.
    """

    operations: list[tuple[str, int]]
    samples: Tensor
    magnitudes: Tensor


def draw_plan(policy: Policy, n: int, side: int, generator: torch.Generator, share: Share = WHOLE) -> Plan:
    """A random sub-policy for each of ``n`` samples of ``side`` pixels, on the host.

    Args:
        policy: sub-policies, all equally likely.
        generator: a CPU generator, so that the choices do not depend on the device.
        share: which samples of a batch of ``n * share.world`` they are; each is changed as in that batch.
    """
    whole = n * share.world
    chosen = share.of(torch.randint(len(policy), (whole,), generator=generator)).tolist()
    accept = share.of(torch.rand((whole, 2), generator=generator)).tolist()
    signs = share.of(torch.randint(2, (whole, 2), generator=generator) * 2 - 1).tolist()
    operations, samples, magnitudes = [], [], []
    for stage in range(2):
        groups: dict[str, tuple[list[int], list[float]]] = {}
        for i in range(n):
            operation, probability, level = policy[chosen[i]][stage]
            if accept[i][stage] < probability:
                value = magnitude(operation, level, side)
                indices, values = groups.setdefault(operation, ([], []))
                indices.append(i)
                values.append(value * signs[i][stage] if operation in SIGNED else value)
        operations += [(operation, len(indices)) for operation, (indices, _) in groups.items()]
        samples += [i for indices, _ in groups.values() for i in indices]
        magnitudes += [value for _, values in groups.values() for value in values]
    return Plan(
        operations, torch.tensor(samples, dtype=torch.int64), torch.tensor(magnitudes, dtype=torch.float32)
    )


def apply_plan(images: Tensor, plan: Plan) -> Tensor:
    """The images (n, 3, side, side) uint8 after a plan on their device; they are not changed themselves."""
    images = images.clone()
    sizes = [size for _, size in plan.operations]
    parts = zip(plan.samples.split(sizes), plan.magnitudes.split(sizes), strict=True)
    for (operation, _), (samples, magnitudes) in zip(plan.operations, parts, strict=True):
        images[samples] = apply_operation(operation, images[samples], magnitudes)
    return images


def apply_operation(operation: str, images: Tensor, magnitudes: Tensor) -> Tensor:
    """One named operation, image i with magnitudes[i]; see :func:`magnitude` for units.

    Args:
        images: (n, 3, side, side) uint8. magnitudes: (n,) float, on the same device.

    Raises:
        ValueError: an unknown operation.
    """
    if operation in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        return _warp(images, _inverse_maps(operation, magnitudes, images.shape[-1]))
    values = magnitudes[:, None, None, None]
    match operation:
        # A factor of 0 gives the image that these four operations blend with.
        case "Brightness":
            return _blend(images, torch.zeros_like(images), 1 + values)
        case "Color":
            return _blend(images, TF.adjust_saturation(images, 0.0), 1 + values)
        case "Contrast":
            return _blend(images, TF.adjust_contrast(images, 0.0), 1 + values)
        case "Sharpness":
            return _blend(images, TF.adjust_sharpness(images, 0.0), 1 + values)
        case "Posterize":
            # In whole numbers: a power of floats may fall just short of one on a GPU.
            return images & (256 - (1 << (8 - values.int()))).to(torch.uint8)
        case "Solarize":
            return torch.where(images >= values, 255 - images, images)
        case "AutoContrast":
            return TF.autocontrast(images)
        case "Equalize":
            return TF.equalize(images)
        case "Invert":
            return 255 - images
    raise ValueError(f"operation: {operation!r} is not an AutoAugment operation")


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def _inverse_maps(operation: str, magnitudes: Tensor, side: int) -> Tensor:
    """(n, 2, 3): output to input coordinates, in pixels from the top left corner of the image."""
    m = magnitudes.double()
    maps = m.new_zeros(len(m), 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = 1
    if operation == "ShearX":
        maps[:, 0, 1] = m
    elif operation == "ShearY":
        maps[:, 1, 0] = m
    elif operation == "TranslateX":
        maps[:, 0, 2] = -m
    elif operation == "TranslateY":
        maps[:, 1, 2] = -m
    else:
        cos, sin = torch.cos(torch.deg2rad(m)), torch.sin(torch.deg2rad(m))
        maps[:, 0, 0] = maps[:, 1, 1] = cos
        maps[:, 0, 1], maps[:, 1, 0] = -sin, sin
        centre = m.new_full((2, 1), side / 2)
        maps[:, :, 2:] = centre - maps[:, :, :2] @ centre
    return maps


def _warp(images: Tensor, maps: Tensor) -> Tensor:
    # affine_grid wants coordinates in [-1, 1]: x = (x_n + 1) * side / 2.
    side = images.shape[-1]
    theta = maps.clone()
    theta[:, :, 2] = maps[:, :, 2] * 2 / side + maps[:, :, :2].sum(2) - 1
    with matmul_precision("float32"):  # TF32 would move pixels
        grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    warped = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return warped.to(torch.uint8)
