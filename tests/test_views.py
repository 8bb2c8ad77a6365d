"""SimCLR's augmentations: each part against torchvision or a closed form, and independence across samples."""

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from emlc_lib.data.datasets import DATASETS
from emlc_lib.networks.views import (
    LUMA,
    ViewRecipe,
    apply_colours,
    colour_maps,
    crop_maps,
    hue_matrix,
    random_view,
    saturation_matrix,
)

NOTHING = ViewRecipe(1.0, False, 0.0, 0.0, 0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(256, (16, 3, 12, 12), generator=generator(), dtype=torch.uint8)


def test_nothing_changes_under_the_empty_recipe(images):
    # 1e-5: grid_sample computes pixel positions in float32.
    view = random_view(images, NOTHING, 12, generator())
    square = crop_maps(16, NOTHING, generator())[:, 0, 0].abs() == 1  # aspect ratios cut, even at full area
    high = crop_maps(16, NOTHING, generator())[:, 1, 1] == 1
    assert (square | high).all()
    whole = ViewRecipe(1.0, False, 0.0, 0.0, 0.0)
    assert view.shape == images.shape
    matrix, contrast = colour_maps(16, 3, whole, generator())
    torch.testing.assert_close(apply_colours(images / 255, matrix, contrast), images / 255, rtol=0, atol=1e-5)


def test_crops_stay_inside_and_have_the_stated_area_and_ratio():
    recipe = ViewRecipe(0.2, True, 0.0, 0.0, 0.0)
    theta = crop_maps(20_000, recipe, generator())
    width, height = theta[:, 0, 0].abs(), theta[:, 1, 1]
    assert (theta[:, 0, 2].abs() + width <= 1 + 1e-6).all()
    assert (theta[:, 1, 2].abs() + height <= 1 + 1e-6).all()
    # Where neither side was cut off at the image, area and ratio are as drawn.
    inside = (width < 1) & (height < 1)
    area, ratio = (width * height)[inside], (width / height)[inside]
    assert area.min() >= 0.2 - 1e-6
    assert area.max() <= 1 + 1e-6
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5
    # Area is uniform on [0.2, 1], and small crops are never cut.
    share, expected = ((width * height) < 0.4).double().mean().item(), 0.2 / 0.8
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5  # four standard errors
    mirrored = (theta[:, 0, 0] < 0).double().mean().item()
    assert abs(mirrored - 0.5) < 4 * 0.5 / 20_000**0.5


def test_a_crop_shows_the_pixels_it_covers():
    """A linear ramp resampled by an affine map is the ramp at the mapped positions: bilinear sampling is exact."""
    ramp = torch.arange(32.0).expand(1, 1, 32, 32).mul(8).to(torch.uint8)
    recipe = ViewRecipe(0.2, True, 0.0, 0.0, 0.0)
    for seed in range(20):
        theta = crop_maps(1, recipe, generator(seed))[0]
        centres = (2 * torch.arange(24) + 1) / 24 - 1
        position = (theta[0, 0] * centres + theta[0, 2] + 1) * 16 - 0.5
        expected = position.clamp(0, 31) * 8 / 255
        view = random_view(ramp, recipe, 24, generator(seed))[0, 0]
        torch.testing.assert_close(view, expected.expand(24, 24), rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.4])
def test_colour_factors_are_torchvisions(images, factor):
    """Images in the middle of the range, so that nothing is clipped on the way; 1e-6 is float32 rounding."""
    x = 0.35 + 0.2 * images / 255
    eye, ones = torch.eye(3).expand(16, 3, 3), torch.ones(16)
    full = torch.full((16,), factor)
    torch.testing.assert_close(
        apply_colours(x, factor * eye, ones), TF.adjust_brightness(x, factor), rtol=0, atol=1e-6
    )
    # torchvision rounds its grey weights to four digits (0.2989): 2e-4.
    torch.testing.assert_close(apply_colours(x, eye, full), TF.adjust_contrast(x, factor), rtol=0, atol=2e-4)
    torch.testing.assert_close(
        apply_colours(x, saturation_matrix(full), ones), TF.adjust_saturation(x, factor), rtol=0, atol=2e-4
    )


def test_contrast_is_about_the_mean_after_the_other_changes(images):
    x = 0.35 + 0.2 * images / 255
    matrix = saturation_matrix(torch.full((16,), 0.3)) @ (1.2 * torch.eye(3))
    both = apply_colours(x, matrix, torch.full((16,), 0.7))
    first = apply_colours(x, matrix, torch.ones(16))
    torch.testing.assert_close(both, TF.adjust_contrast(first, 0.7), rtol=0, atol=2e-4)


def test_turning_the_hue_keeps_grey_values_and_comes_back(images):
    x = (0.4 + 0.1 * images / 255).permute(0, 2, 3, 1)
    luma = torch.tensor(LUMA)
    turned = x @ hue_matrix(torch.full((16,), 0.1)).transpose(1, 2).unsqueeze(1)
    torch.testing.assert_close(turned @ luma, x @ luma, rtol=0, atol=1e-4)  # the YIQ matrix has four digits
    assert (turned - x).abs().max() > 0.01
    back = hue_matrix(torch.full((1,), 0.1)) @ hue_matrix(torch.full((1,), -0.1))
    torch.testing.assert_close(back[0], torch.eye(3), rtol=0, atol=1e-5)
    # A third of the circle sends red to about green: the largest channel moves on.
    red = torch.tensor([0.6, 0.3, 0.3])
    assert (hue_matrix(torch.tensor([1 / 3]))[0] @ red).argmax() != 0


def test_grey_views_have_equal_channels_and_the_stated_share():
    recipe = DATASETS["cifar10"].views
    images = torch.randint(256, (4000, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    views = random_view(images, recipe, 8, generator(1))
    grey = ((views - views[:, :1]).abs().amax((1, 2, 3)) < 1e-4).double().mean().item()
    assert abs(grey - recipe.grey) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    assert views.min() >= 0
    assert views.max() <= 1


def test_every_sample_draws_for_itself(images):
    same = images[:1].expand(16, 3, 12, 12)
    views = random_view(same, DATASETS["cifar10"].views, 10, generator())
    assert views.shape == (16, 3, 10, 10)
    assert len(torch.unique(views.flatten(1), dim=0)) == 16
    assert torch.equal(views, random_view(same, DATASETS["cifar10"].views, 10, generator()))
    assert not torch.equal(views, random_view(same, DATASETS["cifar10"].views, 10, generator(1)))


def test_grey_images_are_never_mirrored_as_digits():
    images = torch.randint(256, (200, 1, 8, 8), generator=generator(), dtype=torch.uint8)
    assert (crop_maps(200, DATASETS["digits"].views, generator())[:, 0, 0] > 0).all()
    views = random_view(images, DATASETS["digits"].views, 8, generator())
    assert views.shape == images.shape
    matrix, contrast = colour_maps(200, 1, DATASETS["digits"].views, generator())
    assert matrix.shape == (200, 1, 1)
    changed = (matrix[:, 0, 0] != 1).double().mean().item()
    assert abs(changed - 0.8) < 4 * (0.8 * 0.2 / 200) ** 0.5
    assert (contrast >= 0.6).all()
    assert (contrast <= 1.4).all()
