"""FasTEN: the transition matrix, forward correction, one step by hand, and what becomes of the labels."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import RandomBatches, method
from torch.nn import functional as F

from emlc_lib import make_config, prepare
from emlc_lib.data.batches import Batches, CleanBatch
from emlc_lib.methods.fasten import FasTEN, estimated_transition, forward_corrected
from emlc_lib.training.trainer import train


class TwoBatches(RandomBatches):
    """Batches of a noisy set of 20 samples, of which the even steps see the first half."""

    def __init__(self, dtype=torch.float64):
        super().__init__(dtype)
        self.data = SimpleNamespace(
            noisy_labels=torch.cat([super(TwoBatches, self).noisy(t).given for t in (0, 1)])
        )

    def noisy(self, t):
        return super().noisy(t % 2)._replace(index=torch.arange(10) + 10 * (t % 2))

    def balanced_clean(self, t, per_class):
        x, _, _ = self.draw(20_000 + t, 10 * per_class)
        return CleanBatch(x, torch.arange(10).repeat_interleave(per_class))


def built(**changes):
    values = {"method": "fasten", "schedule": "none", "clean_batch_size": 25} | changes
    return method(cls=FasTEN, batches=TwoBatches(), **values)


def test_the_transition_matrix_is_the_mean_prediction_of_each_class():
    """Against plain NumPy loops over unevenly sized classes; 1e-12 is float64 rounding."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=20)
    labels = np.array([0] * 7 + [1] * 1 + [2] * 9 + [3] * 3)[rng.permutation(20)]
    expected = np.zeros((4, 4))
    for i in range(4):
        rows = [p[s] for s in range(20) if labels[s] == i]
        for j in range(4):
            expected[i, j] = sum(row[j] for row in rows) / len(rows)
    value = estimated_transition(torch.tensor(p), torch.tensor(labels)).numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(value.sum(1), 1, rtol=1e-12)


def test_forward_correction_is_the_cross_entropy_of_the_labels_that_would_arise():
    """Against NumPy: -log of sum_i p(i|x) T[i, label]. 1e-12 is float64 rounding. T is not symmetric here: its
    transpose would give other numbers."""
    rng = np.random.default_rng(1)
    logits, labels, t = rng.normal(size=(9, 4)), rng.integers(4, size=9), rng.dirichlet(np.ones(4), size=4)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = [-np.log(sum(p[s, i] * t[i, labels[s]] for i in range(4))) for s in range(9)]
    value = forward_corrected(torch.tensor(logits), torch.tensor(labels), torch.tensor(t))
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    # Without noise it is plain cross-entropy (to the smallest positive number that stands for 0).
    plain = forward_corrected(torch.tensor(logits), torch.tensor(labels), torch.eye(4, dtype=torch.float64))
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
    torch.testing.assert_close(plain, expected, rtol=1e-12, atol=1e-12)


def test_forward_correction_is_finite_where_probabilities_vanish():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = forward_corrected(logits, torch.tensor([1]), torch.eye(2))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_a_step_is_one_sgd_step_on_both_heads_losses():
    """The third step, which meets the first batch again with the labels stored there, by hand in float64. 1e-9 is
    far above rounding."""
    own = built(fasten_threshold=0.12, fasten_noisy_weight=0.3)  # untrained networks are about 0.1 to 0.2 sure
    for t in range(2):
        own.step(t)
    batch, clean = own.batches.noisy(2), own.batches.balanced_clean(2, 2)
    stored = own.labels.values[:10].clone()
    changed = (stored != batch.given).sum().item()
    assert 0 < changed < 10
    student, head = copy.deepcopy(own.student), copy.deepcopy(own.noisy_head)
    sgd = torch.optim.SGD([*student.parameters(), *head.parameters()], 0.05, momentum=0.9)
    sgd.load_state_dict(copy.deepcopy(own.optimisers["student"].state_dict()))
    h_noisy, h_clean = student.features(batch.x), student.features(clean.x)
    transition = head(h_clean).softmax(1).view(10, 2, 10).mean(1).detach()
    p = student.head(h_noisy).softmax(1)
    noisy = -(p @ transition)[torch.arange(10), stored].log().sum()
    right = F.cross_entropy(student.head(h_clean), clean.labels, reduction="sum")
    loss = (noisy + right) / 30 + 0.3 * F.cross_entropy(head(h_noisy), stored)
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    log = own.step(2)
    assert log["student_loss"].item() == pytest.approx(loss.item(), rel=1e-9)
    torch.testing.assert_close(own.transition, transition, rtol=1e-9, atol=1e-12)
    for network, expected in ((own.student, student), (own.noisy_head, head)):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-9, atol=1e-9, msg=name)
    # The labels that the step leaves behind are those of the same pass.
    confidence, predicted = p.max(1)
    assert torch.equal(own.labels.values[:10], torch.where(confidence >= 0.12, predicted, batch.given))


