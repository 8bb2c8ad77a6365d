"""FixMatch and distillation: their losses against loops, and that no noisy label is ever looked at."""

import copy

import pytest
import torch
from problems import FAST, LR, RandomBatches, same_bits, small
from torch.nn import functional as F

from emlc_lib import make_config, prepare
from emlc_lib.data.batches import Batches, CleanBatch
from emlc_lib.methods.distilled import Distilled
from emlc_lib.methods.fixmatch import FixMatch
from emlc_lib.runtime.randomness import Stream, torch_generator
from emlc_lib.training.start import initial_networks
from emlc_lib.training.trainer import train


class Views(RandomBatches):
    """Random images of which the strong view is another random change."""

    def strong(self, batch, t):
        generator = torch.Generator().manual_seed(100 + t)
        return batch.x + torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)

    def clean(self, t, size, weak=False):
        return CleanBatch(*super().clean(t, size))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_fixmatchs_step_descends_its_formula(threshold):
    """Sample by sample in float64; rounding leaves 1e-15 or so, and 1e-10 is far below any mistake."""
    built = small(FixMatch, batches=Views, fixmatch_threshold=threshold, fixmatch_weight=0.7)
    student = copy.deepcopy(built.student)
    batch, clean = built.batches.noisy(0), built.batches.clean(0, 6)
    strong = built.batches.strong(batch, 0)
    unsupervised, sure = 0.0, 0
    for x, changed in zip(batch.x, strong, strict=True):
        p = student(x[None]).detach().softmax(1)[0]
        if p.max() >= threshold:
            sure += 1
            unsupervised = unsupervised - student(changed[None]).log_softmax(1)[0, p.argmax()] / len(batch.x)
    if threshold == 0.3:
        assert 0 < sure < len(batch.x)
    loss = F.cross_entropy(student(clean.x), clean.labels) + 0.7 * unsupervised
    gradients = torch.autograd.grad(loss, list(student.parameters()))
    log = built.step(0)
    assert log["student_loss"].item() == pytest.approx(loss.item(), rel=1e-10)
    assert log["confident"].item() == pytest.approx(sure / len(batch.x))
    for p, g, new in zip(student.parameters(), gradients, built.student.parameters(), strict=True):
        torch.testing.assert_close(new, p - LR * g, rtol=1e-10, atol=1e-12)


SETTING = {**FAST, "n_noisy": 256, "epochs": 2}


@pytest.mark.parametrize("method", ["fixmatch", "distilled"])
def test_noisy_labels_are_not_looked_at(method):
    config = make_config(**SETTING, method=method)
    data = prepare(config)
    other = prepare(config)
    object.__setattr__(other, "noisy_labels", (other.noisy_labels + 3) % 10)
    a, b = (train(config, d, show=False).method.student.state_dict() for d in (data, other))
    assert same_bits(a, b)


def test_views_are_of_the_same_images_and_weak_is_without_autoaugment():
    config = make_config(dataset="digits", device="cpu", augment=False)
    batches = Batches(config, prepare(config))
    batch = batches.noisy(3)
    assert torch.equal(batch.x, batches.strong(batch, 3))
    batches = Batches(make_config(dataset="digits", device="cpu"), batches.data)
    batch = batches.noisy(3)
    assert not torch.equal(batch.x, batches.strong(batch, 3))
    again = batches.weak(batch.index, torch_generator(config.seed, Stream.NOISY_AUGMENTATION, 3))
    assert torch.equal(batch.x, again)
    twice = batches.weak(batch.index[:1].repeat(8), torch_generator(0, 1))
    assert len(twice.flatten(1).unique(dim=0)) > 1
    assert torch.equal(batches.clean(3, 8).x, batches.clean(3, 8, weak=True).x)  # digits have no AutoAugment


@pytest.fixture(scope="module")
def distilled():
    config = make_config(**SETTING | {"epochs": 4}, method="distilled")
    return train(config, prepare(config), show=False)


def test_the_predictor_learns_first_and_its_predictions_are_kept(distilled):
    method: Distilled = distilled.method
    data = method.batches.data
    with torch.no_grad():
        x = (data.noisy_images.float() / 255 - data.mean) / data.std
        expected = method.predictor.eval()(x).softmax(1)
    # Batches of another size sum in another order.
    torch.testing.assert_close(method.memory.labels, expected, rtol=1e-4, atol=1e-5)
    right = (expected.argmax(1) == data.true_labels).double().mean().item()
    assert distilled.epochs["recovery_all"].iloc[-1] == pytest.approx(right, abs=0.01)
    # The student waits in the first part, and only it learns in the second.
    accuracy = distilled.epochs["student_clean_accuracy"]
    assert accuracy[0] == accuracy[1]
    assert distilled.steps["predictor_loss"].notna().sum() == distilled.steps["student_loss"].notna().sum()


def test_each_part_has_the_whole_schedule():
    config = make_config(**SETTING | {"epochs": 4}, method="distilled", schedule="cosine")
    batches = Batches(config, prepare(config))
    method = Distilled(config, batches, initial_networks(config, batches, teacher=False)[0], None)
    half = method.last_step(2)
    for first in (0, half):
        factors = [method.schedule(first + t) for t in range(half)]
        assert factors == [method.schedule(t) for t in range(half)]
        assert factors[0] == 1
        assert factors[-1] < 0.1
