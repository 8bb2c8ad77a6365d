"""Loss terms against the formulas of the paper in NumPy, and the corruption strategies against loops.

Tolerances of 1e-12 are for float64 sums of a few dozen terms of order one; a wrong formula is off by far more.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from emlc_lib.core.losses import corrupt_half, gate_loss, soft_cross_entropy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class TestSoftCrossEntropy:
    def test_against_torch_with_probabilities_as_targets(self):
        logits, soft = normal(9, 5).requires_grad_(), normal(9, 5, seed=1).softmax(1).requires_grad_()
        value, expected = soft_cross_entropy(logits, soft), F.cross_entropy(logits, soft)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        for of in (logits, soft):
            gradients = (torch.autograd.grad(loss, of, retain_graph=True)[0] for loss in (value, expected))
            torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)

    def test_against_the_formula(self):
        """Eq. 6: -1/n sum_i sum_c q_ic log p_ic; shifted logits give the same probabilities."""
        logits, soft = normal(9, 5), normal(9, 5, seed=1).softmax(1)
        p = np.exp(logits.numpy())
        p /= p.sum(1, keepdims=True)
        expected = -np.mean([sum(q * np.log(p_i)) for q, p_i in zip(soft.numpy(), p, strict=True)])
        assert soft_cross_entropy(logits, soft).item() == pytest.approx(expected, rel=1e-12)
        assert soft_cross_entropy(logits + 1000, soft).item() == pytest.approx(expected, rel=1e-10)

    def test_hard_labels_are_a_special_case(self):
        logits, labels = normal(9, 5), torch.tensor([0, 1, 2, 3, 4, 0, 0, 2, 4])
        value = soft_cross_entropy(logits, F.one_hot(labels, 5).double())
        torch.testing.assert_close(value, F.cross_entropy(logits, labels), rtol=1e-12, atol=0)

    def test_unlikely_classes_do_not_overflow(self):
        value = soft_cross_entropy(torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        assert value.item() == pytest.approx(1000.0)


class TestGateLoss:
    def test_against_the_formula(self):
        """-1/n sum_i (c_i log w_i + (1 - c_i) log(1 - w_i)) with w = 1 / (1 + e^-g): right labels pull w up."""
        logits, clean = normal(11), torch.tensor([True, False] * 5 + [True])
        w = 1 / (1 + np.exp(-logits.numpy()))
        c = clean.numpy().astype(float)
        expected = -(c * np.log(w) + (1 - c) * np.log(1 - w)).mean()
        assert gate_loss(logits, clean).item() == pytest.approx(expected, rel=1e-12)

    def test_extreme_gates_stay_finite(self):
        """-log sigmoid(-200) is 200 up to e^-200."""
        value = gate_loss(torch.tensor([200.0, -200.0]), torch.tensor([False, True]))
        assert value.item() == pytest.approx(200.0)
        assert gate_loss(torch.tensor([200.0, -200.0]), torch.tensor([True, False])).item() == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_the_type(self, dtype):
        assert gate_loss(torch.zeros(2, dtype=dtype), torch.tensor([True, False])).dtype == dtype


class TestCorruptHalf:
    @pytest.mark.parametrize("n", [0, 1, 2, 7, 40])
    def test_adversarial_takes_the_strongest_wrong_class(self, n):
        logits = normal(n, 6)
        labels = torch.randint(6, (n,), generator=generator(1))
        # Where the teacher is right, the strongest class is the true one and must be passed over.
        labels[::3] = logits[::3].argmax(1)
        before = labels.clone(), logits.clone()
        expected = labels.tolist()
        for i in range(n // 2):
            scores = logits[i].tolist()
            wrong = [c for c in range(6) if c != labels[i]]
            expected[i] = max(wrong, key=scores.__getitem__)
        g = generator(2)
        state = g.get_state()
        value = corrupt_half(labels, logits, "adversarial", g)
        assert value.tolist() == expected
        assert value.dtype == torch.int64
        assert torch.equal(labels, before[0])
        assert torch.equal(logits, before[1])
        assert torch.equal(g.get_state(), state)

    def test_adversarial_labels_are_wrong_however_unlikely(self):
        labels = torch.zeros(6, dtype=torch.int64)
        value = corrupt_half(labels, torch.tensor([[1e30, -1e30, -2e30]] * 6), "adversarial", generator())
        assert value.tolist() == [1, 1, 1, 0, 0, 0]

    def test_random_draws_uniformly_over_all_classes(self):
        """The true class included. Counts of 6,000 draws within five sigma of Binomial(6000, 1/4)."""
        n, c = 12_000, 4
        labels = torch.full((n,), 2)
        value = corrupt_half(labels, torch.zeros(n, c), "random", generator())
        counts = value[: n // 2].bincount(minlength=c).double()
        assert len(counts) == c
        assert ((counts - n / 8).abs() <= 5 * (n / 2 * 0.25 * 0.75) ** 0.5).all()
        assert (value[n // 2 :] == 2).all()

    @pytest.mark.parametrize("strategy", ["adversarial", "random"])
    @pytest.mark.parametrize("n", [6, 7])
    def test_the_second_half_is_untouched(self, strategy, n):
        labels = torch.arange(n)
        for seed in range(20):
            value = corrupt_half(labels, normal(n, 10), strategy, generator(seed))
            assert value[3:].tolist() == list(range(3, n))
        assert torch.equal(labels, torch.arange(n))

    def test_random_is_a_function_of_its_generator(self):
        labels, logits = torch.zeros(200, dtype=torch.int64), torch.zeros(200, 10)
        state = torch.get_rng_state()
        first, again, other = (corrupt_half(labels, logits, "random", generator(s)) for s in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_none_changes_nothing(self):
        labels = torch.arange(8)
        assert corrupt_half(labels, normal(8, 10), "none", generator()).tolist() == list(range(8))

    def test_unknown_strategy(self):
        with pytest.raises(ValueError, match=r"^corruption: 'adversary' is not one of adversarial, random, none"):
            corrupt_half(torch.arange(4), normal(4, 4), "adversary", generator())


@pytest.mark.parametrize("strategy", ["adversarial", "random", "none"])
def test_labels_stay_on_their_device(strategy):
    """On torch's device without memory, which stands for one that is not the generator's."""
    labels, logits = torch.zeros(6, dtype=torch.int64, device="meta"), torch.zeros(6, 3, device="meta")
    value = corrupt_half(labels, logits, strategy, generator())
    assert value.device.type == "meta"
    assert value.shape == (6,)