def test_corrections_are_written_for_the_batch_alone_and_can_be_taken_back():
    own = built(fasten_threshold=0.0)
    given = own.batches.data.noisy_labels.clone()
    log = own.step(0)
    replaced = own.labels.values.clone()
    assert not torch.equal(replaced[:10], given[:10])
    assert torch.equal(replaced[10:], given[10:])
    assert log["correction"][5:].sum() == 0  # a gate of 0 everywhere: nothing given is kept
    own.config = own.config.model_copy(update={"fasten_threshold": 1.0})
    log = own.step(2)
    assert torch.equal(own.labels.values, given)
    assert log["correction"][5:].sum() == 10
    assert torch.equal(own.batches.data.noisy_labels, given)


def test_clean_batches_are_balanced_and_pass_through_the_clean_set():
    """100 clean digits, 3 of each class per batch: 3 batches a pass, without repetition; then another order."""
    config = make_config(dataset="digits", preset="smoke", device="cpu", augment=False)
    data = prepare(config)
    batches = Batches(config, data)
    drawn = [batches.balanced_clean(t, 3) for t in range(6)]
    assert all(torch.equal(b.labels, torch.arange(10).repeat_interleave(3)) for b in drawn)
    images = ((data.clean_images.float() / 255 - data.mean) / data.std).flatten(1)
    # The image of each row, found again in the clean set, has the row's label.
    places = [torch.cdist(b.x.flatten(1), images).argmin(1) for b in drawn]
    assert all(torch.equal(data.clean_labels[p], b.labels) for p, b in zip(places, drawn, strict=True))
    for one_pass in (places[:3], places[3:]):
        assert len(set(torch.cat(one_pass).tolist())) == 90
    assert not torch.equal(places[0], places[3])
    again = Batches(config, data).balanced_clean(4, 3)
    assert torch.equal(again.x, drawn[4].x)


DIGITS = {"dataset": "digits", "preset": "smoke", "device": "cpu", "method": "fasten"}


def transitions_of(config, data):
    """A training, and the mean of the estimates of its last epoch's steps."""
    seen = []

    class Recording(FasTEN):
        def step(self, t):
            log = super().step(t)
            seen.append(self.transition.clone())
            return log

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("emlc_lib.training.trainer", fromlist=["METHODS"]).METHODS, "fasten", Recording)
        result = train(config, data, show=False)
    return result, torch.stack(seen[-result.method.batches.steps_per_epoch :]).mean(0).double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [{"noise": 0.5}, {"noise_type": "asymmetric", "noise": 0.4}])
def test_the_estimated_transition_is_that_of_the_noise(noise):
    """On digits, without corrections (a threshold of 1), against the matrix that made the noise.

    T is estimated from 3 clean samples of each class a step and averaged over an epoch's 19 steps; the noisy head
    is a trained network and not the truth, so entries are asked to be right within 0.1 on average over the
    diagonal (a matrix of no noise would be 0.45 and 0.2 away) and 0.04 over all of them.
    """
    config = make_config(**DIGITS, fasten_threshold=1.0, **noise)
    data = prepare(config)
    _, transition = transitions_of(config, data)
    away = np.abs(transition - data.corruption.expected)
    assert away.diagonal().mean() < 0.1
    assert away.mean() < 0.04


@pytest.mark.slow
def test_fasten_corrects_labels_on_digits():
    """With 50 % noise 55 % of the labels are right as given; a student that copied them would not reach 90 %."""
    config = make_config(**DIGITS, noise=0.5)
    result = train(config, prepare(config), show=False)
    assert result.epochs["recovery_all"].iloc[-1] > 0.75
    assert result.epochs["student_test_accuracy"].iloc[-1] > 0.9
