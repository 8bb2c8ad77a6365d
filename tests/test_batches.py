"""Batches and random streams: stateless, aligned, disjoint within an epoch."""

import dataclasses
from itertools import combinations, islice, product

import numpy as np
import pytest
import torch

from emlc_lib.data.batches import Batches
from emlc_lib.data.prepare import prepare
from emlc_lib.runtime.randomness import Stream, numpy_generator, torch_generator
from emlc_lib.training.presets import make_config

N_NOISY, N_CLEAN = 205, 100


def config_of(**changes):
    sizes = {"n_noisy": N_NOISY, "n_clean": N_CLEAN, "batch_size": 20, "clean_batch_size": 30}
    return make_config(dataset="digits", device="cpu", **sizes | changes)


@pytest.fixture(scope="module")
def digits():
    return prepare(config_of())


def numbered(data):
    """The same data, but sample i has the given label i, the true label 1000 + i and the grey value i."""

    def images(n):
        return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 8, 8).contiguous()

    return dataclasses.replace(
        data,
        noisy_images=images(N_NOISY),
        noisy_labels=torch.arange(N_NOISY),
        true_labels=1000 + torch.arange(N_NOISY),
        clean_images=images(N_CLEAN),
        clean_labels=torch.arange(N_CLEAN),
    )


def grey_values(x, data):
    """The centre pixel before normalisation; a crop of a padding of 1 leaves it as it is."""
    return (x[:, 0, 4, 4] * data.std[0] + data.mean[0]).mul(255).round().flatten().long()


@pytest.fixture(scope="module")
def sample(digits):
    return numbered(digits)


@pytest.fixture(scope="module")
def alike(digits):
    """Every sample is the same image, and it has no border that a crop could leave unchanged."""
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    noisy, clean = (image.expand(n, -1, -1, -1).contiguous() for n in (N_NOISY, N_CLEAN))
    return dataclasses.replace(digits, noisy_images=noisy, clean_images=clean)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class TestNoisy:
    def test_a_function_of_the_step_alone(self, digits):
        """Any order, any object, whatever happened before: the same bits."""
        config = config_of()
        first = Batches(config, digits)
        forwards = {t: first.noisy(t) for t in range(25)}
        torch.manual_seed(1)
        second = Batches(config, digits)
        for t in (24, 3, 11, 3, 0):
            second.clean(t, 30)
            assert same(second.noisy(t), forwards[t])
        assert not same(forwards[0], forwards[1])

    @pytest.mark.parametrize("augment", [False, True])
    def test_images_and_labels_belong_together(self, sample, augment):
        batches = Batches(config_of(augment=augment), sample)
        for t in (0, 7, 30):
            batch = batches.noisy(t)
            assert batch.x.shape == (20, 1, 8, 8)
            assert batch.x.dtype == torch.float32
            assert grey_values(batch.x, sample).tolist() == batch.given.tolist()
            assert (batch.true - 1000).tolist() == batch.given.tolist()

    def test_an_epoch_is_disjoint_and_epochs_differ(self, sample):
        """10 batches of 20 leave out 5 of 205 samples: others in another epoch."""
        batches = Batches(config_of(), sample)
        assert batches.steps_per_epoch == 10
        epochs = [[batches.noisy(t).given.tolist() for t in range(10 * e, 10 * e + 10)] for e in range(4)]
        left_out = []
        for epoch in epochs:
            seen = [i for batch in epoch for i in batch]
            assert len(set(seen)) == len(seen) == 200
            left_out.append(frozenset(range(N_NOISY)) - set(seen))
        assert len(set(left_out)) == 4
        assert epochs[0] != epochs[1]

    @pytest.mark.parametrize("augment", [False, True])
    def test_every_step_has_augmentations_of_its_own(self, alike, augment):
        """All samples are one image, so that only the crops can make batches differ."""
        batches = Batches(config_of(augment=augment), alike)
        batches = [batches.noisy(0).x, batches.noisy(1).x, batches.clean(0, 20).x, batches.clean(1, 20).x]
        assert all(torch.equal(a, b) is not augment for a, b in combinations(batches, 2))

    def test_without_augmentation_the_images_are_normalised_and_no_more(self, sample, digits):
        batch = Batches(config_of(augment=False), digits).noisy(3)
        # The order is a function of the configuration: the numbered data tell which samples these are.
        index = Batches(config_of(augment=False), sample).noisy(3).given
        pixels = digits.noisy_images[index].numpy() / 255
        expected = (pixels - digits.mean.item()) / digits.std.item()
        # float32 with two roundings and values up to 2.
        np.testing.assert_allclose(batch.x.numpy(), expected, rtol=0, atol=1e-6)
        assert torch.equal(batch.given, digits.noisy_labels[index])
        assert torch.equal(batch.true, digits.true_labels[index])

    @pytest.mark.parametrize("changes", [{"method": "clean_only"}, {"k": 5}, {"epochs": 1}, {"noise": 0.1}])
    def test_other_methods_see_the_same_batches(self, sample, changes):
        for t in (0, 12):
            assert same(Batches(config_of(), sample).noisy(t), Batches(config_of(**changes), sample).noisy(t))

    def test_seeds_differ(self, sample):
        first, second = (Batches(config_of(seed=seed), sample).noisy(0) for seed in (0, 1))
        assert first.given.tolist() != second.given.tolist()


