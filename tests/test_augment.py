"""Augmentation against per-sample loops and torchvision's own transforms.

Statistical bounds are five standard deviations of a binomial count; all seeds are fixed.
"""

import hashlib
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from emlc_lib.data import autoaugment
from emlc_lib.data.augment import augment_clean, augment_noisy, normalise
from emlc_lib.data.autoaugment import (
    CIFAR_POLICY,
    IMAGENET_POLICY,
    SIGNED,
    apply_operation,
    apply_plan,
    draw_plan,
    magnitude,
)
from emlc_lib.data.datasets import DATASETS
from emlc_lib.data.spec import Recipe

TORCHVISION = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
GEOMETRIC = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
BLENDS = {"Brightness", "Color", "Contrast", "Sharpness"}


def cifar_autoaugment(images, generator):
    return apply_plan(images, draw_plan(CIFAR_POLICY, len(images), images.shape[-1], generator))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_images(n, side=32, channels=3, seed=0):
    return torch.randint(256, (n, channels, side, side), generator=generator(seed), dtype=torch.uint8)


def smooth_images(n, seed=1):
    """Like photographs, these have few grey values next to each other and a limited range."""
    coarse = torch.rand(n, 3, 5, 5, generator=generator(seed)) * 200 + 20
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").to(torch.uint8)


def within_five_sigma(count, probability, n):
    return abs(count - n * probability) <= 5 * (n * probability * (1 - probability)) ** 0.5


def crop_one(image, padding, down, right, flip):
    """One (channels, h, w) NumPy image, pixel by pixel: output (i, j) shows padded (i + down, j + right)."""
    h, w = image.shape[1:]
    out = np.zeros_like(image)
    for i in range(h):
        for j in range(w):
            row, column = i + down - padding, (w - 1 - j if flip else j) + right - padding
            if 0 <= row < h and 0 <= column < w:
                out[:, i, j] = image[:, row, column]
    return out


def crop(padding, flip):
    return Recipe(padding, noisy_flip=flip, clean_flip=False, policy=None)


class TestCropAndFlip:
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize(("padding", "shape"), [(4, (6, 3, 9, 9)), (1, (6, 1, 5, 8)), (0, (3, 2, 4, 4))])
    def test_against_a_loop_with_the_same_draws(self, padding, shape, flip):
        images = torch.randint(1, 256, shape, generator=generator(), dtype=torch.uint8)
        draws = generator(7)
        offsets = torch.randint(2 * padding + 1, (shape[0], 2), generator=draws).tolist()
        mirror = torch.randint(2, (shape[0],), generator=draws).tolist()
        expected = [
            crop_one(image, padding, down, right, bool(m) and flip)
            for image, (down, right), m in zip(images.numpy(), offsets, mirror, strict=True)
        ]
        value = augment_noisy(images, crop(padding, flip), generator(7))
        assert value.dtype == torch.uint8
        assert np.array_equal(value.numpy(), np.stack(expected))

    @pytest.mark.parametrize("flip", [False, True])
    def test_all_places_and_mirrorings_equally_often(self, flip):
        """Without knowing the draws: each of 3 x 3 places (times 2 mirrorings) of one image, per sample."""
        n, padding = 3600, 1
        image = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4)
        candidates = {
            crop_one(image, padding, down, right, m).tobytes()
            for down in range(3)
            for right in range(3)
            for m in ((False, True) if flip else (False,))
        }
        assert len(candidates) == (18 if flip else 9)
        batch = torch.from_numpy(image).expand(n, 1, 4, 4)
        found = Counter(x.tobytes() for x in augment_noisy(batch, crop(padding, flip), generator()).numpy())
        assert set(found) == candidates
        assert all(within_five_sigma(count, 1 / len(candidates), n) for count in found.values())

    def test_reproducible_by_a_cpu_generator_alone(self):
        images = noise_images(20)
        before, state = images.clone(), torch.get_rng_state()
        g = generator(3)
        recipe = crop(4, True)
        first, second = (augment_noisy(images, recipe, g) for _ in range(2))
        assert torch.equal(first, augment_noisy(images, recipe, generator(3)))
        assert not torch.equal(first, second)
        assert torch.equal(images, before)
        assert torch.equal(torch.get_rng_state(), state)


def test_normalise_against_a_loop():
    """float32 with two roundings and values up to 3: 1e-6 is a few of its last digits."""
    images = noise_images(3, side=4)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    value = normalise(images, torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None])
    assert value.dtype == torch.float32
    for i in range(3):
        for c in range(3):
            expected = (images[i, c].numpy().astype(np.float64) / 255 - mean[c]) / std[c]
            np.testing.assert_allclose(value[i, c].numpy(), expected, rtol=0, atol=1e-6)


