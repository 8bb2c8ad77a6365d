"""The extension's objective against its formula, and that it is EMLC where nothing is sure."""

import copy

import pytest
import torch
from problems import RandomBatches, method, same_bits
from torch.nn import functional as F

from emlc_lib.methods.emlc import EMLC
from emlc_lib.methods.emlc_consistent import EMLCConsistent

SOME = 0.12  # which some of ten images reach, with new weights
PLAIN = {"lr": 0.05, "corruption": "none", "schedule": "none"}


class Views(RandomBatches):
    def two_views(self, t):
        batch = self.noisy(t)
        generator = torch.Generator().manual_seed(100 + t)
        return batch, batch.x + torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)


def both(k, threshold, weight=0.7):
    values = {**PLAIN, "k": k}
    changes = {"consistency_threshold": threshold, "consistency_weight": weight}
    return method(cls=EMLC, batches=Views(), **values), method(
        cls=EMLCConsistent, batches=Views(), **values, **changes
    )


@pytest.mark.parametrize("k", [1, 3])
def test_the_teachers_gradient_is_emlcs_and_fixmatchs(k):
    """Image by image in float64; 1e-9: the same sums in another order."""
    plain, consistent = both(k, threshold=SOME)
    teacher = copy.deepcopy(plain.teacher)
    for t in range(k):
        plain.step(t)
        log = consistent.step(t)
    batch, strong = consistent.batches.two_views(k - 1)
    p = teacher.classifier(batch.x).softmax(1).detach()  # in training mode, as in the step
    further = teacher.classifier(strong).log_softmax(1)
    total, sure = 0.0, 0
    for i in range(len(p)):
        if p[i].max() >= SOME:
            sure += 1
            total = total - 0.7 * further[i, p[i].argmax()] / len(p)
    assert 0 < sure < len(p)
    assert log["confident"].item() == pytest.approx(sure / len(p))
    assert log["consistency_loss"].item() == pytest.approx(total.item() / 0.7, rel=1e-9)
    expected = torch.autograd.grad(total, list(teacher.parameters()), materialize_grads=True)
    for a, b, g in zip(consistent.teacher.parameters(), plain.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad + g, rtol=1e-9, atol=1e-12)


def test_where_no_image_is_sure_it_is_emlc():
    plain, consistent = both(2, threshold=1.0)
    for t in range(4):
        plain.step(t), consistent.step(t)
    for name in ("student", "teacher"):
        assert same_bits(plain.networks[name].state_dict(), consistent.networks[name].state_dict())


def test_labels_still_decide_the_students_steps():
    """Its first step, before any update of the teacher, is EMLC's."""
    plain, consistent = both(2, threshold=0.0)
    plain.step(0), consistent.step(0)
    assert same_bits(plain.student.state_dict(), consistent.student.state_dict())
    assert F.mse_loss(plain.teacher.gate[0].weight, consistent.teacher.gate[0].weight) == 0