class TestClean:
    @pytest.mark.parametrize("start", [False, True])
    def test_stateless_aligned_and_disjoint_within_a_pass(self, sample, start):
        batches = Batches(config_of(), sample)
        passed = [batches.clean(t, 30, start=start) for t in range(6)]
        for t in (5, 0, 2):
            assert same(Batches(config_of(), sample).clean(t, 30, start=start), passed[t])
        for batch in passed:
            assert batch.x.shape == (30, 1, 8, 8)
            assert grey_values(batch.x, sample).tolist() == batch.labels.tolist()
        for first in (0, 3):
            seen = torch.cat([batch.labels for batch in passed[first : first + 3]]).tolist()
            assert len(set(seen)) == 90

    def test_the_warm_up_has_streams_of_its_own(self, sample, alike):
        batches = Batches(config_of(), sample)
        assert batches.clean(0, 30).labels.tolist() != batches.clean(0, 30, start=True).labels.tolist()
        batches = Batches(config_of(), alike)
        assert not torch.equal(batches.clean(0, 30).x, batches.clean(0, 30, start=True).x)

    def test_the_whole_set_is_one_batch(self, sample):
        batches = Batches(config_of(), sample)
        for t in (0, 1, 9):
            assert sorted(batches.clean(t, N_CLEAN).labels.tolist()) == list(range(N_CLEAN))

    def test_clean_and_noisy_orders_differ(self, digits):
        """On sets and batches of equal size."""
        data = numbered(digits)
        data = dataclasses.replace(data, noisy_images=data.clean_images, noisy_labels=data.clean_labels)
        data = dataclasses.replace(data, true_labels=data.clean_labels)
        batches = Batches(config_of(), data)
        assert batches.noisy(0).given.tolist() != batches.clean(0, 20).labels.tolist()


@pytest.mark.parametrize("period", [1, 3, 7, 40])
def test_last_step_is_the_next_multiple_of_the_period(sample, period):
    batches = Batches(config_of(), sample)
    for epoch in range(6):
        steps = epoch * 10
        while steps % period:
            steps += 1
        assert batches.last_step(epoch, period) == steps


class TestStreams:
    def test_the_numbers_are_kept(self):
        """They are part of every stored result: new ones are appended."""
        names = (
            "SPLIT NOISE STUDENT_WEIGHTS TEACHER_WEIGHTS NOISY_ORDER CLEAN_ORDER NOISY_AUGMENTATION "
            "CLEAN_AUGMENTATION CORRUPTION START_ORDER START_AUGMENTATION"
        )
        assert {s.name: s.value for s in islice(Stream, 11)} == {n: i + 1 for i, n in enumerate(names.split())}
        assert len(set(Stream)) == len(Stream.__members__)

    def test_torch_streams_differ_in_seed_purpose_and_index(self):
        draws = {
            (seed, stream, index): tuple(torch.rand(2, generator=torch_generator(seed, stream, index)).tolist())
            for seed, stream, index in product((0, 1, 2, 2**31 - 1), Stream, range(20))
        }
        assert len(set(draws.values())) == len(draws)

    def test_numpy_streams_differ_in_seed_and_purpose(self):
        draws = {(seed, stream): numpy_generator(seed, stream).random() for seed in range(20) for stream in Stream}
        assert len(set(draws.values())) == len(draws)

    def test_the_same_arguments_give_the_same_stream(self):
        a, b = (torch.rand(5, generator=torch_generator(3, Stream.NOISE, 5)) for _ in range(2))
        assert torch.equal(a, b)
        assert numpy_generator(3, Stream.NOISE).random() == numpy_generator(3, Stream.NOISE).random()
        # A CPU generator, so that a run's choices do not depend on its device.
        assert torch_generator(3, Stream.NOISE).device.type == "cpu"

    def test_streams_are_not_shifted_or_correlated_copies(self):
        """Uniform draws of two streams have correlation zero; five standard errors of 10,000 pairs."""
        n = 10_000
        keys = [(0, Stream.NOISE, 0), (0, Stream.NOISE, 1), (0, Stream.SPLIT, 0), (1, Stream.NOISE, 0)]
        draws = [torch.rand(n, generator=torch_generator(*key), dtype=torch.float64) for key in keys]
        for a, b in combinations(draws, 2):
            assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) <= 5 / n**0.5
            assert not set(a[:100].tolist()) & set(b.tolist())