class TestRecipes:
    def edges(self, dataset, channels):
        """Over many draws: the widest black margin, and whether an image was ever mirrored."""
        side = 32
        ramp = torch.arange(1, side + 1, dtype=torch.uint8).expand(channels, side, side)
        out = augment_noisy(ramp.expand(400, -1, -1, -1), DATASETS[dataset].recipe, generator())[:, 0].int()
        margins = torch.cat([(out.sum(1) == 0).sum(1), (out.sum(2) == 0).sum(1)])
        return margins.max().item(), bool((out[:, 16, 20] < out[:, 16, 12]).any())

    @pytest.mark.parametrize(
        ("dataset", "channels", "padding", "flip"),
        [
            ("digits", 1, 1, False),
            ("fashion_mnist", 1, 2, True),
            ("cifar10", 3, 4, True),
            ("cifar100", 3, 4, True),
        ],
    )
    def test_noisy_augmentation(self, dataset, channels, padding, flip):
        """Table 4's crop and flip for CIFAR; a mirrored digit would be another digit."""
        assert self.edges(dataset, channels) == (padding, flip)

    @pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
    def test_grey_clean_images_have_no_autoaugment(self, dataset):
        images, recipe = noise_images(30, side=8, channels=1), DATASETS[dataset].recipe
        assert torch.equal(
            augment_clean(images, recipe, generator(5)), augment_noisy(images, recipe, generator(5))
        )

    @pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
    def test_clean_cifar_images_are_cropped_and_then_autoaugmented(self, dataset):
        images, recipe, g = noise_images(30), DATASETS[dataset].recipe, generator(5)
        cropped = augment_noisy(images, recipe, g)
        value = augment_clean(images, recipe, generator(5))
        assert torch.equal(value, cifar_autoaugment(cropped, g))
        assert not torch.equal(value, cropped)
        assert value.dtype == torch.uint8
        assert torch.equal(augment_clean(images, recipe, generator(5), autoaugment=False), cropped)


def torchvision_magnitude(operation, level, side=32):
    magnitudes, signed = TORCHVISION._AUGMENTATION_SPACE[operation]
    values = magnitudes(10, side, side)
    assert signed == (operation in SIGNED)
    return 0.0 if values is None else float(values[level])


def by_torchvision(image, operation, value):
    return TORCHVISION._apply_image_or_video_transform(
        image, operation, value, TORCHVISION.interpolation, TORCHVISION._fill
    )


class TestOperations:
    @pytest.mark.parametrize("operation", v2.AutoAugment._AUGMENTATION_SPACE)
    def test_against_torchvision_sample_by_sample(self, operation):
        """One batch that holds every image at levels 2, 7, 9 with both signs, so magnitudes differ in it.

        Blends are rounded once here and twice in torchvision: they may differ by one grey value. Where the
        nearest pixel is a tie, the two ways to write the same map round it differently: fewer than 0.2 % of the
        pixels at these levels. Everything else is integer arithmetic and has to agree exactly.
        """
        settings = [(level, sign) for level in (2, 7, 9) for sign in ((1, -1) if operation in SIGNED else (1,))]
        sources = torch.cat([noise_images(4), smooth_images(4)])
        images, values, expected = [], [], []
        for level, sign in settings:
            for image in sources:
                images.append(image)
                values.append(magnitude(operation, level, 32) * sign)
                expected.append(by_torchvision(image, operation, torchvision_magnitude(operation, level) * sign))
        images, expected = torch.stack(images), torch.stack(expected)
        before = images.clone()
        value = apply_operation(operation, images, torch.tensor(values))
        assert value.dtype == torch.uint8
        assert torch.equal(images, before)
        assert not torch.equal(value, images)
        difference = (value.int() - expected.int()).abs()
        if operation in GEOMETRIC:
            assert (difference > 0).double().mean() < 0.002
        else:
            assert difference.max() <= (1 if operation in BLENDS else 0)

    @pytest.mark.parametrize("operation", v2.AutoAugment._AUGMENTATION_SPACE)
    @pytest.mark.parametrize("side", [32, 8])
    def test_magnitudes_against_torchvision(self, operation, side):
        """All ten bins. Its linspace is float32: relative errors of 1e-7, and 1e-5 in 255ths."""
        if torchvision_magnitude(operation, 9) == torchvision_magnitude(operation, 0) == 0.0:
            assert magnitude(operation, None, side) == 0.0
            return
        for level in range(10):
            expected = torchvision_magnitude(operation, level, side)
            if operation.startswith("Translate"):
                expected = int(expected)  # torchvision truncates where it applies them
            elif operation == "Solarize":
                expected *= 255
            assert magnitude(operation, level, side) == pytest.approx(expected, rel=1e-6, abs=3e-5)

    def test_unknown_operation(self):
        with pytest.raises(ValueError, match=r"^operation: 'Cutout'"):
            apply_operation("Cutout", noise_images(1), torch.zeros(1))


