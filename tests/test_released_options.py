"""The released code's differences from the paper, each an option."""

import copy

import numpy as np
import pytest
import torch
from problems import method
from torch.func import functional_call, jvp
from torch.nn import functional as F

from emlc_lib.data.datasets import load_dataset
from emlc_lib.data.prepare import prepare
from emlc_lib.methods.emlc import EMLC
from emlc_lib.training.presets import make_config


class Recording(EMLC):
    """Keeps what the teacher's update starts from."""

    def _update_teacher(self, draw):
        self.steps, self.batches_seen = zip(*self._pending, strict=True)
        self.student_after, self.teacher_before = copy.deepcopy(self.student), copy.deepcopy(self.teacher)
        return super()._update_teacher(draw)


def teacher_gradient(built, order, scale):
    """The gradient of eq. 12 without BCE, from Prop. 2 and Cor. 3.1 term by term.

    The JVP of step tau, taken with torch.func, meets the labels of step ``order[tau]``; the sum of the terms is
    multiplied by ``scale``.
    """
    config, student, teacher = built.config, built.student_after, built.teacher_before
    clean = built.batches.clean(0, config.clean_batch_size)
    loss = F.cross_entropy(student(clean.x), clean.labels)
    g_w = dict(
        zip(dict(student.named_parameters()), torch.autograd.grad(loss, list(student.parameters())), strict=True)
    )
    total = F.cross_entropy(teacher.classifier(clean.x), clean.labels)
    labels = [teacher.correct(teacher.classifier.features(b.x), b.given).soft_labels for b in built.batches_seen]
    for tau, step in enumerate(built.steps):
        network = copy.deepcopy(student)

        def log_probabilities(params, network=network, x=step.x):
            buffers = {name: b.clone() for name, b in network.named_buffers()}
            return F.log_softmax(functional_call(network, (params, buffers), (x,)), dim=1)

        v = jvp(log_probabilities, ({n: p.detach() for n, p in step.params.items()},), (g_w,))[1]
        discount = (1 - config.lr) ** (config.k - 1 - tau)
        total = total + scale * discount * config.lr * (v * labels[order[tau]]).sum(1).mean()
    return torch.autograd.grad(total, list(teacher.parameters()), allow_unused=True)


@pytest.mark.parametrize("teacher_pass", ["kept", "recomputed"])
@pytest.mark.parametrize(
    ("changes", "order", "scale"),
    [
        ({}, [0, 1, 2], 1.0),
        ({"step_order": "reversed"}, [2, 1, 0], 1.0),
        ({"step_mean": True}, [0, 1, 2], 1 / 3),
        ({"step_order": "reversed", "step_mean": True}, [2, 1, 0], 1 / 3),
    ],
)
def test_order_and_scale_of_the_k_step_gradient(changes, order, scale, teacher_pass):
    """1e-9: the same float64 sums in another order."""
    values = {"k": 3, "corruption": "none", "schedule": "none", "teacher_pass": teacher_pass}
    built = method(cls=Recording, **values | changes)
    for t in range(3):
        built.step(t)
    expected = teacher_gradient(built, order, scale)
    found = [p.grad for p in built.teacher.parameters()]
    largest = max(g.abs().max() for g in expected if g is not None)
    for e, g in zip(expected, found, strict=True):
        if e is not None:
            torch.testing.assert_close(g, e, rtol=0, atol=1e-9 * float(largest))


def test_reversed_order_is_another_gradient():
    """Else the test above could pass with the option ignored."""
    built = method(cls=Recording, k=3, corruption="none", schedule="none")
    for t in range(3):
        built.step(t)
    matched, reversed_ = (teacher_gradient(built, order, 1.0) for order in ([0, 1, 2], [2, 1, 0]))
    apart = max(
        (a - b).abs().max() / a.abs().max() for a, b in zip(matched, reversed_, strict=True) if a is not None
    )
    assert apart > 1e-3


def test_teacher_momentum():
    """After two equal gradients plain SGD has moved twice as far as after one, with momentum further."""
    assert method(teacher_momentum=0.0).optimisers["teacher"].param_groups[0]["momentum"] == 0.0
    assert method().optimisers["teacher"].param_groups[0]["momentum"] == 0.9
    assert method(teacher_momentum=0.0).optimisers["student"].param_groups[0]["momentum"] == 0.9


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


class TestReleasedSplits:
    def data(self, digits, **changes):
        return prepare(make_config(dataset="digits", preset="smoke", device="cpu", **changes), digits)

    def test_the_clean_set_is_the_same_and_lies_in_the_noisy_one(self, digits):
        paper, released = self.data(digits), self.data(digits, splits="released")
        assert np.array_equal(paper.split.clean, released.split.clean)
        assert len(paper.split.noisy) == len(released.split.noisy)
        # The noisy set leaves out 100 of 1,347 at random: about 93 of the clean ones are in it. The standard
        # deviation is 2.5; 15 away is impossible for a correct draw.
        shared = np.intersect1d(released.split.clean, released.split.noisy)
        assert 78 <= len(shared) < 100
        assert not np.intersect1d(paper.split.clean, paper.split.noisy).size

    def test_the_epoch_is_chosen_on_further_clean_labels(self, digits):
        paper, released = self.data(digits), self.data(digits, splits="released")
        assert torch.equal(paper.validation_images, paper.clean_images)
        assert torch.equal(paper.validation_labels, paper.clean_labels)
        assert np.bincount(released.validation_labels).tolist() == [10] * 10
        split = released.split
        # 100 of 1,347: about 7 are shared with the clean set by chance; 40 would be no chance.
        assert len(np.intersect1d(split.validation, split.clean)) < 40
        assert torch.equal(released.validation_images, digits.train_images[split.validation])
        assert np.array_equal(released.validation_labels, digits.train_labels[split.validation])


class TestRandomFlips:
    def test_the_labels_follow_the_drawn_map(self):
        config = make_config(
            dataset="digits",
            preset="smoke",
            device="cpu",
            noise_type="asymmetric",
            noise=0.4,
            asymmetric_map="random",
        )
        data = prepare(config)
        wrong = data.noisy_labels != data.true_labels
        # Every class has a successor, so exactly the chosen 40 % are wrong.
        assert wrong.sum() == int(0.4 * len(wrong))
        for c in range(10):
            assert len(data.noisy_labels[wrong & (data.true_labels == c)].unique()) == 1