@pytest.mark.parametrize(
    ("policy", "digest"), [(CIFAR_POLICY, "2d0cae059d60309b"), (IMAGENET_POLICY, "22de9419db974076")]
)
def test_torchvisions_policies_are_those_that_results_were_made_with(policy, digest):
    assert hashlib.sha256(json.dumps(policy).encode()).hexdigest().startswith(digest)


class TestAutoAugment:
    def test_against_a_loop_over_samples(self):
        """The operations of the drawn sub-policy, one image at a time; grouping by operation changes nothing."""
        n = 150
        images = torch.cat([noise_images(n // 2), smooth_images(n // 2)])
        draws = generator(11)
        chosen = torch.randint(25, (n,), generator=draws).tolist()
        accept = torch.rand((n, 2), generator=draws).tolist()
        positive = torch.randint(2, (n, 2), generator=draws).tolist()
        expected = []
        for i, image in enumerate(images):
            for stage, (operation, probability, level) in enumerate(TORCHVISION._policies[chosen[i]]):
                if accept[i][stage] < probability:
                    value = magnitude(operation, level, 32)
                    if operation in SIGNED and not positive[i][stage]:
                        value = -value
                    image = apply_operation(operation, image[None], torch.tensor([value]))[0]
            expected.append(image)
        value = cifar_autoaugment(images, generator(11))
        # A mean taken over a batch and over one image may round to neighbouring grey values.
        assert ((value.int() - torch.stack(expected).int()).abs() > 1).double().mean() < 1e-3
        assert (value == torch.stack(expected)).flatten(1).all(1).double().mean() > 0.95

    def test_each_sample_draws_its_own(self):
        """Of 500 copies the commonest outcomes are the untouched image and those of one colour operation.

        25 sub-policies of two operations with signs give well over 50 outcomes; one draw per batch gives one.
        """
        images = smooth_images(1).expand(500, -1, -1, -1)
        outcomes = Counter(x.tobytes() for x in cifar_autoaugment(images, generator()).numpy())
        assert len(outcomes) > 50
        assert max(outcomes.values()) < 150

    def test_reproducible_and_input_unchanged(self):
        images = smooth_images(40)
        before, state, python_state = images.clone(), torch.get_rng_state(), random.getstate()
        g = generator(2)
        first, second = (cifar_autoaugment(images, g) for _ in range(2))
        assert torch.equal(first, cifar_autoaugment(images, generator(2)))
        assert not torch.equal(first, second)
        assert torch.equal(images, before)
        assert torch.equal(torch.get_rng_state(), state)
        assert random.getstate() == python_state
        assert (first.shape, first.dtype) == (images.shape, torch.uint8)

    def test_frequencies_are_the_policys(self, monkeypatch):
        """Each of 25 sub-policies with equal chance, each operation with its own, each sign with one half.

        A spy counts what is applied. The expected count of an operation at a level sums torchvision's table;
        occurrences are independent but for sub-policies that hold it twice, whose variance is at most doubled.
        """
        applied, n = Counter(), 30_000

        def spy(operation, images, magnitudes):
            assert len(images) == len(magnitudes)
            applied.update((operation, round(m, 4)) for m in magnitudes.tolist())
            return images

        monkeypatch.setattr(autoaugment, "apply_operation", spy)
        cifar_autoaugment(torch.zeros(n, 3, 1, 32, dtype=torch.uint8), generator())
        expected = Counter()
        for sub_policy in TORCHVISION._policies:
            for operation, probability, level in sub_policy:
                value = magnitude(operation, level, 32)
                for sign in (1, -1) if operation in SIGNED else (1,):
                    share = probability / 25 / (2 if operation in SIGNED else 1)
                    expected[operation, round(value * sign + 0.0, 4)] += share
        expected = {key: share for key, share in expected.items() if share}
        assert {key for key in applied if key not in expected} == set()
        for key, share in expected.items():
            assert abs(applied[key] - n * share) <= 5 * (2 * n * share) ** 0.5, key

    def test_empty_batch(self):
        assert cifar_autoaugment(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), generator()).shape == (0, 3, 32, 32)
